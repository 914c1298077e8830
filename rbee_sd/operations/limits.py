"""What this worker accepts: bounds from the settings, names from the model. Front process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rbee_sd.messages import Ready
from rbee_sd.settings import Settings

MIN_SIDE = 64
MULTIPLE = 8
MAX_PROMPT = 10_000
"""Characters."""
MAX_SEED = 2**63 - 1
MAX_GUIDANCE_SCALE = 50.0
MAX_PRIORITY = 100
MAX_TIMEOUT = 86_400.0
FALLBACK_SIDE = 512
FALLBACK_STEPS = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Passed to every validation. `loaded` tells what the model wants, once it is loaded."""

    settings: Settings
    models: tuple[str, ...]
    loaded: Callable[[], Ready | None]

    def default_work(self) -> tuple[int, int, int]:
        """Width, height and steps of a request that leaves them open: the model's, or a guess until it is loaded."""
        ready = self.loaded()
        if ready is None:
            return FALLBACK_SIDE, FALLBACK_SIDE, FALLBACK_STEPS
        return ready.width, ready.height, ready.steps
