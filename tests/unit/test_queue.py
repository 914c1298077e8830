"""`jobs.queue`: who is next, who is ahead, and when it is full."""

from __future__ import annotations

import pytest

from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.job import Job
from rbee_sd.jobs.queue import JobQueue
from tests.unit.conftest import order, seeded, take


def job(priority: int = 0, owner: str = "") -> Job:
    """A waiting job."""
    return Job(order(priority=priority, owner=owner), EventLog())


def owners(queue: JobQueue) -> str:
    """Whose turn it is, from first to last; their names are single letters."""
    return "".join(waiting.order.owner for waiting in queue)


def test_jobs_leave_in_the_order_they_came() -> None:
    queue, jobs = JobQueue(10), [job() for _ in range(5)]
    assert [queue.push(waiting) for waiting in jobs] == [0, 1, 2, 3, 4]
    assert [take(queue) for _ in jobs] == jobs
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
    take(queue)
    assert [queue.position(waiting) for waiting in jobs[1:]] == [0, 1]
    with pytest.raises(ValueError, match="does not wait"):
        queue.position(jobs[0])


def test_a_job_taken_out_of_turn_leaves_the_others_as_they_were() -> None:
    queue = JobQueue(10)
    jobs = [job() for _ in range(4)]
    for waiting in jobs:
        queue.push(waiting)
    queue.remove(jobs[2])
    assert list(queue) == [jobs[0], jobs[1], jobs[3]]
    with pytest.raises(ValueError, match="does not wait"):
        queue.remove(jobs[2])


def test_a_job_that_comes_back_takes_its_old_place() -> None:
    queue = JobQueue(10)
    jobs = [job() for _ in range(3)]
    for waiting in jobs:
        queue.push(waiting)
    first = take(queue)
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


def test_taking_from_an_empty_queue_is_a_mistake() -> None:
    queue = JobQueue(1)
    assert list(queue.foremost()) == []
    with pytest.raises(ValueError, match="does not wait"):
        queue.take(job())


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
                assert take(queue) is model.pop(0)
            else:
                gone = chance.choice(model)
                model.remove(gone)
                queue.remove(gone)
            assert list(queue) == model
            assert len(queue) == len(model)


def test_owners_take_turns_however_many_jobs_each_has() -> None:
    queue = JobQueue(100)
    for owner in "aaaaaabbbc":
        queue.push(job(owner=owner))
    assert owners(queue) == "abcababaaa"


def test_one_who_comes_late_waits_for_no_more_than_one_of_each_other() -> None:
    queue = JobQueue(100)
    for _ in range(20):
        queue.push(job(owner="a"))
    for _ in range(5):
        take(queue)
    assert queue.push(late := job(owner="b")) == 1
    take(queue)
    assert take(queue) is late


def test_one_who_comes_again_and_again_does_not_keep_another_waiting() -> None:
    queue = JobQueue(100)
    for _ in range(3):
        queue.push(job(owner="a"))
    served = ""
    for _ in range(6):
        # Never more than one waiting, and always one.
        if "b" not in owners(queue):
            queue.push(job(owner="b"))
        served += take(queue).order.owner
    assert served == "ababab"


def test_nobody_saves_up_turns_while_away() -> None:
    queue = JobQueue(100)
    queue.push(job(owner="b"))
    take(queue)
    for _ in range(50):
        queue.push(job(owner="a"))
        take(queue)
    for owner in "aabb":
        queue.push(job(owner=owner))
    assert owners(queue) == "abab"


def test_jobs_that_were_cancelled_cost_their_owner_no_turn() -> None:
    queue = JobQueue(100)
    many = [job(owner="a") for _ in range(20)]
    for waiting in many:
        queue.push(waiting)
    for waiting in many[1:]:
        queue.remove(waiting)
    for owner in "bba":
        queue.push(job(owner=owner))
    assert owners(queue) == "abba"


def test_turns_are_taken_within_a_priority_and_one_is_no_debt_in_another() -> None:
    queue = JobQueue(100)
    for _ in range(3):
        queue.push(job(1, "a"))
    for owner in "aab":
        queue.push(job(0, owner))
    queue.push(job(1, "b"))
    assert owners(queue) == "abaaaba"
    for _ in range(4):
        assert take(queue).order.priority == 1
    # High turns have moved only their own clock.
    queue.push(job(0, "c"))
    assert owners(queue) == "abca"


def test_a_job_that_comes_back_keeps_its_turn_between_others() -> None:
    queue = JobQueue(100)
    jobs = [job(owner=owner) for owner in "aabb"]
    for waiting in jobs:
        queue.push(waiting)
    gone = [take(queue) for _ in range(3)]
    assert gone == [jobs[0], jobs[2], jobs[1]]
    for back in (gone[2], gone[0], gone[1]):
        queue.push(back)
    queue.push(job(owner="c"))
    assert list(queue)[:4] == [jobs[0], jobs[2], jobs[1], jobs[3]]
    assert owners(queue) == "ababc"


def test_owners_of_whom_nothing_waits_leave_no_trace() -> None:
    queue = JobQueue(10)
    for number in range(1000):
        queue.push(waiting := job(owner=f"client {number}"))
        queue.remove(waiting) if number % 2 else take(queue)
    assert queue._tags == {}
    assert len(queue._reached) == 1


def test_random_owners_each_get_their_jobs_in_order_and_none_gets_two_turns_ahead() -> None:
    chance = seeded(3)
    for _ in range(50):
        queue = JobQueue(1000)
        jobs = [job(owner=chance.choice("aaaabc")) for _ in range(40)]
        for waiting in jobs:
            queue.push(waiting)
            assert next(queue.foremost()) is next(iter(queue))
        served = [take(queue) for _ in jobs]
        for owner in "abc":
            own = [waiting for waiting in jobs if waiting.order.owner == owner]
            assert [waiting for waiting in served if waiting.order.owner == owner] == own
        left = {owner: sum(waiting.order.owner == owner for waiting in jobs) for owner in "abc"}
        had = dict.fromkeys("abc", 0)
        for waiting in served:
            owner = waiting.order.owner
            assert all(had[owner] <= had[other] for other in "abc" if left[other])
            had[owner] += 1
            left[owner] -= 1
