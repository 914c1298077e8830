"""One job in the engine: a pipeline call in a greenlet of its own, parked after every denoise step.

Runs on the engine's main thread. The greenlet lets an unmodified, blocking `pipe(...)` be taken step by step, and
be ended between two steps by throwing into it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from greenlet import getcurrent, greenlet

from rbee_sd.engine.pipeline import DeviceLostError, GenerationError, Pipeline
from rbee_sd.messages import Cancelled, Failed, Finished, Generate, Message, Narration, Progress, ProtocolError, Started

log = logging.getLogger(__name__)


class JobCancelled(BaseException):
    """Thrown into a parked job. No `Exception`, so that no library on the way catches it."""


class Task:
    """A job being done. Emits `Started`, `Progress` and exactly one terminal message."""

    def __init__(self, work: Generate, pipeline: Pipeline, emit: Callable[[Message], None]) -> None:
        self.work = work
        self._pipeline = pipeline
        self._emit = emit
        self._step = 0
        self._total = 0
        self._greenlet = greenlet(self._run)

    @property
    def done(self) -> bool:
        """Whether the terminal message was emitted."""
        return bool(self._greenlet.dead)

    def advance(self) -> None:
        """Run until the next denoise step is done, or the job."""
        self._greenlet.switch()

    def cancel(self) -> None:
        """End the job where it stands."""
        if self._greenlet:
            self._greenlet.throw(JobCancelled)
        else:
            # Never switched to: there is nothing to unwind.
            self._greenlet.throw()
            self._emit(Cancelled(self.work.job_id, 0))

    # Called by the pipeline, inside the greenlet.

    def started(self, total: int, width: int, height: int, guidance_scale: float, scheduler: str) -> None:
        """See `Report`."""
        self._total = total
        self._emit(Started(self.work.job_id, total, width, height, guidance_scale, scheduler))

    def step(self, step: int) -> None:
        """See `Report`."""
        self._step = step
        self._emit(Progress(self.work.job_id, step, self._total, time.time()))
        parent = getcurrent().parent
        if parent is not None:
            parent.switch()

    def narrate(self, text: str) -> None:
        """See `Report`."""
        self._emit(Narration(text, self.work.job_id))

    def _run(self) -> None:
        try:
            outcome = self._outcome()
        except DeviceLostError:
            text = "the device failed while it worked on this job; the engine is started anew"
            self._emit(Failed(self.work.job_id, "generation_failed", text))
            # Out of the loop, and of the process.
            raise
        try:
            self._emit(outcome)
        except ProtocolError:
            log.exception("%s: its result does not fit a message", self.work.job_id)
            text = "the result is too large to be handed over; ask for fewer or smaller images"
            self._emit(Failed(self.work.job_id, "generation_failed", text))

    def _outcome(self) -> Message:
        job_id = self.work.job_id
        try:
            images, flagged = self._pipeline.generate(self.work, self)
            return Finished(job_id, images, flagged)
        except JobCancelled:
            return Cancelled(job_id, self._step)
        except GenerationError as error:
            return Failed(job_id, error.code, error.message)
        except DeviceLostError:
            raise
        except MemoryError:
            log.exception("%s: out of memory", job_id)
            return Failed(job_id, "out_of_memory", "not enough memory for this job; ask for fewer or smaller images")
        except Exception as error:
            log.exception("%s failed", job_id)
            kind = type(error).__name__
            text = f"the model failed on this job ({kind}); the worker's log says more"
            return Failed(job_id, "generation_failed", text)
