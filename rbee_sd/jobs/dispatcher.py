"""The dispatcher: hands waiting jobs to the worker and turns what the engine says into the jobs' events.

Owned by the front's IOLoop thread; nothing here blocks. A job leaves the worker's hands only when the engine has
said so or has died, also when it was cancelled long before: until then its place is not free. Which of its jobs
the engine works on is the engine's affair: it parks those of low priority while it has others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.messages import Cancelled, Event, Failed, Finished, Generate, Narration, Preview, Progress, Started

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""How often a job is handed to an engine that dies before beginning it."""


class Seats(Protocol):
    """What the dispatcher needs of a worker."""

    def takes(self, priority: int, owner: str) -> bool:
        """Whether the engine takes a job of this priority and owner now."""

    def submit(self, work: Generate) -> None:
        """Begin a job."""

    def cancel(self, job_id: str) -> None:
        """Stop a job; no effect on one that is not in the engine."""

    def watch(self, job_id: str, watched: bool) -> None:
        """Somebody watches a job, or nobody any more; no effect on one that is not in the engine."""


class Dispatcher:
    """Between the registry and one worker. Set `worker` before the first message arrives."""

    worker: Seats

    def __init__(self, registry: JobRegistry, watcher: Watcher) -> None:
        self._registry = registry
        self._watcher = watcher
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._saving: set[asyncio.Task[None]] = set()
        self._said = ""
        self._refusal: tuple[str, str] | None = None
        registry.on_finish(self._finished)
        watcher.on_watch(self._watched)

    def accepted(self, job: Job) -> None:
        """A job was queued: run it if there is room, and say what it waits for otherwise."""
        if self._said:
            job.emit("narration", text=self._said)
        # Not now: the client's answer says `queued`, and its position, before the job goes anywhere.
        asyncio.get_running_loop().call_soon(self._begin, job)

    def _begin(self, job: Job) -> None:
        if self._refusal is not None:
            self._registry.fail(job, *self._refusal)
        self.pump()

    def pump(self) -> None:
        """Hand over as many waiting jobs as the worker takes."""
        while (job := self._next()) is not None:
            self._registry.queue.take(job)
            order = job.order
            if order.work is None:
                raise RuntimeError("a job without work was queued")
            job.dispatch()
            loop = asyncio.get_running_loop()
            self._timers[job.id] = loop.call_later(order.timeout, self._timed_out, job)
            log.info("%s running, attempt %d", job.id, job.attempt)
            self.worker.submit(replace(order.work, job_id=job.id, owner=order.owner, priority=order.priority))
            if self._watcher.watched(job.id):
                self._watched(job, True)

    def _next(self) -> Job | None:
        """The job whose turn it is and for which there is a place. Who holds many places does not block the others."""
        for job in self._registry.queue.foremost():
            if self.worker.takes(job.order.priority, job.order.owner):
                return job
        return None

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
            # A place is free.
            self.pump()

    def narrate(self, text: str) -> None:
        """Tell every live job, and those that come while the engine is not ready."""
        self._said = text
        for job in self._registry.live():
            job.emit("narration", text=text)

    def ready(self) -> None:
        """The engine takes jobs."""
        self._said = ""
        self._refusal = None
        self.pump()

    def lost(self, job_ids: Iterable[str]) -> None:
        """The engine died with these jobs. One it had not begun waits again, but not for ever."""
        for job_id in job_ids:
            job = self._registry.find(job_id)
            if job is None or job.state.terminal:
                continue
            if job.total is None and job.attempt < MAX_ATTEMPTS:
                self._stop_timer(job)
                self._registry.put_back(job)
            else:
                text = "the engine died while it worked on this job; send it again"
                self._registry.fail(job, "engine_crashed", text)

    def refuse(self, code: str, message: str) -> None:
        """No engine does a job until one is ready again: end those that wait, and those that come before it is."""
        self._refusal = (code, message)
        for job in self._registry.live():
            if job.order.work is not None:
                self._registry.fail(job, code, message)

    async def settle(self) -> None:
        """Wait until no images are being written any more."""
        while self._saving:
            await asyncio.wait(tuple(self._saving))

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
                self._stop_timer(job)
                task = asyncio.get_running_loop().create_task(self._save(job, message))
                self._saving.add(task)
                task.add_done_callback(self._saving.discard)

    async def _save(self, job: Job, message: Finished) -> None:
        try:
            await self._registry.images.save(job.id, message.images)
        except OSError as error:
            log.error("%s: cannot store its images: %s", job.id, error.strerror)
            self._registry.fail(job, "storage_failed", "the images could not be stored; the disk may be full")
            return
        if job.state is State.RUNNING:
            self._registry.complete(job, flagged=message.flagged)
        else:
            self._registry.images.remove(job.id)

    def _timed_out(self, job: Job) -> None:
        limit = f"{job.order.timeout:g} s"
        self._registry.fail(job, "timeout", f"the job ran longer than its {limit}; ask for less or a longer timeout")

    def _watched(self, job: Job, watched: bool) -> None:
        if job.state is State.RUNNING and job.order.work is not None and job.order.work.preview:
            self.worker.watch(job.id, watched)

    def _finished(self, job: Job) -> None:
        self._stop_timer(job)
        self.worker.cancel(job.id)

    def _stop_timer(self, job: Job) -> None:
        timer = self._timers.pop(job.id, None)
        if timer is not None:
            timer.cancel()
