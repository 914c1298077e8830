"""The registry: creates, finds, cancels, ends and forgets jobs.

Owned by the front's IOLoop thread; nothing here blocks. It knows nothing of engines: whoever has to act when a
job ends (the dispatcher, the watcher) asks to be called.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rbee_sd.errors import RequestError
from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.images import ImageFiles
from rbee_sd.jobs.job import Job, Order, State
from rbee_sd.jobs.queue import JobQueue

log = logging.getLogger(__name__)

FEED_LENGTH = 4096
"""Events that `/v1/events` can replay to a page that comes back."""
REMEMBERED = 20_000
"""Ids of forgotten jobs that are still told apart (410) from those never known (404)."""


class JobRegistry:
    """All jobs that are known. `queue_size` bounds the waiting, `ttl` (seconds) and `history` the finished.

    `queue_bytes` bounds the input images of those that have not ended.
    """

    def __init__(self, images: ImageFiles, *, queue_size: int, queue_bytes: int, ttl: float, history: int) -> None:
        self.images = images
        self.queue = JobQueue(queue_size)
        # Numbered from the clock, so that an id of an earlier run of the worker is older than every event of this.
        self.feed = EventLog(first=int(time.time() * 1000), limit=FEED_LENGTH)
        self.draining = False
        self.input_bytes = 0
        self._queue_bytes = queue_bytes
        self._ttl = ttl
        self._history = history
        self._jobs: dict[str, Job] = {}
        # Apart, so that many small questions do not push the pictures out.
        self._finished: dict[bool, deque[Job]] = {True: deque(), False: deque()}
        self._forgotten: dict[str, None] = {}
        self._keys: dict[str, tuple[bytes, str]] = {}
        self._key_of: dict[str, str] = {}
        self._observers: list[Callable[[Job], None]] = []

    def on_finish(self, observer: Callable[[Job], None]) -> None:
        """Have `observer` called with each job right after its terminal event."""
        self._observers.append(observer)

    def repeated(self, key: str, digest: bytes) -> Job | None:
        """The job that an earlier request with this Idempotency-Key made; raises 409 if its body was another."""
        if key not in self._keys:
            return None
        known, job_id = self._keys[key]
        if known != digest:
            raise RequestError(
                409,
                "idempotency_conflict",
                "this Idempotency-Key was used with a different body; use a new key for a new request",
            )
        return self._jobs[job_id]

    def accept(self, order: Order, key: str | None = None, digest: bytes = b"") -> Job:
        """Make a job. Work for the engine waits in the queue. Raises 503 `draining` or `queue_full`."""
        if self.draining:
            raise RequestError(
                503,
                "draining",
                "the worker is shutting down; try again in a moment",
                headers={"Retry-After": "5"},
            )
        if order.work is not None and self.queue.full:
            raise RequestError(
                503,
                "queue_full",
                f"all {len(self.queue)} places in the queue are taken; try again in a moment",
                headers={"Retry-After": "5"},
            )
        if order.input_bytes and self.input_bytes + order.input_bytes > self._queue_bytes:
            raise RequestError(
                503,
                "queue_full",
                f"there is no room for so large images: jobs that have not ended may hold {self._queue_bytes} bytes "
                f"of them, and hold {self.input_bytes}; try again in a moment",
                headers={"Retry-After": "5"},
            )
        job = Job(order, self.feed)
        self.input_bytes += order.input_bytes
        self._jobs[job.id] = job
        if key is not None:
            self._keys[key] = (digest, job.id)
            self._key_of[job.id] = key
        position = self.queue.push(job) if order.work is not None else 0
        job.emit("queued", position=position, seed=order.seed)
        log.info("%s queued: %s, position %d", job.id, order.operation, position)
        return job

    def put_back(self, job: Job) -> None:
        """Let a job that left the queue for nothing wait again, in its old place."""
        job.put_back()
        position = self.queue.push(job)
        log.info("%s queued again, position %d", job.id, position)

    def get(self, job_id: str) -> Job:
        """Find a job. Raises 404 for one never known, 410 for one forgotten."""
        if job_id in self._jobs:
            return self._jobs[job_id]
        if job_id in self._forgotten:
            raise RequestError(410, "job_expired", "this job finished a while ago and was forgotten with its images")
        raise RequestError(404, "job_not_found", "there is no job with this id")

    def find(self, job_id: str) -> Job | None:
        """Like `get`, but None when there is none."""
        return self._jobs.get(job_id)

    def newest_first(self) -> Iterator[Job]:
        """All known jobs."""
        return reversed(self._jobs.values())

    def live(self) -> list[Job]:
        """The jobs that have not ended, oldest first."""
        return [job for job in self._jobs.values() if not job.state.terminal]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        counts = dict.fromkeys(map(str, State), 0)
        for job in self._jobs.values():
            counts[job.state] += 1
        return counts

    def view(self, job: Job) -> dict[str, Any]:
        """The job as clients see it."""
        if job.state is not State.QUEUED:
            return job.view(None)
        return job.view(0 if job.order.work is None else self.queue.position(job))

    def complete(self, job: Job, *, result: dict[str, Any] | None = None, flagged: tuple[int, ...] = ()) -> None:
        """End a job well, with a result or with the images that were saved for it. No effect on one that has ended."""
        if job.state.terminal:
            return
        seed = job.order.seed or 0
        job.images = [
            {"index": n, "url": f"/v1/jobs/{job.id}/images/{n}", "seed": seed + n, "flagged": n in flagged}
            for n in range(len(self.images.of(job.id)))
        ]
        job.result = result
        if result is None:
            body = {"format": "png", "seed": job.order.seed, "images": job.images, **job.settled}
        else:
            body = {"result": result}
        self._finish(job, State.COMPLETED, "complete", **body)

    def fail(self, job: Job, code: str, message: str) -> None:
        """End a job badly. No effect on one that has ended."""
        error = {"code": code, "message": message}
        if not job.state.terminal:
            job.error = error
        self._finish(job, State.FAILED, "error", **error)

    def cancel(self, job: Job, reason: str) -> None:
        """End a job because nobody wants it any more. `reason` is a short word. No effect on one that has ended."""
        self._finish(job, State.CANCELLED, "cancelled", reason=reason, step=job.step, total=job.total)

    def forget_old(self) -> None:
        """Forget finished jobs that are past their time, or too many. Called now and then."""
        latest = time.monotonic() - self._ttl
        for finished in self._finished.values():
            while finished and (len(finished) > self._history or (finished[0].finished or 0.0) <= latest):
                self._forget(finished.popleft())

    def _finish(self, job: Job, state: State, name: str, **data: Any) -> None:
        waiting = job.state is State.QUEUED and job.order.work is not None
        input_bytes = job.order.input_bytes
        if not job.finish(state, name, **data):
            return
        # A running job is not in the queue, nor is one that never needed the engine.
        if waiting:
            self.queue.remove(job)
        self.input_bytes -= input_bytes
        log.info("%s %s after %d steps%s", job.id, state, job.step, f": {data}" if name != "complete" else "")
        self._finished[job.order.work is not None].append(job)
        for observer in self._observers:
            observer(job)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        self.images.remove(job.id)
        key = self._key_of.pop(job.id, None)
        if key is not None:
            del self._keys[key]
        self._forgotten[job.id] = None
        while len(self._forgotten) > REMEMBERED:
            del self._forgotten[next(iter(self._forgotten))]
        log.debug("%s forgotten", job.id)
