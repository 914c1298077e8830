"""The dispatcher: hands waiting jobs to the worker and turns what the engine says into the jobs' events.

Owned by the front's IOLoop thread; nothing here blocks. A job leaves the worker's hands only when the engine has
said so or has died, also when it was cancelled long before: until then its place is not free. Which of its jobs
the engine works on is the engine's affair: it parks those of low priority while it has others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.timeouts import Timeouts
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.messages import Cancelled, Event, Failed, Finished, Generate, Narration, Preview, Progress, Started

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""How often a job is handed to an engine that dies, or by a front that does, before it counts as the cause."""
STORE_PAUSE = 1.0
"""Seconds until the store is tried again when it could not note that a job is about to be tried."""


class Seats(Protocol):
    """What the dispatcher needs of a worker."""

    @property
    def in_flight(self) -> int:
        """How many jobs the engine has."""

    def takes(self, priority: int, owner: str, model: str, pixels: int) -> bool:
        """Whether the engine takes a job of this priority, owner, model (empty: its own) and size (0: its own) now."""

    def submit(self, work: Generate) -> None:
        """Begin a job."""

    def cancel(self, job_id: str) -> None:
        """Stop a job; no effect on one that is not in the engine."""

    def watch(self, job_id: str, watched: bool) -> None:
        """Somebody watches a job, or nobody any more; no effect on one that is not in the engine."""


def _own(_: str) -> str:
    """Where the model of an engine that has only one lies: it knows."""
    return ""


class Dispatcher:
    """Between the registry and one worker. Set `worker` before the first message arrives.

    `source_of` tells where a model of this name lies; None: it is not there any more.
    """

    worker: Seats

    def __init__(self, registry: JobRegistry, watcher: Watcher, source_of: Callable[[str], str | None] = _own) -> None:
        self._registry = registry
        self._source_of = source_of
        self._watcher = watcher
        self._timeouts = Timeouts(self._timed_out)
        self._saving: set[asyncio.Task[None]] = set()
        self._said = ""
        self._refusal: tuple[str, str] | None = None
        self._beginning: Job | None = None
        self._suspect: str | None = None
        self._closed = False
        registry.on_accept(self._accepted)
        registry.on_finish(self._finished)
        watcher.on_watch(self._watched)

    def pump(self) -> None:
        """Hand over as many waiting jobs as the worker takes, one after another.

        Each attempt is on disk before the engine hears of it, so that a job which takes everything down with it
        cannot do so for ever.
        """
        if self._closed or self._beginning is not None or (job := self._next()) is None:
            return
        self._registry.queue.take(job)
        self._beginning = job
        self._registry.attempt(job, partial(self._noted, job))

    def close(self) -> None:
        """Hand over nothing any more, and tell nobody of the engine. Idempotent."""
        self._closed = True
        self._timeouts.clear()

    def _accepted(self, job: Job) -> None:
        if job.order.work is None:
            return
        if self._said:
            job.emit("narration", text=self._said)
        # Not now: the client's answer says `queued`, and its position, before the job goes anywhere.
        asyncio.get_running_loop().call_soon(self._begin, job)

    def _begin(self, job: Job) -> None:
        if self._refusal is not None:
            self._registry.fail(job, *self._refusal)
        self.pump()

    def _noted(self, job: Job, on_disk: bool) -> None:
        self._beginning = None
        # Meanwhile it may have been cancelled, or the engine may have died.
        if job.state is State.RUNNING:
            if on_disk and not self._closed and self._takes(job):
                self._hand_over(job)
            else:
                self._registry.put_back(job, tried=False)
        if on_disk:
            self.pump()
        else:
            log.error("%s waits: its attempt cannot be noted", job.id)
            asyncio.get_running_loop().call_later(STORE_PAUSE, self.pump)

    def _hand_over(self, job: Job) -> None:
        order = job.order
        if order.work is None:
            raise RuntimeError("a job without work was queued")
        model = order.work.model
        source = self._source_of(model)
        if source is None:
            self._registry.fail(job, "model_failed", f"the model {model} was removed while the job waited")
            return
        self._timeouts.begin(job.id, order.timeout)
        log.info("%s running, attempt %d", job.id, job.attempt)
        if job.attempt > 1:
            self._suspect = job.id
        work = replace(order.work, job_id=job.id, source=source, owner=order.owner, priority=order.priority)
        self.worker.submit(work)
        if self._watcher.watched(job.id):
            self._watched(job, True)

    def _next(self) -> Job | None:
        """The job whose turn it is and for which there is a place. Who holds many places does not block the others.

        One that was in an engine which died is tried again alone: then it is known whether it was the cause, and the
        others that were there are not lost with it.
        """
        if self._suspect is not None:
            return None
        for job in self._registry.queue.foremost():
            if job.attempt and self.worker.in_flight:
                return None
            if self._takes(job):
                return job
        return None

    def _takes(self, job: Job) -> bool:
        order, work = job.order, job.order.work
        return work is not None and self.worker.takes(order.priority, order.owner, work.model, work.pixels)

    # What the worker calls.

    def said(self, message: Event) -> None:
        """The engine said something about a job, or to everybody."""
        match message:
            case Narration(text, ""):
                self.narrate(text)
            case Started() | Progress() | Preview() | Finished() | Failed() | Cancelled() | Narration():
                job = self._registry.find(message.job_id)
                # One that ended in the meantime (cancelled, timed out) has had its last event.
                if job is not None and job.state is State.RUNNING:
                    self._apply(job, message)
        if isinstance(message, Finished | Failed | Cancelled):
            if message.job_id == self._suspect:
                self._suspect = None
            # A place is free.
            self.pump()

    def narrate(self, text: str) -> None:
        """Tell every live job, and those that come while the engine is not ready."""
        self._said = text
        for job in () if self._closed else self._registry.live():
            if job.order.work is not None:
                job.emit("narration", text=text)

    def ready(self) -> None:
        """The engine takes jobs."""
        self._said = ""
        self._refusal = None
        self.pump()

    def lost(self, job_ids: Iterable[str], code: str) -> None:
        """The engine died with these jobs: they begin again, from the start, but not for ever.

        `code` is the error of those that had their chance.
        """
        self._suspect = None
        for job_id in job_ids:
            job = self._registry.find(job_id)
            if job is None or job.state is not State.RUNNING:
                continue
            if job.attempt < MAX_ATTEMPTS:
                self._timeouts.end(job.id)
                self._registry.put_back(job)
                job.emit(
                    "narration", text=f"the engine died; the job begins again, alone, as attempt {job.attempt + 1}"
                )
            else:
                text = f"{job.attempt} attempts at this job ended with the end of the engine or the worker"
                self._registry.fail(job, code, text)

    def refuse(self, code: str, message: str) -> None:
        """No engine does a job until one is ready again: end those that wait, and those that come before it is."""
        self._refusal = (code, message)
        for job in self._registry.live():
            if job.order.work is not None:
                self._registry.fail(job, code, message)

    async def settle(self) -> None:
        """Wait until no images are being written any more, and what came of it is on disk."""
        while self._saving:
            await asyncio.wait(tuple(self._saving))
        await self._registry.settle()

    def _apply(self, job: Job, message: Event) -> None:
        match message:
            case Started(_, total, width, height, guidance_scale, scheduler):
                settled = {"width": width, "height": height, "guidance_scale": guidance_scale, "scheduler": scheduler}
                job.start(total, settled)
            case Progress(_, step, total, at):
                job.progress(step, total, at)
            case Preview(_, index, step, jpeg):
                job.preview(index, step, jpeg)
            case Narration(text):
                job.emit("narration", text=text)
            case Failed(_, code, reason):
                self._registry.fail(job, code, reason)
            case Cancelled():
                self._registry.cancel(job, "engine")
            case Finished():
                self._timeouts.end(job.id)
                task = asyncio.get_running_loop().create_task(self._save(job, message))
                self._saving.add(task)
                task.add_done_callback(self._saving.discard)

    async def _save(self, job: Job, message: Finished) -> None:
        try:
            files = await self._registry.images.save(job.id, message.images, job.order.format, message.thumbnails)
        except Exception as error:
            # Also what is no fault of the disk, no memory or no thread: the job must end in any case.
            reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            log.error("%s: cannot store its images: %s", job.id, reason)
            self._registry.fail(job, "storage_failed", "the images could not be stored; the disk may be full")
            return
        if job.state is State.RUNNING:
            job.files = files
            self._registry.complete(job, flagged=message.flagged)
        else:
            self._registry.images.remove(job.id)

    def _timed_out(self, job_id: str) -> None:
        job = self._registry.find(job_id)
        if job is not None:
            limit = f"{job.order.timeout:g} s"
            self._registry.fail(
                job, "timeout", f"the job ran longer than its {limit}; ask for less or a longer timeout"
            )

    def _watched(self, job: Job, watched: bool) -> None:
        if job.state is State.RUNNING and job.order.work is not None and job.order.work.preview:
            self.worker.watch(job.id, watched)

    def _finished(self, job: Job) -> None:
        self._timeouts.end(job.id)
        self.worker.cancel(job.id)
