"""The training loop: it learns, it can be interrupted anywhere, and what it goes on to is what it would have been."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rbee_sd.engine.training import trainer
from rbee_sd.engine.training.trainer import CheckpointError, Place, Schedule, train

SCHEDULE = Schedule(steps=40, batch=8, learning_rate=0.3, warm_up=2, decay=0.9)


class StopError(Exception):
    """Somebody pulled the plug."""


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_STEPS", 10)


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    # The engine switches them off for its thread once and for all, and here that is the tests' own.
    with torch.enable_grad():
        yield


def line() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(2, 1)


def folder(parent: Path, name: str) -> Path:
    """A new folder."""
    made = parent / name
    made.mkdir()
    return made


def learn(module: torch.nn.Linear, folder: Path, *, seed: int = 0, stop_at: int | None = None) -> list[float]:
    """Teach it 3 a - b + 2, from noisy examples; the losses on the way."""
    losses: list[float] = []

    def loss_of(_: float, chance: random.Random) -> torch.Tensor:
        if stop_at is not None and len(losses) == stop_at:
            raise StopError
        examples = torch.randn(SCHEDULE.batch, 2)
        wanted = 3 * examples[:, :1] - examples[:, 1:] + 2 + chance.gauss(0, 0.01)
        loss: torch.Tensor = (module(examples) - wanted).square().mean()
        losses.append(loss.item())
        return loss

    train("line", module, loss_of, SCHEDULE, Place(folder, torch.device("cpu"), seed))
    return losses


def test_it_learns(tmp_path: Path) -> None:
    losses = learn(line(), tmp_path)
    assert len(losses) == SCHEDULE.steps
    assert sum(losses[-5:]) < sum(losses[:5]) / 4


@pytest.mark.parametrize("stop_at", [5, 10, 25, 39])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path: Path, stop_at: int) -> None:
    whole, resumed = line(), line()
    learn(whole, folder(tmp_path, "whole"), seed=3)
    broken = folder(tmp_path, "broken")
    with pytest.raises(StopError):
        learn(line(), broken, seed=3, stop_at=stop_at)
    losses = learn(resumed, broken, seed=3)
    assert len(losses) == SCHEDULE.steps - stop_at // 10 * 10
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    first, again = line(), line()
    learn(first, tmp_path)
    assert learn(again, tmp_path) == []
    assert torch.equal(first.weight, again.weight)


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    first, other = line(), line()
    for number, module in enumerate((first, other)):
        learn(module, folder(tmp_path, str(number)), seed=number)
    assert not torch.equal(first.weight, other.weight)


def test_a_checkpoint_that_was_only_half_written_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "line.part").write_bytes(b"half a")
    assert len(learn(line(), tmp_path)) == SCHEDULE.steps


def test_a_checkpoint_that_does_not_fit_is_named_and_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "line.pt"
    for content in (b"garbage", b""):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"line\.pt is damaged or of another recipe"):
            learn(line(), tmp_path)
        assert file.read_bytes() == content


def test_the_weights_in_the_end_are_the_average_not_the_last(tmp_path: Path) -> None:
    module = line()
    learn(module, tmp_path)
    last = torch.load(tmp_path / "line.pt", weights_only=True)["module"]["weight"]
    assert not torch.equal(module.weight, last)


def test_a_part_of_a_schedule_has_at_least_one_step() -> None:
    assert SCHEDULE.part(0.5).steps == 20
    assert SCHEDULE.part(0.001).steps == 1
    assert SCHEDULE.part(0.5).learning_rate == SCHEDULE.learning_rate
