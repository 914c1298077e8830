"""Jobs whose client lost its connection before it was answered: sent again, the same request finds its job again.

Front process, IOLoop thread. Some clients send a request again when its connection breaks, and say that they do. They
know no id of a job to come back to, so a request is known by what is in it and by whom it is from: its `call`. Each job
is given away once; who sends an equal request anew, and does not say that it is a retry, gets a job of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rbee_sd.jobs.job import Job, State

KEPT = 60.0
"""Seconds; clients give up sooner."""
MOST = 1000
"""Jobs that are kept; the one left first goes first."""


class Retries:
    """`clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: deque[tuple[float, Job]] = deque(maxlen=MOST)

    def left(self, job: Job) -> None:
        """The client of a job has gone without an answer."""
        now = self._clock()
        while self._left and now - self._left[0][0] > KEPT:
            self._left.popleft()
        self._left.append((now, job))

    def returned(self, call: str) -> Job | None:
        """The job of an equal request whose client has gone, unless it has come to nothing since."""
        now = self._clock()
        for entry in self._left:
            then, job = entry
            lives = job.state in (State.QUEUED, State.RUNNING, State.COMPLETED)
            if job.order.call == call and lives and now - then <= KEPT:
                self._left.remove(entry)
                return job
        return None
