"""`worker.backoff`: how long to wait, and when to give up for a while."""

from __future__ import annotations

import pytest

from rbee_sd.worker.backoff import WINDOW, Backoff


def test_the_first_restart_is_at_once_and_each_later_one_waits_longer() -> None:
    backoff = Backoff()
    assert [backoff.died(1000.0 + n) for n in range(5)] == [0, 1, 1, 2, 3]
    assert not backoff.exhausted


def test_one_death_more_than_five_within_the_window_is_too_often() -> None:
    backoff = Backoff()
    for n in range(5):
        backoff.died(1000.0 + n)
    assert backoff.died(1010.0) == WINDOW
    assert backoff.exhausted
    assert backoff.died(1011.0) == WINDOW


def test_deaths_that_are_long_past_do_not_count() -> None:
    backoff = Backoff()
    for n in range(5):
        backoff.died(float(n))
    assert backoff.died(4 + WINDOW) == 0
    assert not backoff.exhausted


def test_an_engine_that_dies_now_and_then_is_started_again_for_ever() -> None:
    backoff = Backoff()
    for n in range(100):
        assert backoff.died(n * WINDOW / 4) <= 2
        assert not backoff.exhausted


def test_an_engine_that_keeps_dying_gets_another_try_once_the_window_has_passed() -> None:
    backoff, now = Backoff(), 0.0
    delays = []
    for _ in range(8):
        delays.append(backoff.died(now))
        now += delays[-1]
    assert delays[:6] == [0, 1, 1, 2, 3, WINDOW]
    assert delays[6] == 0


def test_an_engine_that_did_a_job_begins_with_a_clean_slate() -> None:
    backoff = Backoff()
    for n in range(20):
        assert backoff.died(float(n)) == 0
        backoff.worked()
    assert not backoff.exhausted


@pytest.mark.parametrize("start", [0.0, 1e9])
def test_the_clock_may_begin_anywhere(start: float) -> None:
    backoff = Backoff()
    assert [backoff.died(start) for _ in range(3)] == [0, 1, 1]
