"""`engine.progress`: however many rounds a scheduler takes, a client hears of each step once."""

from __future__ import annotations

import pytest

from rbee_sd.engine.progress import StepCounter
from tests.unit.conftest import seeded


def told(steps: int, rounds: int) -> list[list[int]]:
    """What is told after each round."""
    counter = StepCounter(steps, rounds)
    return [list(counter.after(done)) for done in range(1, rounds + 1)]


def flat(lists: list[list[int]]) -> list[int]:
    """One list of all."""
    return [step for steps in lists for step in steps]


def test_every_step_is_told_exactly_once_and_in_order_for_any_number_of_rounds() -> None:
    for steps in range(1, 61):
        for rounds in range(1, 2 * steps + 5):
            assert flat(told(steps, rounds)) == list(range(1, steps + 1)), (steps, rounds)


def test_the_last_step_is_told_with_the_last_round_and_not_before() -> None:
    for steps in range(1, 61):
        for rounds in range(steps, 2 * steps + 5):
            *before, last = told(steps, rounds)
            assert last[-1:] == [steps]
            assert steps not in flat(before)


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50, 150, 1000])
def test_as_many_rounds_as_steps_is_one_step_a_round(steps: int) -> None:
    assert told(steps, steps) == [[step] for step in range(1, steps + 1)]


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50, 150, 1000])
def test_schedulers_of_second_order_never_tell_two_steps_at_once(steps: int) -> None:
    for rounds in (2 * steps - 1, steps + 1):
        assert all(len(entry) <= 1 for entry in told(steps, rounds))


def test_rounds_that_are_not_reported_lose_no_step() -> None:
    chance = seeded(1)
    for _ in range(500):
        steps, rounds = chance.randrange(1, 50), chance.randrange(1, 120)
        reported = sorted(chance.sample(range(1, rounds + 1), chance.randrange(1, rounds + 1)))
        counter = StepCounter(steps, rounds)
        heard = [step for done in (*reported, rounds) for step in counter.after(done)]
        assert heard == list(range(1, steps + 1))


def test_a_round_reported_twice_tells_nothing_new() -> None:
    counter = StepCounter(20, 39)
    assert list(counter.after(10)) == [1, 2, 3, 4, 5]
    assert list(counter.after(10)) == []
    assert list(counter.after(12)) == [6]
