"""What the front tells an engine when it starts it. Made in the front, read in the engine; imports nothing heavy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEMO = Path(__file__).parent / "demo"
"""The embedded model."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""Owner and name of a model on the hub; no path begins like this unless it exists."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine, most under the names that they have in `settings`.

    `name` is what clients call the model, `model` where it is; others are loaded on demand. `loras` are names and
    files. `curves` is the file that remembers how many rows pay. `compiler` is torch.compile's backend; empty: nothing
    is compiled.
    """

    name: str
    model: str
    model_config: str = ""
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    channels_last: bool = True
    attention: str = "sdpa"
    compiler: str = ""
    vae_tiling: float = 2.25
    taesd: str = ""
    loras: tuple[tuple[str, str], ...] = ()
    max_models: int = 0
    max_jobs: int = 8
    max_side: int = 8192
    max_rows: int = 0
    measured_rows: int = 32
    prompt_cache: int = 64
    curves: str = ""
    log_level: str = "info"
    log_format: str = "text"
    fake_pipeline: str = ""


def model_name(model: str) -> str:
    """What clients call the model of this setting: the hub id, or a folder's or file's own name, never its path."""
    # os.path, because pathlib raises for a home that nobody has and for a name that is too long.
    path = Path(os.path.expanduser(model))
    if os.path.isfile(path):
        return path.stem
    if os.path.isdir(path) and model != "demo":
        return path.resolve().name
    return model if HUB_ID.fullmatch(model) else path.name
