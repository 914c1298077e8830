"""What this worker accepts: bounds from the settings, names from the model and the LoRA folder. Front process."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from rbee_sd.messages import MULTIPLE, OPERATIONS, SCHEDULERS, Ready
from rbee_sd.settings import Settings

MAX_PROMPT = 10_000
"""Characters."""
MAX_SEED = 2**63 - 1
MAX_PRIORITY = 100
MAX_TIMEOUT = 86_400.0
MAX_STRENGTH = 1.0
MAX_MASK_BLUR = 256.0
"""Pixels."""
MAX_LORAS = 8
"""LoRAs of one job."""
MAX_LORA_SCALE = 4.0
"""And as much below zero."""
MAX_INPUT_SIDE = 8192
FALLBACK_SIDE = 512
FALLBACK_STEPS = 20


def _unknown(_: str) -> None:
    """What is known of a model before it was ever loaded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Passed to every validation. `models` changes as models come and go.

    `loaded` tells what the model of jobs that name none wants and can do, once that is known, and `known` the same of
    any model.
    """

    settings: Settings
    models: Collection[str]
    loaded: Callable[[], Ready | None]
    loras: tuple[str, ...] = ()
    known: Callable[[str], Ready | None] = _unknown

    def of(self, model: object) -> Limits:
        """The limits of a request with this in its field `model`, which may be anything; None: it names none."""
        return replace(self, loaded=partial(self.known, model)) if isinstance(model, str) else self

    @property
    def operations(self) -> tuple[str, ...]:
        """What images may be made from: what the model does, or everything until that is known."""
        ready = self.loaded()
        return OPERATIONS if ready is None else ready.operations

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Those the model takes, or all until that is known."""
        ready = self.loaded()
        return SCHEDULERS if ready is None else ready.schedulers

    @property
    def multiple(self) -> int:
        """Of what the sides must be, as far as is known."""
        ready = self.loaded()
        return MULTIPLE if ready is None else ready.multiple

    def default_work(self) -> tuple[int, int, int]:
        """Width, height and steps of a request that leaves them open: the model's, or a guess until it is loaded."""
        ready = self.loaded()
        if ready is None:
            return FALLBACK_SIDE, FALLBACK_SIDE, FALLBACK_STEPS
        return ready.width, ready.height, ready.steps
