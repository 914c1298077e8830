"""`http.retries`: a request that is sent again finds its job, and no other request does."""

from __future__ import annotations

from rbee_sd.http.retries import KEPT, MOST, Retries
from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.job import Job, State
from tests.unit.conftest import order


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def job(call: str = "a call") -> Job:
    """A job of a request."""
    return Job(order(call=call), EventLog())


def test_a_job_that_was_left_is_found_once() -> None:
    retries = Retries(Clock())
    first, second = job(), job()
    retries.left(first)
    retries.left(second)
    assert [retries.returned("a call") for _ in range(3)] == [first, second, None]


def test_only_an_equal_request_finds_it() -> None:
    retries = Retries(Clock())
    retries.left(job("a call"))
    assert retries.returned("another call") is None
    assert retries.returned("a call") is not None


def test_a_job_that_came_to_nothing_is_not_worth_returning_to() -> None:
    retries = Retries(Clock())
    for state in State:
        left = job()
        left.state = state
        retries.left(left)
        found = retries.returned("a call")
        assert (found is left) == (state not in (State.FAILED, State.CANCELLED)), state


def test_who_comes_too_late_finds_nothing() -> None:
    clock = Clock()
    retries = Retries(clock)
    retries.left(job())
    clock.now = KEPT + 1
    assert retries.returned("a call") is None


def test_not_more_are_kept_than_there_is_room_for() -> None:
    retries = Retries(Clock())
    jobs = [job(str(number)) for number in range(MOST + 1)]
    for each in jobs:
        retries.left(each)
    assert retries.returned("0") is None
    assert retries.returned(str(MOST)) is jobs[-1]
