"""The watcher: counts who listens to each job and to all, and cancels the job nobody listens to any more.

Owned by the front's IOLoop thread; nothing here blocks. A job that nobody ever listened to is left alone, and so
is one that asked for `on_disconnect: finish`. Who listens to all jobs watches each, but keeps alive only those
that are named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rbee_sd.jobs.job import Job
from rbee_sd.jobs.registry import JobRegistry

log = logging.getLogger(__name__)


class Watcher:
    """Counts listeners. `grace` is how many seconds a job waits for one to come back."""

    def __init__(self, registry: JobRegistry, grace: float) -> None:
        self._registry = registry
        self._grace = grace
        self._listeners: dict[str, int] = {}
        self._everywhere = 0
        self._observers: list[Callable[[Job, bool], None]] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closed = False
        registry.on_finish(self._finished)

    def on_watch(self, observer: Callable[[Job, bool], None]) -> None:
        """Have `observer` called with a job and whether it is watched, when the first comes and when the last goes."""
        self._observers.append(observer)

    def watched(self, job_id: str) -> bool:
        """Whether anybody would see what happens to a job now."""
        return self._everywhere > 0 or job_id in self._listeners

    def listeners(self, job_id: str) -> int:
        """How many listen to a job now."""
        return self._listeners.get(job_id, 0)

    @property
    def total(self) -> int:
        """How many listen to single jobs now."""
        return sum(self._listeners.values())

    def joined(self, job: Job) -> None:
        """One more listens."""
        watched = self.watched(job.id)
        self._listeners[job.id] = self.listeners(job.id) + 1
        self._stop_timer(job.id)
        if not watched:
            self._tell(job, True)

    def left(self, job: Job) -> None:
        """One has gone. The last one starts the grace period."""
        count = self.listeners(job.id) - 1
        if count > 0:
            self._listeners[job.id] = count
            return
        self._listeners.pop(job.id, None)
        if not self._everywhere:
            self._tell(job, False)
        self.expect(job, self._grace)

    def expect(self, job: Job, seconds: float) -> None:
        """Give a job that nobody listens to this long until it is cancelled."""
        if self._closed or job.state.terminal or job.order.on_disconnect == "finish":
            return
        log.info("%s has no listener left; cancelled in %g s unless one returns", job.id, seconds)
        loop = asyncio.get_running_loop()
        self._timers[job.id] = loop.call_later(seconds, self._abandoned, job)

    def joined_all(self) -> None:
        """One more listens to all jobs."""
        self._everywhere += 1
        if self._everywhere == 1:
            self._tell_unheard(True)

    def left_all(self) -> None:
        """One who listened to all jobs has gone."""
        self._everywhere -= 1
        if self._everywhere == 0:
            self._tell_unheard(False)

    def close(self) -> None:
        """Cancel nothing from now on: the worker is leaving, not the listeners. Idempotent."""
        self._closed = True
        for job_id in tuple(self._timers):
            self._stop_timer(job_id)

    def _abandoned(self, job: Job) -> None:
        self._timers.pop(job.id, None)
        self._registry.cancel(job, "disconnected")

    def _finished(self, job: Job) -> None:
        self._stop_timer(job.id)

    def _tell(self, job: Job, watched: bool) -> None:
        for observer in self._observers:
            observer(job, watched)

    def _tell_unheard(self, watched: bool) -> None:
        for job in self._registry.live():
            if job.id not in self._listeners:
                self._tell(job, watched)

    def _stop_timer(self, job_id: str) -> None:
        timer = self._timers.pop(job_id, None)
        if timer is not None:
            timer.cancel()
