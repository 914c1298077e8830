"""One stage of a training: optimiser, schedule, averaged weights, checkpoints, a progress bar.

All that is random in a step comes from the step's own number, so a training that was interrupted and goes on ends with
the weights of one that was not (on the same machine with the same number of threads).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from tqdm import tqdm

CHECKPOINT_STEPS = 250
LARGEST_GRADIENT = 1.0


class CheckpointError(Exception):
    """A training cannot go on from what it finds; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. `decay` is of the average over steps that is kept in the end.

    `half` computes in bfloat16, where the device has instructions for it.
    """

    steps: int
    batch: int
    learning_rate: float
    warm_up: int
    decay: float
    half: bool = False

    def part(self, fraction: float) -> Schedule:
        """The same in fewer or more steps."""
        return replace(self, steps=max(1, round(self.steps * fraction)))


Loss = Callable[[float, random.Random], torch.Tensor]
"""The loss of one step's batch, which is drawn with what is given and with torch's own generator.

It is told how much of the training is behind it, 0 to 1.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training runs, where it keeps its checkpoints, and what its random numbers come from."""

    folder: Path
    device: torch.device
    seed: int = 0


def train(name: str, module: torch.nn.Module, loss_of: Loss, schedule: Schedule, place: Place) -> None:
    """Train `module` in place, going on from the stage's checkpoint if there is one. Ends with averaged weights.

    Raises `CheckpointError`.
    """
    module.to(place.device)
    parameters = [each for each in module.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=1e-4)
    pace = get_cosine_schedule_with_warmup(optimizer, schedule.warm_up, schedule.steps)
    average = EMAModel(parameters, decay=schedule.decay, use_ema_warmup=True, power=3 / 4)
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "pace": pace, "average": average}
    half = schedule.half and (place.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported())
    path = place.folder / f"{name}.pt"
    begun = _load(path, parts)
    # The optimiser sees to its own tensors when they are loaded, this does not.
    average.to(place.device)
    module.train()
    smooth = None
    with tqdm(range(begun, schedule.steps), name, initial=begun, total=schedule.steps, unit="step") as bar:
        for step in bar:
            torch.manual_seed(place.seed * 1_000_003 + step)
            with torch.autocast(place.device.type, torch.bfloat16, enabled=half):
                loss = loss_of(step / schedule.steps, random.Random(f"{name} {place.seed} {step}"))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimizer.step()
            pace.step()
            optimizer.zero_grad()
            average.step(parameters)
            value = loss.item()
            smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
            bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == schedule.steps:
                keep(path, {"step": step + 1} | {name: part.state_dict() for name, part in parts.items()})
    average.copy_to(parameters)
    module.eval()


def keep(path: Path, content: Any) -> None:
    """Write what `torch.load` reads, whole or not at all."""
    aside = path.with_suffix(".part")
    torch.save(content, aside)
    aside.replace(path)


def _load(path: Path, parts: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(found[name])
        return int(found["step"])
    except Exception as error:
        # As many kinds of them as there are parts.
        kind = type(error).__name__
        raise CheckpointError(f"the checkpoint {path} is damaged or of another recipe ({kind}); remove it") from error
