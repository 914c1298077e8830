"""The runner: does the jobs that are not for the engine's steps (`status`, `model_…`), each as a task of its own.

Owned by the front's IOLoop thread; nothing here blocks. What such a job does is an `Errand`; it may take hours, and
begins again after a restart of the worker, unless that could harm it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry

log = logging.getLogger(__name__)

Errand = Callable[[Job], Awaitable[dict[str, Any]]]
"""Does a job of one operation and returns its result. Raises `ErrandError`. Cancelled when nobody wants it any more."""


class ErrandError(Exception):
    """This job cannot be done; the worker is well. `code` is an error code of the contract."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Runner:
    """Runs `errands`, by the names of their operations; those in `once` in no other run of the worker."""

    def __init__(self, registry: JobRegistry, errands: Mapping[str, Errand], once: Collection[str] = ()) -> None:
        self._registry = registry
        self._errands = errands
        self._once = once
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        registry.on_accept(self._accepted)
        registry.on_finish(self._finished)

    def resume(self) -> None:
        """Begin what earlier runs of the worker left."""
        self._interrupt()
        for job in self._registry.live():
            self._accepted(job)

    async def close(self) -> None:
        """Stop everything, and begin nothing more: what is left is for the next run. Idempotent."""
        self._closed = True
        self._interrupt()
        left = tuple(self._running.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _interrupt(self) -> None:
        """End what is not done again: if it was what ended the worker, it would do so at every start."""
        for job in self._registry.live():
            if job.order.operation in self._once:
                text = "the worker ended before it was done with this job; send it again"
                self._registry.fail(job, "interrupted", text)

    def _accepted(self, job: Job) -> None:
        if job.order.work is None:
            # Not now: the client's answer says `queued`.
            asyncio.get_running_loop().call_soon(self._begin, job)

    def _begin(self, job: Job) -> None:
        if self._closed or job.state is not State.QUEUED:
            return
        self._registry.begin(job)
        task = self._running[job.id] = asyncio.get_running_loop().create_task(self._run(job))
        task.add_done_callback(lambda _: self._running.pop(job.id, None))

    async def _run(self, job: Job) -> None:
        operation = job.order.operation
        try:
            if operation not in self._errands:
                raise ErrandError("interrupted", f"this version of the worker does not do {operation}")
            result = await self._errands[operation](job)
        except ErrandError as error:
            self._registry.fail(job, error.code, error.message)
        except Exception:
            log.exception("%s failed", job.id)
            self._registry.fail(job, "internal_error", "something is wrong with the worker; its log says more")
        else:
            self._registry.complete(job, result=result)

    def _finished(self, job: Job) -> None:
        task = self._running.get(job.id)
        # It may be the one that has just come to its end itself.
        if task is not None and task is not asyncio.current_task():
            task.cancel()
