"""The worker: keeps one engine alive, knows what it is doing, and tells the dispatcher.

Owned by the front's IOLoop thread, which must be the main thread (see `process`); nothing here blocks. Its
interface (`takes`, `submit`, `cancel`, `watch`, `order`, `health`, `stop`, and the calls it makes on its `Listener`)
says nothing of processes on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from rbee_sd.messages import (
    Cancel,
    Cancelled,
    Curve,
    Event,
    Failed,
    Fatal,
    Finished,
    Generate,
    Loading,
    LoadModel,
    Message,
    Pulse,
    Ready,
    Unloaded,
    UnloadModel,
    Watch,
)
from rbee_sd.worker.backoff import WINDOW, Backoff
from rbee_sd.worker.process import EngineMain, EngineProcess
from rbee_sd.worker.room import Place, has_room, weight
from rbee_sd.worker.watchdog import Watchdog

log = logging.getLogger(__name__)

MAX_CURVES = 64
"""Image sizes, of one model each, whose curves are kept; the one measured longest ago goes first."""


CAUSES = ("crashed", "stalled", "stuck", "not started", "model failed")
"""Why engines end unasked."""


class Health(StrEnum):
    """What the engine is up to; the value is the `reason` of `/ready`."""

    LOADING = "model loading"
    READY = "ready"
    STALLED = "engine stalled"
    RESTARTING = "engine restarting"
    EXHAUSTED = "engine keeps failing"
    FAILED = "model failed"
    STOPPED = "stopped"


class Listener(Protocol):
    """What a worker tells, and to whom."""

    def said(self, message: Event) -> None:
        """The engine said something about a job, or to everybody."""

    def narrate(self, text: str) -> None:
        """A sentence for people about the engine."""

    def ready(self) -> None:
        """The engine takes jobs."""

    def lost(self, job_ids: Iterable[str], code: str) -> None:
        """The engine died with these jobs; `code` is the error of those that are not tried again."""

    def refuse(self, code: str, message: str) -> None:
        """No engine does a job until one is ready again."""


class Worker:
    """One engine, started again whenever it dies.

    `cancel_timeout`: seconds an engine may take to let a job go; `step_timeout`: those it may be silent at work;
    `load_timeout`: those it may take to load a model besides others; `max_jobs`: how many it works on at once, at most.
    """

    def __init__(
        self,
        target: EngineMain,
        config: Any,
        listener: Listener,
        cancel_timeout: float,
        step_timeout: float,
        load_timeout: float,
        max_jobs: int,
    ) -> None:
        self._target = target
        self._config = config
        self._listener = listener
        self._cancel_timeout = cancel_timeout
        self._max_jobs = max_jobs
        self._watchdog = Watchdog(
            step_timeout, partial(self._stalled, f"did not finish a step within {step_timeout:g} s")
        )
        # It hears nothing: what an engine says while it loads does not make it any faster.
        self._load_watchdog = Watchdog(
            load_timeout, partial(self._stalled, f"did not load a model within {load_timeout:g} s")
        )
        self._backoff = Backoff()
        self._process: EngineProcess | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._condemned = False
        self._stalled_as = ""
        self._in_flight: dict[str, Place] = {}
        self._orders: dict[str, asyncio.Future[Finished | Failed | Cancelled]] = {}
        self._decided = asyncio.Event()
        self._curves: dict[tuple[str, int, int], Curve] = {}
        self.health = Health.LOADING
        self.detail = ""
        self.model: Ready | None = None
        """The model that the engine is started with, once it was loaded."""
        self.known: dict[str, Ready] = {}
        """What is known of models that were loaded, by name; some may be no more."""
        self.loaded: set[str] = set()
        self.loading = ""
        """A model that is being loaded besides others: the engine does nothing else meanwhile."""
        self.pulse = Pulse(0)
        self.deaths = Counter(dict.fromkeys(CAUSES, 0))
        self._before = Pulse(0)
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the engine, while there is one."""
        return self._process.pid if self._process else None

    def takes(self, priority: int, owner: str, model: str = "", pixels: int = 0) -> bool:
        """Whether the engine takes a job of this priority, owner, model and size now.

        `model`, if empty, is the one that it was started with, and `pixels` 0 the model's own size. Jobs of models that
        are not loaded come in for one such model at a time: they are better off in the queue. See `room` for the rest.
        """
        if self.health is not Health.READY or self.model is None or self.loading:
            return False
        wanted = self._place(priority, owner, model or self.model.model, pixels)
        if wanted.model not in self.loaded and self._swapping(wanted):
            return False
        places = [place for place in self._in_flight.values() if place.model == wanted.model]
        known = self.known.get(wanted.model)
        return has_room(places, wanted, known.capacity if known else 1, self._max_jobs)

    @property
    def in_flight(self) -> int:
        """How many jobs the engine has not let go of yet, cancelled ones included."""
        return len(self._in_flight)

    @property
    def done(self) -> Pulse:
        """What all engines of this worker have done, added up."""
        before, now = self._before, self.pulse
        return Pulse(
            before.forwards + now.forwards,
            before.rows + now.rows,
            before.worked + now.worked,
            before.elapsed + now.elapsed,
            now.memory,
        )

    @property
    def curves(self) -> tuple[Curve, ...]:
        """What this engine has measured, each size once, the latest last."""
        return tuple(self._curves.values())

    def start(self) -> None:
        """Start the engine. Takes some milliseconds. No effect once the worker was stopped."""
        if self.health is Health.STOPPED:
            return
        self._restart = None
        self._condemned = False
        self.starts += 1
        try:
            self._process = EngineProcess(self._target, self._config, self._said, self._exited)
        except (OSError, RuntimeError) as error:
            # No memory, no process, no file descriptor to be had: for now, perhaps.
            log.error("the engine cannot be started: %s", error)
            self._exited(None)
        else:
            log.info("engine started, pid %s", self._process.pid)

    def submit(self, work: Generate) -> None:
        """Begin a job; only while `takes` says so."""
        fits = self.takes(work.priority, work.owner, work.model, work.pixels)
        if self._process is None or self.model is None or not fits:
            raise RuntimeError("the engine has no room")
        model = work.model or self.model.model
        self._in_flight[work.job_id] = self._place(work.priority, work.owner, model, work.pixels)
        self._watchdog.watch()
        self._process.send(work)

    def cancel(self, job_id: str) -> None:
        """Stop a job in the engine. An engine that does not let it go in time is replaced."""
        place = self._in_flight.get(job_id)
        if place is not None and place.timer is None and self._process is not None:
            self._process.send(Cancel(job_id))
            self._arm(job_id, place)

    def watch(self, job_id: str, watched: bool) -> None:
        """Somebody watches a job, or nobody any more. No effect on one that is not in the engine."""
        if job_id in self._in_flight and self._process is not None:
            self._process.send(Watch(job_id, watched))

    async def order(self, command: LoadModel | UnloadModel) -> Failed | None:
        """Have the engine load a model or let go of one; returns when it has, or what it failed with.

        To load one, it waits for an engine that is not ready. Who is cancelled meanwhile takes the order back.
        """
        if self.health is not Health.READY and isinstance(command, UnloadModel):
            return None
        while self.health is not Health.READY:
            if self.health is Health.FAILED:
                return Failed(command.job_id, "model_failed", self.detail)
            # When this returns, the engine may have died again.
            await self._decided.wait()
        done = self._orders[command.job_id] = asyncio.get_running_loop().create_future()
        self._send(command)
        try:
            answer = await done
        except asyncio.CancelledError:
            self._send(Cancel(command.job_id))
            raise
        finally:
            self._orders.pop(command.job_id, None)
        return answer if isinstance(answer, Failed) else None

    def forget(self, model: str) -> None:
        """A model is no more, or another has its name. What is loaded stays what it is until it goes."""
        if model not in self.loaded:
            self.known.pop(model, None)

    async def stop(self) -> None:
        """End the engine and start no other. Idempotent."""
        listening = self.health is Health.READY and not self.loading
        self._become(Health.STOPPED)
        if self._restart is not None:
            self._restart.cancel()
        if self._process is not None:
            await self._process.stop(listening)

    def kill(self) -> None:
        """End the engine at once and start no other. Idempotent."""
        self._become(Health.STOPPED)
        if self._process is not None:
            self._process.kill()

    def _said(self, message: Message) -> None:
        of_itself = isinstance(message, Loading | Ready | Unloaded | Fatal)
        if self.health is Health.STOPPED or (self._condemned and of_itself):
            # What an engine says on its way out changes nothing any more. What became of a job still counts.
            return
        self._watchdog.heard()
        match message:
            case Loading(model):
                self._begins_to_load(model)
            case Ready():
                self._has_loaded(message)
            case Unloaded(model):
                self.loaded.discard(model)
                self._works_again(model)
            case Pulse():
                self.pulse = message
            case Curve(width, height):
                self._curves.pop((message.model, width, height), None)
                self._curves[message.model, width, height] = message
                if len(self._curves) > MAX_CURVES:
                    del self._curves[next(iter(self._curves))]
            case Fatal(code, text):
                self.detail = text
                self._become(Health.FAILED)
                log.error("engine cannot work: %s", text)
                self._listener.refuse(code, text)
            case Finished() | Failed() | Cancelled():
                self._ended(message)
            case _:
                self._listener.said(message)  # type: ignore[arg-type]

    def _ended(self, message: Finished | Failed | Cancelled) -> None:
        if message.job_id in self._orders:
            self._answer(message)
            return
        place = self._in_flight.pop(message.job_id, None)
        if place is None:
            # Of an order that was taken back.
            return
        if isinstance(message, Finished):
            self._backoff.worked()
        if place.timer is not None:
            place.timer.cancel()
        if not self._in_flight:
            self._watchdog.rest()
        self._listener.said(message)

    def _begins_to_load(self, model: str) -> None:
        if self.health is Health.READY:
            self.loading = model
            self._watchdog.rest()
            self._load_watchdog.watch()

    def _has_loaded(self, ready: Ready) -> None:
        """A model is there: the first of an engine is the one that it was started with."""
        self.known[ready.model] = ready
        self.loaded.add(ready.model)
        log.info("model ready: %s (%s) on %s, %s", ready.model, ready.family, ready.device, ready.dtype)
        if self.health is not Health.READY:
            self.model = ready
            self._become(Health.READY)
        self._works_again(ready.model)

    def _works_again(self, model: str) -> None:
        """The engine works again, or has more room."""
        if model == self.loading:
            self.loading = ""
            self._load_watchdog.rest()
            for job_id, place in self._in_flight.items():
                self._watchdog.watch()
                if place.timer is not None:
                    self._arm(job_id, place)
        if self.health is Health.READY:
            self._listener.ready()

    def _answer(self, message: Finished | Failed | Cancelled) -> None:
        done = self._orders[message.job_id]
        if not done.done():
            done.set_result(message)

    def _place(self, priority: int, owner: str, model: str, pixels: int) -> Place:
        known = self.known.get(model)
        return Place(priority, owner, model, weight(pixels, known.width * known.height) if known else 1.0)

    def _swapping(self, wanted: Place) -> bool:
        """Whether jobs that are no less urgent wait for another model than this to be loaded."""
        return any(
            place.model not in self.loaded and place.model != wanted.model and place.priority >= wanted.priority
            for place in self._in_flight.values()
        )

    def _send(self, message: Message) -> None:
        if self._process is not None:
            self._process.send(message)

    def _arm(self, job_id: str, place: Place) -> None:
        """Replace the engine unless it lets a job go in time."""
        if place.timer is not None:
            place.timer.cancel()
        place.timer = asyncio.get_running_loop().call_later(self._cancel_timeout, self._stuck, job_id)

    def _stuck(self, job_id: str) -> None:
        if self.loading:
            # It hears nothing before that is done: the time begins anew then.
            return
        log.error("the engine did not let go of %s within %g s; it is replaced", job_id, self._cancel_timeout)
        self._condemn(Health.RESTARTING)

    def _stalled(self, how: str) -> None:
        log.error("the engine %s; it is replaced", how)
        self._stalled_as = how
        self.detail = f"the engine {how}; another is started"
        self._condemn(Health.STALLED)

    def _condemn(self, health: Health) -> None:
        """End the engine. It takes nothing any more, however long it takes to die."""
        self._condemned = True
        self._become(health)
        self._watchdog.rest()
        self._load_watchdog.rest()
        if self._process is not None:
            self._process.kill()

    def _become(self, health: Health) -> None:
        self.health = health
        if health in (Health.READY, Health.FAILED):
            self._decided.set()
        else:
            self._decided.clear()

    def _exited(self, code: int | None) -> None:
        self._process = None
        self._watchdog.rest()
        self._load_watchdog.rest()
        self._before, self.pulse = self.done, Pulse(0)
        self._curves.clear()
        self.loaded.clear()
        self.loading = ""
        stalled = self.health is Health.STALLED
        death = "engine_stalled" if stalled else "engine_crashed"
        for job_id in self._orders:
            self._answer(Failed(job_id, death, "the engine died meanwhile; another is started"))
        lost = list(self._in_flight)
        for place in self._in_flight.values():
            if place.timer is not None:
                place.timer.cancel()
        self._in_flight.clear()
        if self.health is Health.STOPPED:
            log.info("engine ended")
            return
        self.deaths[self._kind(code)] += 1
        if self.health is Health.FAILED:
            # A wrong setting stays wrong; but it may have been a hub, a disk or a GPU that comes back.
            log.info("the model is tried again in %g s", WINDOW)
            self._restart = asyncio.get_running_loop().call_later(WINDOW, self.start)
            return
        # One that we ended over a stuck job says nothing of how the next will fare.
        stuck = self._condemned and not stalled
        delay = 0.0 if stuck else self._backoff.died(time.monotonic())
        cause = self._stalled_as if stalled else _cause(code)
        self._become(Health.EXHAUSTED if self._backoff.exhausted else Health.RESTARTING)
        self.detail = f"the engine {cause}; another is started in {delay:g} s"
        log.error("engine died: %s; another is started in %g s", cause, delay)
        self._restart = asyncio.get_running_loop().call_later(delay, self.start)
        self._listener.lost(lost, death)
        self._listener.narrate(self.detail)

    def _kind(self, code: int | None) -> str:
        """The cause of a death, in one of a few words."""
        if code is None:
            return "not started"
        if self.health is Health.FAILED:
            return "model failed"
        if self.health is Health.STALLED:
            return "stalled"
        return "stuck" if self._condemned else "crashed"


def _cause(code: int | None) -> str:
    if code is None:
        return "could not be started"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
