"""What the front tells an engine when it starts it. Made in the front, read in the engine; imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""Owner and name of a model on the hub; no path begins like this unless it exists."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine. `name` is what clients call the model, `model` where it is."""

    name: str
    model: str
    model_config: str = ""
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    log_level: str = "info"
    log_format: str = "text"
    fake_pipeline: str = ""
