"""The engine's core and its loop.

`Engine` steps jobs and knows nothing of pipes; `serve` adds the pipe: block only when idle, else take what has
come without waiting, then do one step. Both run on the engine's main thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from rbee_sd.engine.pipeline import Pipeline
from rbee_sd.engine.task import Task
from rbee_sd.messages import MAX_FRAME, Cancel, Generate, Message, Pulse, Shutdown, decode, encode

log = logging.getLogger(__name__)

PULSE_INTERVAL = 0.25
"""Seconds between counts of the denoiser's calls while it works."""


class FrontGoneError(BaseException):
    """The pipe is closed: the front has died, or wants to be rid of this engine.

    No `Exception`, so that a job in whose midst it happens does not take it for a failure of its own.
    """


class Engine:
    """The jobs in hand. One at a time for now, which `Ready.capacity` tells the front."""

    def __init__(self, pipeline: Pipeline, emit: Callable[[Message], None]) -> None:
        self._pipeline = pipeline
        self._emit = emit
        self._tasks: dict[str, Task] = {}
        self._pulse = Pulse(0)
        self._pulsed = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is something to step."""
        return bool(self._tasks)

    def submit(self, work: Generate) -> None:
        """Take a job in."""
        self._tasks[work.job_id] = Task(work, self._pipeline, self._emit)

    def cancel(self, job_id: str) -> None:
        """Drop a job. One that is not here has ended: its terminal message is on the way already."""
        task = self._tasks.pop(job_id, None)
        if task is not None:
            # The count first: who hears that the job has gone finds it settled.
            self._count()
            task.cancel()

    def step(self) -> None:
        """Take every job one denoise step further."""
        for job_id, task in tuple(self._tasks.items()):
            task.advance()
            if task.done:
                del self._tasks[job_id]
        self._count()

    def _count(self) -> None:
        now = time.monotonic()
        pulse = Pulse(self._pipeline.forwards)
        if pulse != self._pulse and (not self.busy or now - self._pulsed >= PULSE_INTERVAL):
            self._pulse, self._pulsed = pulse, now
            self._emit(pulse)


def serve(pipe: Connection, engine: Engine) -> None:
    """Do what the front says until it says Shutdown. Raises `FrontGoneError`."""
    while True:
        while not engine.busy or pipe.poll():
            match _receive(pipe):
                case Generate() as work:
                    engine.submit(work)
                case Cancel(job_id):
                    engine.cancel(job_id)
                case Shutdown():
                    return
                case message:
                    log.error("unexpected %s from the front", type(message).__name__)
        engine.step()


def send(pipe: Connection, message: Message) -> None:
    """Tell the front something. Raises `FrontGoneError`."""
    try:
        pipe.send_bytes(encode(message))
    except OSError as error:
        raise FrontGoneError from error


def _receive(pipe: Connection) -> Message:
    try:
        return decode(pipe.recv_bytes(MAX_FRAME))
    except (EOFError, OSError) as error:
        raise FrontGoneError from error
