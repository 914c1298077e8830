"""Jobs that come and go among others that run: how many forwards it takes until one is gone, or has begun.

The engine's own loop runs on the main thread; a second thread plays the front, and says what it has to say at random
moments, through a real pipe.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from rbee_sd.engine.bench.ways import Ways
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loop import Engine, serve
from rbee_sd.engine.models import only
from rbee_sd.messages import Cancel, Cancelled, Failed, Finished, Message, Progress, Shutdown, encode

JOBS = 8
STEPS = 1000
"""Of each job: more than it should live."""
SCHEDULER = "euler"
"""One forward for each step, with every kind of model."""
DEADLINE = 120.0
"""Seconds without a word from the engine."""
SETTLE = 10
"""Forwards from which the time of one is taken."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the engine said, when (monotonic clock), and how many forwards it had done."""

    message: Message
    at: float
    forwards: int


def measure(model: Diffusion, ways: Ways, moments: int, done: Callable[[], None]) -> list[dict[str, Any]]:
    """Cancel one of eight jobs and begin another, `moments` times."""
    heard: SimpleQueue[Heard] = SimpleQueue()

    def emit(message: Message) -> None:
        encode(message)
        heard.put(Heard(message, time.monotonic(), model.forwards))

    ours, theirs = multiprocessing.Pipe()
    front = _Front(ours, heard, lambda: model.forwards, ways, moments, done)
    engine = Engine(only(model, emit), emit)
    thread = threading.Thread(target=front.run, name="front")
    thread.start()
    try:
        serve(theirs, engine)
    finally:
        engine.close()
        thread.join()
        ours.close()
        theirs.close()
    if front.error is not None:
        raise front.error
    return front.samples


class _Front:
    """Says when jobs come and go, and listens."""

    def __init__(
        self,
        pipe: Connection,
        heard: SimpleQueue[Heard],
        forwards: Callable[[], int],
        ways: Ways,
        moments: int,
        done: Callable[[], None],
    ) -> None:
        self._pipe = pipe
        self._heard = heard
        self._forwards = forwards
        self._ways = ways
        self._moments = moments
        self._done = done
        self._running: list[str] = []
        self._random = random.Random(1)  # noqa: S311  (nothing secret is made of it)
        self.samples: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """All of it, in the thread."""
        try:
            for _ in range(JOBS):
                self._join()
            step = self._step()
            for _ in range(self._moments):
                time.sleep(self._random.uniform(0, 2 * step))
                gone = self._leave()
                time.sleep(self._random.uniform(0, 2 * step))
                self.samples.append({"cancel": gone, "newcomer": self._join()})
                self._done()
        except Exception as error:
            self.error = error
        finally:
            self._say(Shutdown())

    def _join(self) -> dict[str, float]:
        """Begin a job: forwards and seconds until its first step is done, that step's forward included."""
        at, forwards = time.monotonic(), self._forwards()
        job_id = self._begin()
        while True:
            heard = self._next()
            if isinstance(heard.message, Progress) and heard.message.job_id == job_id:
                return {"forwards": heard.forwards - forwards, "seconds": heard.at - at}

    def _leave(self) -> dict[str, float]:
        """Cancel a job: forwards it still has a part in, the one in hand included, and seconds until it is gone."""
        job_id = self._running.pop(self._random.randrange(len(self._running)))
        at = time.monotonic()
        self._say(Cancel(job_id))
        steps = 0
        while True:
            heard = self._next()
            match heard.message:
                case Progress(about) if about == job_id and heard.at > at:
                    steps += 1
                case Cancelled(about) | Finished(about) if about == job_id:
                    return {"forwards": steps, "seconds": heard.at - at}

    def _step(self) -> float:
        """Seconds from one forward to the next."""
        first = last = self._next()
        while last.forwards - first.forwards < SETTLE:
            last = self._next()
        return (last.at - first.at) / (last.forwards - first.forwards)

    def _next(self) -> Heard:
        heard = self._heard.get(timeout=DEADLINE)
        match heard.message:
            case Failed(_, _, text):
                raise RuntimeError(f"a job failed: {text}")
            case Finished(job_id) if job_id in self._running:
                # Where few rows share a forward, the first of the jobs comes to its end.
                self._running.remove(job_id)
                self._begin()
        return heard

    def _begin(self) -> str:
        work = self._ways.work(steps=STEPS, scheduler=SCHEDULER)
        self._running.append(work.job_id)
        self._say(work)
        return work.job_id

    def _say(self, message: Message) -> None:
        self._pipe.send_bytes(encode(message))
