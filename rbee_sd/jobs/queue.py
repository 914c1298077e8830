"""The waiting queue: bounded, by priority, and fair between those who ask.

Owned by the front's IOLoop thread. It lives in the front so that cancelling a waiting job never touches the GPU
and a crash of the engine loses nothing.

Fairness is start-time fair queueing, within each priority: a job's tag is one above that of its owner's last
waiting job, or above the highest that has left, whichever is more; the lowest tag is next. So an owner who alone
has jobs waiting gets them done in order, and one who sends a hundred delays another's first by one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from rbee_sd.jobs.job import Job


class JobQueue:
    """Waiting jobs in the order they will run: higher priority first, then owners in turn, then older first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: list[Job] = []
        # Tags of what waits, for each priority and owner that has something waiting: nothing is kept of the others.
        self._tags: dict[tuple[int, str], list[int]] = {}
        self._reached: dict[int, int] = {}
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def waiting(self, owner: str) -> int:
        """How many jobs of an owner wait."""
        return sum(len(tags) for (_, known), tags in self._tags.items() if known == owner)

    def push(self, job: Job) -> int:
        """Let a job wait, again perhaps, and then in its old place; returns how many are ahead of it."""
        tags = self._tags.setdefault(_lane(job), [])
        if job.turn is None:
            self._pushed += 1
            job.turn = max(self._reached.get(job.order.priority, 0), tags[-1] if tags else 0) + 1, self._pushed
        insort(tags, job.turn[0])
        insort(self._jobs, job, key=_place)
        return self.position(job)

    def foremost(self) -> Iterator[Job]:
        """The first job of each owner in each priority, in the order in which their turns come."""
        seen: set[tuple[int, str]] = set()
        for job in self._jobs:
            if _lane(job) not in seen:
                seen.add(_lane(job))
                yield job

    def take(self, job: Job) -> None:
        """Take a job that goes to work. Raises `ValueError` when it does not wait."""
        del self._jobs[self.position(job)]
        tag = self._untag(job)
        priority = job.order.priority
        # One that waited again is behind what has left since.
        self._reached[priority] = max(tag, self._reached.get(priority, 0))

    def remove(self, job: Job) -> None:
        """Take a job out of turn. Raises `ValueError` when it does not wait."""
        del self._jobs[self.position(job)]
        self._untag(job)

    def position(self, job: Job) -> int:
        """How many jobs are ahead. Raises `ValueError` when it does not wait."""
        place = bisect_left(self._jobs, _place(job), key=_place)
        if place == len(self._jobs) or self._jobs[place] is not job:
            raise ValueError(f"{job.id} does not wait")
        return place

    def _untag(self, job: Job) -> int:
        lane, (_, tag, _) = _lane(job), _place(job)
        tags = self._tags[lane]
        del tags[bisect_left(tags, tag)]
        if not tags:
            del self._tags[lane]
        return tag


def _lane(job: Job) -> tuple[int, str]:
    return job.order.priority, job.order.owner


def _place(job: Job) -> tuple[int, int, int]:
    tag, pushed = job.turn or (0, 0)
    return -job.order.priority, tag, pushed
