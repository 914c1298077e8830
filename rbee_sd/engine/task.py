"""One job in the engine: its images in the making, what is told of it, and its end.

Runs on the engine's main thread. Whatever happens, exactly one terminal message is emitted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from rbee_sd.engine.encoder import Encoder
from rbee_sd.engine.meter import Meter
from rbee_sd.engine.pipeline import DeviceLostError, GenerationError, Picture, Pipeline, Plan
from rbee_sd.engine.strand import Strand
from rbee_sd.messages import (
    Cancelled,
    Failed,
    Finished,
    Generate,
    Message,
    Narration,
    Preview,
    Progress,
    ProtocolError,
    Started,
)

log = logging.getLogger(__name__)


class Task:
    """A job being done. `place` is its number in the order in which jobs came."""

    def __init__(self, work: Generate, place: int, pipeline: Pipeline, meter: Meter, encoder: Encoder) -> None:
        self.work = work
        self.place = place
        self.watched = False
        self.strands: list[Strand] = []
        self.ready = False
        """Whether its inputs are decoded, so that it can begin."""
        self.done = False
        self.pipeline = pipeline
        self.meter = meter
        self._emit = meter.emit
        self._encoder = encoder
        self._inputs: object = None
        self._steps = [0] * work.count
        self._step = 0
        self._files: dict[int, tuple[bytes, bytes]] = {}
        self._flagged: set[int] = set()
        self._previewing = False
        self._previews = [0] * work.count
        if pipeline.reads(work):
            encoder.read(self._decode, self._read, self.fail)
        else:
            self._read(pipeline.read(work))

    @property
    def begun(self) -> bool:
        """Whether its images are in the making."""
        return bool(self.strands)

    def begin(self) -> None:
        """Settle what is open and run each image until it waits for something."""
        try:
            plan = self.pipeline.settle(self.work, self._inputs)
        except Exception as error:
            self.fail(error)
            return
        work = self.work
        self._emit(Started(work.job_id, plan.total, plan.width, plan.height, plan.guidance_scale, plan.scheduler))
        self._narrate(f"painting {plan.total} steps at {plan.width} x {plan.height} with {plan.scheduler}")
        for note in plan.notes:
            self._narrate(note)
        self.strands = [
            Strand(
                index,
                partial(self.pipeline.paint, plan, index, _Report(self, plan, index)),
                priority=work.priority,
                owner=work.owner,
                place=self.place,
            )
            for index in range(work.count)
        ]
        for strand in self.strands:
            with self.meter.working:
                strand.wake()
            self.look_at(strand)
            if self.done:
                return

    def look_at(self, strand: Strand) -> None:
        """See what became of an image that has run on: nothing yet, a picture, or an error."""
        if strand.error is not None:
            error, strand.error = strand.error, None
            self.fail(error)
        elif strand.picture is not None:
            picture, strand.picture = strand.picture, None
            self._keep(strand.index, picture)

    def cancel(self) -> None:
        """End the job where it stands."""
        self._end(Cancelled(self.work.job_id, self._step))

    def fail(self, error: Exception) -> None:
        """End the job with what went wrong. Raises `DeviceLostError` again: then the engine is of no use either."""
        if not self.done:
            self._end(self._failure(error))
        if isinstance(error, DeviceLostError):
            raise error

    # What an image reports.

    def stepped(self, index: int, step: int, total: int) -> None:
        """An image has come so far; the job is as far as the last of its images."""
        self._steps[index] = step
        for each in range(self._step + 1, min(self._steps) + 1):
            self._emit(Progress(self.work.job_id, each, total, time.time()))
            self._step = each
            if each == total:
                self._narrate("decoding the picture")

    def previewed(self, index: int, step: int, encode: Callable[[], bytes]) -> None:
        """A preview is to be made and shown."""
        self._previewing = True
        self._previews[index] += 1
        self._encoder.submit(encode, partial(self._show, index, step), self._no_preview)

    def wants_preview(self, index: int) -> bool:
        """Whether somebody who wants previews listens and has been shown the last one, and it is this image's turn.

        It is the turn of one: the job counts once among others.
        """
        if not (self.work.preview and self.watched) or self._previewing:
            return False
        there = [strand.index for strand in self.strands if strand.begun and not strand.done]
        return index == min(there, key=self._previews.__getitem__, default=index)

    def _narrate(self, text: str) -> None:
        self._emit(Narration(text, self.work.job_id))

    def _decode(self) -> object:
        # In the reading thread. A job that was cancelled while it waited there has nothing left to decode.
        work = self.work
        return None if self.done else self.pipeline.read(work)

    def _read(self, inputs: object) -> None:
        self.work = replace(self.work, inputs=())
        self._inputs = inputs
        self.ready = True

    def _show(self, index: int, step: int, jpeg: bytes) -> None:
        self._previewing = False
        if not self.done:
            self._emit(Preview(self.work.job_id, index, step, jpeg))

    def _no_preview(self, error: Exception) -> None:
        # The picture itself is in no danger, and the next preview may work.
        self._previewing = False
        log.error("%s: no preview", self.work.job_id, exc_info=error)

    def _keep(self, index: int, picture: Picture) -> None:
        if picture.flagged:
            self._flagged.add(index)
        self._encoder.submit(picture.encode, partial(self._encoded, index), self.fail)

    def _encoded(self, index: int, files: tuple[bytes, bytes]) -> None:
        self._files[index] = files
        if len(self._files) < self.work.count:
            return
        images, thumbnails = zip(*(self._files[each] for each in range(self.work.count)), strict=True)
        try:
            self._end(Finished(self.work.job_id, images, thumbnails, tuple(sorted(self._flagged))))
        except ProtocolError:
            log.exception("%s: its result does not fit a message", self.work.job_id)
            text = "the result is too large to be handed over; ask for fewer or smaller images"
            self._emit(Failed(self.work.job_id, "generation_failed", text))

    def drop(self) -> None:
        """Let go of everything, without a word."""
        self.done = True
        for strand in self.strands:
            if not strand.done:
                strand.end()
        self.strands = []
        self._inputs = None
        self.work = replace(self.work, inputs=())
        self.pipeline.forget(self.work.job_id)

    def _end(self, message: Message) -> None:
        if not self.done:
            self.drop()
            self._emit(message)

    def _failure(self, error: Exception) -> Failed:
        job_id = self.work.job_id
        match error:
            case GenerationError(code=code, message=message):
                return Failed(job_id, code, message)
            case DeviceLostError():
                text = "the device failed while it worked on this job; the engine is started anew"
                return Failed(job_id, "generation_failed", text)
            case MemoryError():
                text = "not enough memory for this job; ask for fewer or smaller images"
                return Failed(job_id, "out_of_memory", text)
        log.error("%s failed", job_id, exc_info=error)
        kind = type(error).__name__
        text = f"the model failed on this job ({kind}); the worker's log says more"
        return Failed(job_id, "generation_failed", text)


class _Report:
    """What one image of a job reports to. See `Report`."""

    def __init__(self, task: Task, plan: Plan, index: int) -> None:
        self._task = task
        self._total = plan.total
        self._index = index

    @property
    def aside(self) -> AbstractContextManager[None]:
        return self._task.meter.aside

    def step(self, step: int) -> None:
        self._task.stepped(self._index, step, self._total)

    def wants_preview(self) -> bool:
        return self._task.wants_preview(self._index)

    def preview(self, step: int, encode: Callable[[], bytes]) -> None:
        self._task.previewed(self._index, step, encode)
