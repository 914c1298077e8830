"""What `rbee-sd doctor` looks at, one module a subject. Every function blocks, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is one of the three above; `advice` says what to do about the latter two."""

    level: str
    text: str
    advice: str = ""
