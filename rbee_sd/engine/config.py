"""What the front tells an engine when it starts it. Made in the front, read in the engine; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


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
