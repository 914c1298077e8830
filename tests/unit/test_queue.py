"""`jobs.queue`: who is next, who is ahead, and when it is full."""

from __future__ import annotations

import pytest

from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.job import Job
from rbee_sd.jobs.queue import JobQueue
from tests.unit.conftest import order, seeded


def job(priority: int = 0) -> Job:
    """A waiting job."""
    return Job(order(priority=priority), EventLog())


def test_jobs_leave_in_the_order_they_came() -> None:
    queue, jobs = JobQueue(10), [job() for _ in range(5)]
    assert [queue.push(waiting) for waiting in jobs] == [0, 1, 2, 3, 4]
    assert [queue.pop() for _ in jobs] == jobs
    assert len(queue) == 0


def test_a_higher_priority_goes_ahead_and_equals_stay_in_order() -> None:
    queue = JobQueue(10)
    low, first, second, high = job(-1), job(), job(), job(7)
    for waiting in (low, first, second, high):
        queue.push(waiting)
    assert list(queue) == [high, first, second, low]
    assert queue.push(late := job(7)) == 1
    assert list(queue) == [high, late, first, second, low]


def test_a_position_is_the_number_of_jobs_ahead() -> None:
    queue = JobQueue(10)
    jobs = [job(), job(), job()]
    for waiting in jobs:
        queue.push(waiting)
    queue.pop()
    assert [queue.position(waiting) for waiting in jobs[1:]] == [0, 1]
    with pytest.raises(ValueError, match="not in list"):
        queue.position(jobs[0])


def test_a_job_taken_out_of_turn_leaves_the_others_as_they_were() -> None:
    queue = JobQueue(10)
    jobs = [job() for _ in range(4)]
    for waiting in jobs:
        queue.push(waiting)
    queue.remove(jobs[2])
    assert list(queue) == [jobs[0], jobs[1], jobs[3]]
    with pytest.raises(ValueError, match="not in list"):
        queue.remove(jobs[2])


def test_a_job_that_comes_back_takes_its_old_place() -> None:
    queue = JobQueue(10)
    jobs = [job() for _ in range(3)]
    for waiting in jobs:
        queue.push(waiting)
    first = queue.pop()
    queue.push(late := job())
    assert queue.push(first) == 0
    assert list(queue) == [*jobs, late]


def test_jobs_of_equal_orders_are_told_apart() -> None:
    queue = JobQueue(10)
    same = order()
    first, second = Job(same, EventLog()), Job(same, EventLog())
    queue.push(first)
    queue.push(second)
    assert queue.position(second) == 1
    queue.remove(second)
    assert list(queue) == [first]


def test_it_is_full_at_its_size_and_not_before() -> None:
    queue = JobQueue(2)
    states = [queue.full]
    queue.push(job())
    states.append(queue.full)
    queue.push(job(5))
    states.append(queue.full)
    queue.pop()
    states.append(queue.full)
    assert states == [False, False, True, False]


def test_taking_from_an_empty_queue_is_a_mistake() -> None:
    with pytest.raises(IndexError):
        JobQueue(1).pop()


def test_random_pushes_pops_and_removals_agree_with_a_sorted_list() -> None:
    chance = seeded(1)
    for _ in range(50):
        queue, model = JobQueue(1000), list[Job]()
        for _ in range(60):
            action = chance.randrange(4)
            if action < 2 or not model:
                new = job(chance.randrange(-2, 3))
                model.append(new)
                # Python's sort keeps equals in their order, which is what "first in, first out" means.
                model.sort(key=lambda waiting: -waiting.order.priority)
                assert queue.push(new) == model.index(new)
            elif action == 2:
                assert queue.pop() is model.pop(0)
            else:
                gone = chance.choice(model)
                model.remove(gone)
                queue.remove(gone)
            assert list(queue) == model
            assert len(queue) == len(model)
