"""How many rows a forward should have: the curve of rows against time, its knee, and the file that remembers it.

Pure arithmetic and one small JSON file; what is measured is measured by the denoiser.

Rows are tried in doublings. The cap is the smallest number that no larger one tried beats by 10 % in rows a second:
beyond it more rows make every job slower and all of them together no faster.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

GAIN = 1.10
PATIENCE = 2
"""Doublings in a row that may gain too little before it is enough."""
PASSES = 3
"""Times that each number is measured, some time apart: another process may disturb one of them. The best counts."""
BUDGET = 10.0
LATE_BUDGET = 1.0
"""Seconds after which no more is measured, while a model is loaded and later: somebody waits for it, and on a slow
device the answer is 1 or 2 anyway."""
REMEMBERED = 500
"""Curves in the file; the oldest go first."""


@dataclass(slots=True)
class Curve:
    """Seconds that a forward of so many rows takes. `limit`: rows beyond which nothing is tried, or all fails.

    `passes` counts the measurements, `spent` the seconds that they took, of a `budget`. `failed_at`, of the monotonic
    clock, is when rows within the limit were too many.
    """

    limit: int
    seconds: dict[int, float] = field(default_factory=dict)
    passes: dict[int, int] = field(default_factory=dict)
    spent: float = 0.0
    budget: float = BUDGET
    failed_at: float | None = None

    def wanted(self) -> int | None:
        """The next number of rows to measure; None when the knee is known."""
        if not self.seconds:
            return 1 if self.limit else None
        if self.spent >= self.budget:
            return None
        tried = [rows for rows in sorted(self.seconds) if rows <= self.limit] or [1]
        beyond = sum(rows > self.cap for rows in tried)
        if tried[-1] * 2 <= self.limit and beyond < PATIENCE:
            return tried[-1] * 2
        seldom = min(tried, key=lambda rows: self.passes.get(rows, PASSES))
        return seldom if self.passes.get(seldom, PASSES) < PASSES else None

    def measured(self, rows: int, seconds: float) -> None:
        """A forward of so many rows took so long."""
        self.seconds[rows] = min(seconds, self.seconds.get(rows, seconds))
        self.passes[rows] = self.passes.get(rows, 0) + 1

    def failed(self, rows: int) -> None:
        """So many rows were too many, for now at least."""
        self.limit = min(self.limit, rows // 2)
        self.failed_at = time.monotonic()

    def forgive(self, limit: int) -> None:
        """Let it be tried again with up to `limit` rows."""
        self.limit, self.failed_at = limit, None

    @property
    def cap(self) -> int:
        """Rows of a forward at most, as far as is known."""
        tried = [rows for rows in sorted(self.seconds) if rows <= self.limit]
        for rows in tried:
            if all(self._rate(more) < GAIN * self._rate(rows) for more in tried if more > rows):
                return rows
        return 1

    def _rate(self, rows: int) -> float:
        return rows / max(self.seconds[rows], 1e-9)


class CurveFile:
    """Curves that were measured before, under keys that say of what. Without a `path` nothing is remembered."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def find(self, key: str, limit: int) -> Curve | None:
        """The curve under `key`, if it was measured as far as `limit` allows."""
        entry = self._read().get(key)
        try:
            if entry is None or int(entry["limit"]) < limit:
                return None
            seconds = {int(rows): float(each) for rows, each in entry["seconds"].items() if int(rows) <= limit}
            spent = float(entry["spent"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return Curve(limit, seconds, dict.fromkeys(seconds, PASSES), spent) if seconds else None

    def keep(self, key: str, curve: Curve) -> None:
        """Remember a curve. A disk that refuses is logged and no more: it will be measured again."""
        if self._path is None:
            return
        entries = self._read()
        entries.pop(key, None)
        entries[key] = {"limit": curve.limit, "seconds": curve.seconds, "spent": curve.spent}
        while len(entries) > REMEMBERED:
            del entries[next(iter(entries))]
        aside = self._path.with_suffix(".part")
        try:
            aside.write_text(json.dumps(entries), encoding="utf-8")
            os.replace(aside, self._path)
        except OSError as error:
            log.warning("what was measured cannot be remembered: %s", error.strerror)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
