"""The registry: creates, finds, cancels, ends and forgets jobs, and has the store keep them.

Owned by the front's IOLoop thread; nothing here blocks. It knows nothing of engines: whoever has to act when a
job is accepted or ends (the dispatcher, the watcher) asks to be called. In memory are the jobs that live and those
that ended last; the others are read from the store when somebody asks for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from rbee_sd.errors import RequestError
from rbee_sd.jobs.archive import RETRY_AFTER, Archive, unavailable
from rbee_sd.jobs.event_log import Event, EventLog
from rbee_sd.jobs.images import ImageFiles
from rbee_sd.jobs.job import Job, Order, State
from rbee_sd.jobs.queue import JobQueue
from rbee_sd.jobs.records import ended_record, record_of
from rbee_sd.jobs.store import Store, StoreError
from rbee_sd.jobs.tables import Record

log = logging.getLogger(__name__)

FEED_LENGTH = 4096
"""Events that `/v1/events` can replay to a page that comes back."""
RECENT = 256
"""Ended jobs that stay in memory."""


class JobRegistry:
    """All jobs that are known. `queue_size` bounds those that wait, `queue_bytes` the input images of those that live.

    It bounds as many again that are not for the engine. `share` bounds those of one owner (0: it does not); `ttl`
    (seconds), `history` and `size` (bytes of images) bound those that have ended.
    """

    def __init__(
        self,
        store: Store,
        images: ImageFiles,
        *,
        queue_size: int,
        queue_bytes: int,
        share: int,
        ttl: float,
        history: int,
        size: int,
    ) -> None:
        self.images = images
        self.queue = JobQueue(queue_size)
        # Numbered from the clock, so that an id of an earlier run of the worker is older than every event of this.
        self.feed = EventLog(first=int(time.time() * 1000), limit=FEED_LENGTH)
        self.draining = False
        self.input_bytes = 0
        self.image_bytes = 0
        self._store = store
        self._archive = Archive(store, images, self.feed)
        self._queue_bytes = queue_bytes
        self._share = share
        self._ttl = ttl
        self._history = history
        self._size = size
        self._jobs: dict[str, Job] = {}
        self._recent: deque[Job] = deque()
        self._arriving: dict[str, Job] = {}
        self._counts = dict.fromkeys(map(str, State), 0)
        self._ended_of = {False: 0, True: 0}
        self._keys: dict[str, tuple[bytes, Job]] = {}
        self._key_of: dict[str, str] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._unwritten: dict[str, Record] = {}
        self._acceptors: list[Callable[[Job], None]] = []
        self._observers: list[Callable[[Job], None]] = []
        self._tellers: list[Callable[[Job], None]] = []

    async def restore(self, left: list[str], attempts: int) -> None:
        """Take up the jobs of earlier runs: those that live wait again, in their order; those running come first.

        One that was tried `attempts` times has had its chance. `left` are the ids that images were found for.
        Raises `StoreError`.
        """
        totals = await self._store.totals()
        self._counts |= totals.states
        self._ended_of |= totals.ended
        self.image_bytes = totals.bytes
        live = await self._archive.live()
        for job in live:
            self._restored(job, attempts)
        alive = {job.id for job in live}
        await self._archive.sweep([job_id for job_id in left if job_id not in alive])

    def on_accept(self, observer: Callable[[Job], None]) -> None:
        """Have `observer` called with each job once it is on disk and waits."""
        self._acceptors.append(observer)

    def on_finish(self, observer: Callable[[Job], None]) -> None:
        """Have `observer` called with each job when it has come to its end, before that is told."""
        self._observers.append(observer)

    def on_told(self, observer: Callable[[Job], None]) -> None:
        """Have `observer` called with each job whose end is on disk, right before it is told."""
        self._tellers.append(observer)

    async def repeated(self, key: str, digest: bytes) -> Job | None:
        """The job that an earlier request with this Idempotency-Key made; raises 409 if its body was another."""
        known = self._keys.get(key)
        if known is None and (found := await self._archive.find_key(key)) is not None:
            known = found[0], await self.recall(found[1])
        # Meanwhile the same request may have come a second time.
        known = self._keys.get(key) or known
        if known is None:
            return None
        digest_then, job = known
        if digest_then != digest:
            raise RequestError(
                409,
                "idempotency_conflict",
                "this Idempotency-Key was used with a different body; use a new key for a new request",
            )
        return job

    def accept(self, order: Order, key: str | None = None, digest: bytes = b"") -> Job:
        """Make a job; it is known once `stored` returns. Raises 503 `draining`, `queue_full`, 429 `too_many_jobs`."""
        if self.draining:
            raise RequestError(
                503, "draining", "the worker is shutting down; try again in a moment", headers=RETRY_AFTER
            )
        all_waiting, waiting = self._waiting_like(order)
        if self._share and waiting >= self._share:
            raise RequestError(
                429,
                "too_many_jobs",
                f"{waiting} jobs of yours wait, as many as one client may have waiting; try again in a moment",
                headers=RETRY_AFTER,
            )
        if all_waiting >= self.queue.size:
            raise RequestError(
                503,
                "queue_full",
                f"all {self.queue.size} places in the queue are taken; try again in a moment",
                headers=RETRY_AFTER,
            )
        if order.input_bytes and self.input_bytes + order.input_bytes > self._queue_bytes:
            raise RequestError(
                503,
                "queue_full",
                f"there is no room for so large images: jobs that have not ended may hold {self._queue_bytes} bytes "
                f"of them, and hold {self.input_bytes}; try again in a moment",
                headers=RETRY_AFTER,
            )
        job = Job(order, self.feed)
        record = record_of(job, key, digest)
        self.input_bytes += order.input_bytes
        self._arriving[job.id] = job
        if key is not None:
            self._keys[key] = (digest, job)
            self._key_of[job.id] = key
        self._store.accept(record, partial(self._stored, job))
        return job

    async def stored(self, job: Job) -> None:
        """Wait until a job that was just accepted is on disk. Raises 503 `storage_unavailable`; it is gone then."""
        if job.id in self._arriving:
            await self._wait_for(job)
        if not job.number:
            raise unavailable()

    async def closed(self, job: Job) -> None:
        """Wait until the end of a job that has come to it is on disk and told."""
        if self._ending(job):
            await self._wait_for(job)

    async def settle(self) -> None:
        """Wait until all that has come to its end is on disk and told."""
        while pending := [*self._arriving.values(), *(job for job in self._jobs.values() if self._ending(job))]:
            await self._wait_for(pending[0])

    async def write_left(self) -> None:
        """Try once more to write the ends that could not be written."""
        if not self._unwritten:
            return
        for job_id, record in tuple(self._unwritten.items()):
            self._store.finish(record, partial(self._written, job_id))
        # Answered behind those: the store does one after another.
        with suppress(StoreError):
            await self._store.totals()

    def attempt(self, job: Job, then: Callable[[bool], None]) -> None:
        """A job that left the queue is to be tried. `then` is told whether that is on disk."""
        job.dispatch()
        self._moved("queued", "running")
        self._store.attempt(job.id, job.attempt, str(job.state), lambda _, error: then(error is None))

    def begin(self, job: Job) -> None:
        """A job that is not for the engine is begun. As often as need be: no attempt is noted."""
        job.dispatch()
        self._moved("queued", "running")

    def put_back(self, job: Job, *, tried: bool = True) -> None:
        """Let a running job wait again, in its old place. Not `tried`: it was not handed over, or not to its harm."""
        job.put_back()
        if not tried:
            job.attempt -= 1
        self._moved("running", "queued")
        self._store.attempt(job.id, job.attempt, str(job.state), _tell_log)
        position = self.queue.push(job)
        log.info("%s queued again, position %d", job.id, position)

    def suspend(self, job: Job) -> None:
        """Leave a live job to the next run of the worker: it waits there. Its streams end without a terminal event.

        Idempotent.
        """
        if job.log.closed:
            return
        if job.state is State.RUNNING and job.order.work is not None:
            self.put_back(job, tried=False)
        job.emit("narration", text="the worker shuts down; the job goes on when it is started again")
        job.log.close()

    async def recall(self, job_id: str) -> Job:
        """Find a job, on disk if need be. Raises 404 for one never known, 410 for one forgotten, 503."""
        if job_id in self._jobs:
            return self._jobs[job_id]
        found = await self._archive.find(job_id)
        # It may have been accepted meanwhile.
        return self._jobs.get(job_id, found)

    def find(self, job_id: str) -> Job | None:
        """A job that lives or ended lately; None for others."""
        return self._jobs.get(job_id)

    async def page(self, state: str, before: int | None, limit: int) -> list[Job]:
        """`limit` jobs, newest first: in `state` unless it is empty, made before the one with the number `before`."""
        page: list[Job] = []
        more = True
        while more and len(page) < limit:
            jobs, before = await self._archive.page(state, before, limit, self._jobs.get)
            more = before is not None
            # What has just come to its end is shown so when that is on disk.
            for job in jobs:
                await self.closed(job)
            # In the store it may be in the state that it has just left.
            page += [job for job in jobs if state in ("", job.state)]
        return page[:limit]

    def live(self) -> list[Job]:
        """The jobs that have not ended, oldest first."""
        return [job for job in self._jobs.values() if not job.state.terminal]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return dict(self._counts)

    def view(self, job: Job) -> dict[str, Any]:
        """The job as clients see it."""
        if job.state is not State.QUEUED:
            return job.view(None)
        return job.view(0 if job.order.work is None else self.queue.position(job))

    def complete(self, job: Job, *, result: dict[str, Any] | None = None, flagged: tuple[int, ...] = ()) -> None:
        """End a job well, with a result or with the images in `job.files`. No effect on one that has ended."""
        if job.state.terminal:
            return
        seed = job.order.seed or 0
        job.images = [
            {"index": n, "url": f"/v1/jobs/{job.id}/images/{n}", "seed": seed + n, "flagged": n in flagged}
            for n in range(len(job.files))
        ]
        job.result = result
        if result is None:
            body = {"format": job.order.format, "seed": job.order.seed, "images": job.images, **job.settled}
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

    async def forget(self, job: Job) -> None:
        """Forget one ended job now, with its images. Raises 409 for one that has not ended, 503."""
        await self.closed(job)
        if not job.state.terminal:
            raise RequestError(409, "job_unfinished", f"the job is {job.state}; cancel it first")
        await self.write_left()
        try:
            self._gone(await self._store.remove(job.id))
        except StoreError as error:
            raise unavailable() from error
        if job.id in self._unwritten:
            raise unavailable()

    async def forget_old(self) -> None:
        """Forget ended jobs past their time, or too many; write what could not be written. Called now and then."""
        await self.write_left()
        try:
            # Looking for the oldest of very many takes a while: only when there are too many.
            count = self._history if max(self._ended_of.values()) > self._history else None
            size = self._size if self.image_bytes > self._size else None
            gone = await self._store.forget(self._ttl, count, size)
        except StoreError as error:
            log.error("old jobs cannot be forgotten: %s", error)
            return
        self._gone(gone)

    def _waiting_like(self, order: Order) -> tuple[int, int]:
        """How many jobs wait like this one, and how many of those are its owner's.

        Those that are not for the engine wait in no queue: all count that have not ended.
        """
        if order.work is not None:
            arriving = [job.order.owner for job in self._arriving.values() if job.order.work is not None]
            waiting = self.queue.waiting(order.owner) + arriving.count(order.owner)
            return len(self.queue) + len(arriving), waiting
        jobs = (*self._arriving.values(), *self.live())
        owners = [job.order.owner for job in jobs if job.order.work is None]
        return len(owners), owners.count(order.owner)

    def _restored(self, job: Job, attempts: int) -> None:
        self._jobs[job.id] = job
        self.input_bytes += job.order.input_bytes
        # One that could not be read has neither.
        lost = job.order.work is None and not job.order.request
        if lost or job.attempt >= attempts:
            job.state = State.RUNNING if not lost else job.state
            text = "the worker ended before it was done with this job; send it again"
            if job.attempt >= attempts:
                text = f"{job.attempt} attempts at this job ended with the end of the engine or the worker"
            self.fail(job, "interrupted", text)
            return
        self._moved(job.state, State.QUEUED)
        job.state = State.QUEUED
        position = self.queue.push(job) if job.order.work is not None else 0
        job.emit("queued", position=position, seed=job.order.seed)
        job.emit("narration", text="the worker was started again; the job begins from the start")
        log.info("%s queued again after a restart, position %d", job.id, position)

    def _stored(self, job: Job, number: int | None, error: StoreError | None) -> None:
        """A new job is on disk, or cannot be."""
        del self._arriving[job.id]
        if number is None:
            log.error("%s cannot be stored: %s", job.id, error)
            self.input_bytes -= job.order.input_bytes
            self._drop_key(job.id)
            self._wake(job)
            return
        job.number = number
        self._jobs[job.id] = job
        self._counts[job.state] += 1
        position = self.queue.push(job) if job.order.work is not None else 0
        job.emit("queued", position=position, seed=job.order.seed)
        log.info("%s queued: %s, position %d", job.id, job.order.operation, position)
        # Whoever waits answers before the job goes anywhere: it is `queued` in that answer.
        self._wake(job)
        for observer in self._acceptors:
            observer(job)

    def _finish(self, job: Job, state: State, name: str, **data: Any) -> None:
        before, input_bytes = job.state, job.order.input_bytes
        if not job.end(state):
            return
        # A running job is not in the queue, nor is one that never needed the engine.
        if before is State.QUEUED and job.order.work is not None:
            self.queue.remove(job)
        self._moved(before, state)
        self.input_bytes -= input_bytes
        log.info("%s %s after %d steps%s", job.id, state, job.step, f": {data}" if name != "complete" else "")
        for observer in self._observers:
            observer(job)
        self._write_end(job, job.event(name, **data))

    def _write_end(self, job: Job, last: Event) -> None:
        record = ended_record(job, last, self._store.clock)
        self._store.finish(record, lambda _, error: self._ended(job, last, record, error))

    def _ended(self, job: Job, last: Event, record: Record, error: StoreError | None) -> None:
        """The end of a job is on disk, or cannot be: only then it is told."""
        if error is not None and last.name == "complete":
            job.state = State.FAILED
            self._moved(State.COMPLETED, State.FAILED)
            job.error = {"code": "storage_failed", "message": "the job's end could not be stored; the disk may be full"}
            job.images, job.files, job.result = [], [], None
            self.images.remove(job.id)
            self._write_end(job, job.event("error", **job.error))
            return
        if error is not None:
            log.error("%s: its end is not on disk yet: %s", job.id, error)
            self._unwritten[job.id] = record
        self.image_bytes += record.bytes
        self._ended_of[record.image] += 1
        for observer in self._tellers:
            observer(job)
        job.close(last)
        self._wake(job)
        self._recent.append(job)
        while len(self._recent) > RECENT and self._recent[0].id not in self._unwritten:
            ended = self._recent.popleft()
            self._jobs.pop(ended.id, None)
            self._drop_key(ended.id)

    def _written(self, job_id: str, _: None, error: StoreError | None) -> None:
        if error is None:
            self._unwritten.pop(job_id, None)

    def _gone(self, gone: list[tuple[str, str, bool, int]]) -> None:
        """Jobs are no longer in the store: ids, states, whether they were for the engine, bytes of images."""
        for job_id, state, image, size in gone:
            self._ended_of[bool(image)] -= 1
            self._counts[state] -= 1
            self.image_bytes -= size
            if self._jobs.pop(job_id, None) is not None:
                self._drop_key(job_id)
            self.images.remove(job_id)
            log.debug("%s forgotten", job_id)

    def _drop_key(self, job_id: str) -> None:
        key = self._key_of.pop(job_id, None)
        if key is not None:
            del self._keys[key]

    @staticmethod
    def _ending(job: Job) -> bool:
        """Whether a job has come to its end, and that is not told yet."""
        return job.state.terminal and not job.log.closed

    def _moved(self, before: str, after: str) -> None:
        self._counts[before] -= 1
        self._counts[after] += 1

    async def _wait_for(self, job: Job) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job.id, []).append(waiter)
        await waiter

    def _wake(self, job: Job) -> None:
        for waiter in self._waiting.pop(job.id, ()):
            if not waiter.done():
                waiter.set_result(None)


def _tell_log(_: None, error: StoreError | None) -> None:
    if error is not None:
        log.error("a change of a job is not on disk: %s", error)
