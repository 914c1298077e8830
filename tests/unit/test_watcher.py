"""`jobs.watcher`: who still listens, and what happens when nobody does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.watcher import Watcher
from tests.conftest import eventually
from tests.unit.conftest import bodies, names, order, seeded

GRACE = 0.05


@pytest.fixture
def watcher(registry: JobRegistry) -> Watcher:
    """A watcher with a short grace period."""
    return Watcher(registry, GRACE)


async def grace_passes(registry: JobRegistry, watcher: Watcher) -> None:
    """Wait until the grace period of everybody who left before this call is over: a witness has left since."""
    witness = registry.accept(order("witness"))
    watcher.joined(witness)
    watcher.left(witness)
    await eventually(lambda: witness.state is State.CANCELLED)


def start(registry: JobRegistry, **changes: Any) -> Job:
    """A running job."""
    job = registry.accept(order(**changes))
    registry.queue.remove(job)
    job.dispatch()
    return job


async def test_a_job_nobody_listens_to_any_more_is_cancelled(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    watcher.left(job)
    assert job.state is State.RUNNING
    await eventually(lambda: job.state is State.CANCELLED)
    assert bodies(job, "cancelled")[0]["reason"] == "disconnected"


async def test_a_job_is_not_cancelled_before_its_grace_is_over(registry: JobRegistry) -> None:
    patient, hasty = Watcher(registry, 0.3), Watcher(registry, 0.0)
    job, other = start(registry), start(registry)
    left_at = asyncio.get_running_loop().time()
    patient.joined(job)
    patient.left(job)
    hasty.joined(other)
    hasty.left(other)
    await eventually(lambda: other.state is State.CANCELLED)
    assert job.state is State.RUNNING
    await eventually(lambda: job.state is State.CANCELLED)
    assert asyncio.get_running_loop().time() - left_at >= 0.29


async def test_last_listener_returning_within_grace_keeps_job(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    watcher.left(job)
    watcher.joined(job)
    await grace_passes(registry, watcher)
    assert job.state is State.RUNNING
    watcher.left(job)
    await eventually(lambda: job.state is State.CANCELLED)


async def test_one_of_two_listeners_leaving_keeps_job(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    watcher.joined(job)
    watcher.left(job)
    assert watcher.listeners(job.id) == 1
    await grace_passes(registry, watcher)
    assert job.state is State.RUNNING


async def test_a_job_nobody_ever_listened_to_is_left_alone(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    await grace_passes(registry, watcher)
    assert job.state is State.RUNNING
    assert watcher.listeners(job.id) == 0


async def test_a_job_that_asked_to_finish_is_left_alone(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry, on_disconnect="finish")
    watcher.joined(job)
    watcher.left(job)
    await grace_passes(registry, watcher)
    assert job.state is State.RUNNING


async def test_the_listener_of_a_waiting_job_leaving_takes_only_that_job(
    registry: JobRegistry, watcher: Watcher
) -> None:
    running, waiting, behind = start(registry), registry.accept(order()), registry.accept(order())
    for job in (running, waiting, behind):
        watcher.joined(job)
    watcher.left(waiting)
    await eventually(lambda: waiting.state is State.CANCELLED)
    assert list(registry.queue) == [behind]
    assert running.state is State.RUNNING
    assert watcher.total == 2


async def test_a_job_that_ends_within_grace_keeps_its_own_ending(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    watcher.left(job)
    registry.complete(job)
    await grace_passes(registry, watcher)
    assert names(job) == ["queued", "complete"]


async def test_listeners_of_a_job_that_has_ended_come_and_go(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    registry.complete(job)
    watcher.joined(job)
    assert watcher.listeners(job.id) == 2
    watcher.left(job)
    watcher.left(job)
    assert watcher.total == 0
    await grace_passes(registry, watcher)
    assert job.state is State.COMPLETED


async def test_each_leaving_starts_a_new_grace_period(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    for _ in range(5):
        watcher.joined(job)
        watcher.left(job)
    watcher.joined(job)
    await grace_passes(registry, watcher)
    assert job.state is State.RUNNING


async def test_listeners_are_counted_for_each_job_and_in_all(registry: JobRegistry, watcher: Watcher) -> None:
    first, second = start(registry), start(registry)
    for job in (first, first, second):
        watcher.joined(job)
    assert (watcher.listeners(first.id), watcher.listeners(second.id), watcher.total) == (2, 1, 3)
    for job in (first, first, second):
        watcher.left(job)
    assert watcher.total == 0


async def test_a_closed_watcher_cancels_nothing_that_was_left_before(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    watcher.left(job)
    watcher.close()
    watcher.close()
    await grace_passes(registry, Watcher(registry, 2 * GRACE))
    assert job.state is State.RUNNING


async def test_a_closed_watcher_cancels_nothing_that_is_left_after(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined(job)
    watcher.close()
    watcher.left(job)
    await grace_passes(registry, Watcher(registry, 2 * GRACE))
    assert job.state is State.RUNNING
    assert watcher.total == 0


async def test_any_coming_and_going_cancels_exactly_the_jobs_that_were_left(
    registry: JobRegistry, watcher: Watcher
) -> None:
    chance = seeded(1)
    jobs = [start(registry) for _ in range(50)]
    listeners = dict.fromkeys((job.id for job in jobs), 0)
    heard: set[str] = set()
    for _ in range(2000):
        job = chance.choice(jobs)
        if listeners[job.id] and chance.random() < 0.55:
            listeners[job.id] -= 1
            watcher.left(job)
        else:
            listeners[job.id] += 1
            heard.add(job.id)
            watcher.joined(job)
    assert watcher.total == sum(listeners.values())
    await grace_passes(registry, watcher)
    for job in jobs:
        left = job.id in heard and listeners[job.id] == 0
        assert job.state is (State.CANCELLED if left else State.RUNNING)


class Told:
    """Writes down what the watcher tells."""

    def __init__(self, watcher: Watcher) -> None:
        self.log: list[tuple[Job, bool]] = []
        watcher.on_watch(lambda job, watched: self.log.append((job, watched)))

    def news(self) -> list[tuple[Job, bool]]:
        """What was told since the last look."""
        news, self.log = self.log, []
        return news


async def test_the_first_to_come_and_the_last_to_go_are_told(registry: JobRegistry, watcher: Watcher) -> None:
    job, told = start(registry), Told(watcher)
    assert not watcher.watched(job.id)
    watcher.joined(job)
    assert told.news() == [(job, True)]
    watcher.joined(job)
    watcher.left(job)
    assert told.news() == []
    assert watcher.watched(job.id)
    watcher.left(job)
    assert told.news() == [(job, False)]
    assert not watcher.watched(job.id)
    watcher.close()


async def test_who_listens_to_everything_watches_every_job(registry: JobRegistry, watcher: Watcher) -> None:
    first, second, told = start(registry), start(registry), Told(watcher)
    watcher.joined(first)
    told.news()
    watcher.joined_all()
    watcher.joined_all()
    # The first was watched before.
    assert told.news() == [(second, True)]
    watcher.left(first)
    watcher.joined(second)
    assert told.news() == []
    assert watcher.watched(first.id)
    watcher.left_all()
    assert told.news() == []
    watcher.left_all()
    assert told.news() == [(first, False)]
    assert [watcher.watched(job.id) for job in (first, second)] == [False, True]
    watcher.close()


async def test_a_job_that_comes_while_somebody_listens_to_everything_is_watched(
    registry: JobRegistry, watcher: Watcher
) -> None:
    watcher.joined_all()
    job = start(registry)
    assert watcher.watched(job.id)
    assert watcher.listeners(job.id) == watcher.total == 0


async def test_listening_to_everything_keeps_no_job_alive(registry: JobRegistry, watcher: Watcher) -> None:
    job = start(registry)
    watcher.joined_all()
    watcher.joined(job)
    watcher.left(job)
    await eventually(lambda: job.state is State.CANCELLED)


async def test_any_coming_and_going_is_told_as_it_is(registry: JobRegistry, watcher: Watcher) -> None:
    chance = seeded(4)
    jobs = [start(registry, on_disconnect="finish") for _ in range(5)]
    believed = dict.fromkeys(jobs, False)
    watcher.on_watch(lambda job, watched: believed.__setitem__(job, watched))
    listening: list[Job | None] = []
    for _ in range(1000):
        if listening and chance.random() < 0.55:
            gone = listening.pop(chance.randrange(len(listening)))
            watcher.left_all() if gone is None else watcher.left(gone)
        else:
            listening.append(come := chance.choice([*jobs, None]))
            watcher.joined_all() if come is None else watcher.joined(come)
        for job in jobs:
            assert believed[job] == watcher.watched(job.id) == (None in listening or job in listening)
