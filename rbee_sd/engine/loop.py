"""The engine's core and its loop.

`Engine` steps all jobs together and knows nothing of pipes; `serve` adds the pipe: block only when idle, else take
what has come without waiting, then do one step. Both run on the engine's main thread.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from rbee_sd.engine import halving
from rbee_sd.engine.admission import Admission, Waiting
from rbee_sd.engine.calls import Call, Stage
from rbee_sd.engine.encoder import Encoder
from rbee_sd.engine.meter import Meter
from rbee_sd.engine.models import Models
from rbee_sd.engine.pipeline import Pipeline
from rbee_sd.engine.strand import Strand
from rbee_sd.engine.task import Task
from rbee_sd.engine.turns import Turns
from rbee_sd.messages import (
    MAX_FRAME,
    Cancel,
    Cancelled,
    Failed,
    Finished,
    Generate,
    LoadModel,
    Message,
    Shutdown,
    UnloadModel,
    Watch,
    decode,
    encode,
)

log = logging.getLogger(__name__)


PAUSE = 0.05
"""Seconds for which the front may wait until it is heard, while no job waits for a forward."""


class FrontGoneError(BaseException):
    """The pipe is closed: the front has died, or wants to be rid of this engine.

    No `Exception`, so that a job in whose midst it happens does not take it for a failure of its own.
    """


class Engine:
    """The jobs in hand, stepped together."""

    def __init__(self, models: Models, emit: Callable[[Message], None]) -> None:
        self._models = models
        self._meter = Meter(models, emit)
        self._emit = self._meter.emit
        self._admission = Admission(models, self._emit)
        self._encoder = Encoder()
        self._turns = Turns()
        self._tasks: dict[str, Task] = {}
        self._place = 0
        self._forward_took = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is something to step, and not only what the other threads have in hand."""
        return any(task.ready or task.begun for task in self._tasks.values() if not self._encoding(task)) or bool(
            self._admission and self._admission.can_admit(self._in_use())
        )

    @property
    def wakeup(self) -> int:
        """File descriptor that is readable when `deliver` has something to do."""
        return self._encoder.wakeup

    def submit(self, work: Generate | LoadModel) -> None:
        """Take a job in, or have a model ready. It waits until its model is loaded."""
        self._place += 1
        work = replace(work, model=work.model or self._models.default)
        if isinstance(work, Generate) and self._admission.passes(work.model):
            self._take(work, self._place)
        else:
            self._admission.add(Waiting(work, self._place))

    def unload(self, job_id: str, model: str) -> None:
        """Let go of a model, unless somebody needs it."""
        if model in self._in_use() or self._admission.wanted(model):
            text = f"jobs work with the model {model}; wait for them, or cancel them"
            self._emit(Failed(job_id, "model_in_use", text))
            return
        if model in self._models:
            self._models.unload(model)
        self._emit(Finished(job_id, ()))

    def cancel(self, job_id: str) -> None:
        """Drop a job. One that is not here has ended: its terminal message is on the way already."""
        task = self._tasks.pop(job_id, None)
        if task is not None:
            # The count first: who hears that the job has gone finds it settled.
            self._meter.tell(at_once=True)
            task.cancel()
            self._tidy()
        elif self._admission.drop(job_id):
            self._emit(Cancelled(job_id, 0))

    def watch(self, job_id: str, watched: bool) -> None:
        """Somebody listens to a job, or nobody any more."""
        if job_id in self._tasks:
            self._tasks[job_id].watched = watched
        else:
            self._admission.watch(job_id, watched)

    def deliver(self) -> None:
        """Take what the other threads have done."""
        self._encoder.deliver()
        self._tidy()

    def step(self) -> None:
        """Take all jobs further: what comes before a forward, then one forward for all it fits."""
        self.prepare()
        self.forward()

    def prepare(self) -> None:
        """Begin what can begin, and do what is waited for besides forwards."""
        self._admit()
        self._begin()
        self._stage()
        self._tidy()

    def forward(self) -> None:
        """One forward, for all of those who wait for one that it fits."""
        self._forward()
        self._tidy()

    def close(self) -> None:
        """End every job without a word, and the other threads. Idempotent."""
        for task in self._tasks.values():
            task.drop()
        self._tasks.clear()
        self._encoder.close()

    def _admit(self) -> None:
        """Load the next model that is waited for, if it can be; nothing else goes on meanwhile."""
        if self._admission:
            for waiting in self._admission.admit(self._in_use(), list(self._tasks)):
                if isinstance(waiting.work, Generate):
                    self._take(waiting.work, waiting.place)
                    self._tasks[waiting.work.job_id].watched = waiting.watched

    def _take(self, work: Generate, place: int) -> None:
        self._meter.begin()
        self._tasks[work.job_id] = Task(work, place, self._models.use(work.model), self._meter, self._encoder)

    def _in_use(self) -> frozenset[str]:
        """The models that jobs in hand work with."""
        return frozenset(task.work.model for task in self._tasks.values())

    def _begin(self) -> None:
        """Begin one job at least, and more while there is time."""
        fresh = [task for task in self._tasks.values() if task.ready and not task.begun]
        until = self._until() if fresh else 0.0
        for task in sorted(fresh, key=lambda task: (-task.work.priority, task.place)):
            task.begin()
            if time.monotonic() > until:
                return

    def _stage(self) -> None:
        """Do one thing at least that somebody waits for besides a forward, and more while there is time."""
        until = 0.0
        while waiting := [(task, strand) for task, strand in self._strands() if isinstance(strand.wants, Stage)]:
            until = until or self._until()
            task, strand = min(waiting, key=lambda pair: (-pair[1].priority, pair[1].place, pair[1].index))
            self._do(strand)
            task.look_at(strand)
            if time.monotonic() > until:
                return

    def _until(self) -> float:
        """When somebody must look at the pipe again: after as long as a forward takes, if others wait for one."""
        others = any(isinstance(strand.wants, Call) for _, strand in self._strands())
        return time.monotonic() + (self._forward_took if others else PAUSE)

    def _do(self, strand: Strand) -> None:
        try:
            with self._meter.working:
                result = strand.wants.run()  # type: ignore[union-attr]
        except Exception as error:
            again = self._models.relieve(error, self._in_use())
            if not again:
                self._resume(strand, None, error)
        else:
            again = False
            self._resume(strand, result, None)
        # Not within the `except`, where the traceback still holds what did not fit. It ends: no model is idle now.
        if again:
            self._do(strand)

    def _forward(self) -> None:
        task_of = {strand: task for task, strand in self._strands() if isinstance(strand.wants, Call)}
        if not task_of:
            return
        began = time.monotonic()
        chosen = self._turns.choose(list(task_of))
        calls = [strand.call for strand in chosen]
        outcomes = self._compute(calls)
        if any(error and self._models.relieve(error, self._in_use()) for _, error in outcomes):
            outcomes = self._compute(calls)
        for strand, (result, error) in zip(chosen, outcomes, strict=True):
            # It may be one of a job that another of its images has just ended.
            if strand.done:
                continue
            self._resume(strand, result, error)
            task_of[strand].look_at(strand)
        self._forward_took = time.monotonic() - began
        done = [call for call, (_, error) in zip(calls, outcomes, strict=True) if error is None]
        self._measure(task_of[chosen[0]].pipeline, done, task_of)

    def _compute(self, calls: list[Call]) -> list[halving.Outcome]:
        with self._meter.working:
            return halving.forward(calls)

    def _resume(self, strand: Strand, result: Any, error: Exception | None) -> None:
        with self._meter.working:
            if error is None:
                strand.wake(result)
            else:
                strand.fail(error)

    def _measure(self, pipeline: Pipeline, done: list[Call], waiting: Iterable[Strand]) -> None:
        """Go on measuring how many rows pay, with a call that worked, if others wait who could share with it."""
        if not done:
            return
        rows = sum(strand.call.rows for strand in waiting if _alike(strand, done[0]))
        curve = pipeline.knee(done[0], 2 * rows) if rows > done[0].rows else None
        if curve is not None:
            self._emit(curve)

    def _strands(self) -> list[tuple[Task, Strand]]:
        return [(task, strand) for task in self._tasks.values() for strand in task.strands]

    def _tidy(self) -> None:
        for job_id, task in tuple(self._tasks.items()):
            if task.done:
                del self._tasks[job_id]
        if self._tasks:
            self._meter.tell()
        else:
            self._meter.rest()

    @staticmethod
    def _encoding(task: Task) -> bool:
        return task.begun and all(strand.done for strand in task.strands)


def _alike(strand: Strand, call: Call) -> bool:
    return isinstance(strand.wants, Call) and strand.wants.shape == call.shape


def serve(pipe: Connection, engine: Engine) -> None:
    """Do what the front says until it says Shutdown. Raises `FrontGoneError`."""
    # Made once: what multiprocessing offers for this costs a noticeable part of a short step.
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN)
    poll.register(engine.wakeup, select.POLLIN)
    while True:
        # Idle, it waits for the front or for the other threads; else it only looks.
        ready = [descriptor for descriptor, _ in poll.poll(0 if engine.busy else None)]
        if engine.wakeup in ready:
            engine.deliver()
        if pipe.fileno() in ready:
            message = _receive(pipe)
            if isinstance(message, Shutdown):
                return
            _obey(engine, message)
            # All that has come, before the next step.
            continue
        if engine.busy:
            engine.prepare()
            # Who has come in the meantime need not wait for two forwards.
            if not poll.poll(0):
                engine.forward()


def _obey(engine: Engine, message: Message) -> None:
    match message:
        case Generate() | LoadModel() as work:
            engine.submit(work)
        case UnloadModel(job_id, model):
            engine.unload(job_id, model)
        case Cancel(job_id):
            engine.cancel(job_id)
        case Watch(job_id, watched):
            engine.watch(job_id, watched)
        case message:
            log.error("unexpected %s from the front", type(message).__name__)


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
