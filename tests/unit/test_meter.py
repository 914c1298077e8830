"""`engine.meter`: what counts as the model's time, by a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from rbee_sd.engine import meter
from rbee_sd.engine.meter import Meter
from rbee_sd.messages import Message, Narration, Pulse


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def passes(self, seconds: float) -> None:
        """So much time passes."""
        self.now += seconds


class Counts:
    """In the place of the loaded models."""

    forwards = rows = memory = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The meter's clock."""
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def spent(measured: Meter, counts: Any, said: list[Message]) -> tuple[float, float]:
    """Seconds of work, and seconds with jobs, as the meter tells them."""
    counts.forwards += 1
    measured.rest()
    (*_, last) = said
    assert isinstance(last, Pulse)
    return last.worked, last.elapsed


def test_time_is_the_models_only_where_it_works(clock: Clock) -> None:
    said: list[Message] = []
    counts: Any = Counts()
    measured = Meter(counts, said.append)
    clock.passes(50)
    measured.begin()
    clock.passes(1)
    with measured.working:
        clock.passes(2)
    clock.passes(4)
    with measured.working:
        clock.passes(8)
    assert spent(measured, counts, said) == (10, 15)


def test_what_is_done_aside_in_the_midst_of_work_is_not_the_models(clock: Clock) -> None:
    said: list[Message] = []
    counts: Any = Counts()
    measured = Meter(counts, said.append)
    measured.begin()
    with measured.working:
        clock.passes(1)
        with measured.aside:
            clock.passes(2)
            with measured.aside:
                clock.passes(4)
            clock.passes(8)
        clock.passes(16)
    assert spent(measured, counts, said) == (17, 31)


def test_a_front_that_is_slow_to_take_a_message_does_not_make_the_model_look_busy(clock: Clock) -> None:
    said: list[Message] = []
    counts: Any = Counts()

    def slowly(message: Message) -> None:
        clock.passes(3)
        said.append(message)

    measured = Meter(counts, slowly)
    measured.begin()
    with measured.working:
        clock.passes(1)
        measured.emit(Narration("something"))
        clock.passes(1)
    assert spent(measured, counts, said) == (2, 5)


def test_work_that_fails_ends_as_well(clock: Clock) -> None:
    said: list[Message] = []
    counts: Any = Counts()
    measured = Meter(counts, said.append)

    def work() -> None:
        with measured.working:
            clock.passes(1)
            with measured.aside:
                clock.passes(2)
                raise ValueError("of the model")

    measured.begin()
    with pytest.raises(ValueError, match="of the model"):
        work()
    clock.passes(4)
    assert spent(measured, counts, said) == (1, 7)
