"""The waiting queue: bounded, first in first out within a priority.

Owned by the front's IOLoop thread. It lives in the front so that cancelling a waiting job never touches the GPU
and a crash of the engine loses nothing.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from rbee_sd.jobs.job import Job


class JobQueue:
    """Waiting jobs in the order they will run: higher priority first, then older first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    @property
    def full(self) -> bool:
        """Whether one more job must be refused."""
        return len(self._jobs) >= self._size

    def push(self, job: Job) -> int:
        """Let a job wait, again perhaps; returns how many are ahead of it."""
        insort(self._jobs, job, key=lambda waiting: (-waiting.order.priority, waiting.created))
        return self.position(job)

    def pop(self) -> Job:
        """Take the job whose turn it is. Raises `IndexError` when none waits."""
        return self._jobs.pop(0)

    def remove(self, job: Job) -> None:
        """Take a job out of turn. Raises `ValueError` when it does not wait."""
        self._jobs.remove(job)

    def position(self, job: Job) -> int:
        """How many jobs are ahead. Raises `ValueError` when it does not wait."""
        return self._jobs.index(job)
