"""The models that the engine has loaded, in the order in which they were last used.

Runs on the engine's main thread; `load` blocks it until the model is there. Knows no torch: what loads models, weighs
them and gives memory back is its `Supply`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from rbee_sd.engine.pipeline import DeviceLostError, ModelError, Pipeline
from rbee_sd.messages import Loading, Message, Unloaded

log = logging.getLogger(__name__)

FAILURE_LASTS = 60.0
"""Seconds in which a model that could not be loaded is not tried again: each try holds up everybody else's jobs."""

Tell = Callable[[str], None]
"""Says a sentence to those whom the loading of a model concerns."""


class Supply(Protocol):
    """Where models come from, and what room there is for them."""

    def open(self, name: str, source: str) -> Pipeline:
        """Load a model. Raises `ModelError`, and `MemoryError` when there is no room for it."""

    def weigh(self, source: str) -> int:
        """About how many bytes a model needs; 0 where that cannot be known."""

    def free(self) -> int | None:
        """Bytes of the device that another model may have; None: any number."""

    def settle(self) -> None:
        """Models came or went: give back what they no longer need."""

    def is_full(self, error: Exception) -> bool:
        """Whether something failed with `error` because there was not enough memory."""


@dataclass(slots=True)
class Held:
    """A loaded model. `size` in bytes; `since` when (monotonic clock), and how many seconds it `took`."""

    pipeline: Pipeline
    size: int
    since: float
    took: float


class Models:
    """Loaded models by name. `default` is the one that the engine was started with.

    `most` may be loaded at once, as far as memory allows; 0: any number.
    """

    def __init__(self, supply: Supply, emit: Callable[[Message], None], default: str, most: int = 0) -> None:
        self.default = default
        self._supply = supply
        self._emit = emit
        self._most = most
        self._held: dict[str, Held] = {}
        self._weights: dict[str, int] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._gone = (0, 0)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def use(self, name: str) -> Pipeline:
        """A loaded model, for a job: from now on it is the one used last. Raises `KeyError`."""
        held = self._held[name] = self._held.pop(name)
        return held.pipeline

    @property
    def forwards(self) -> int:
        """How many forwards were done, by those that have gone too."""
        return self._gone[0] + sum(held.pipeline.forwards for held in self._held.values())

    @property
    def rows(self) -> int:
        """How many rows they had, together."""
        return self._gone[1] + sum(held.pipeline.rows for held in self._held.values())

    @property
    def memory(self) -> int:
        """Bytes of the device that this process holds; 0 on a CPU."""
        return max((held.pipeline.memory for held in self._held.values()), default=0)

    def settled_in(self, name: str) -> bool:
        """Whether a model has been there for as long as it took to load: before, swapping it would not pay."""
        held = self._held[name]
        return time.monotonic() - held.since >= held.took

    def failure(self, name: str) -> str:
        """Why a model could not be loaded a moment ago, and is not tried again yet; empty if it may be tried."""
        until, text = self._failed.get(name, (0.0, ""))
        return text if time.monotonic() < until else ""

    def outgoing(self, name: str, source: str, busy: Collection[str]) -> list[str]:
        """The models that must go before this one is loaded: least recently used first, and the `busy` last of all.

        All of them when it may not fit even then: it is tried nevertheless.
        """
        wanted = self._weights.get(name) or self._supply.weigh(source)
        free = self._supply.free()
        going: list[str] = []
        # Sorting is stable: within the idle, and within the busy, the order in which they were used stays.
        for each in sorted(self._held, key=lambda other: other in busy):
            if self._fits(wanted, free, going):
                break
            going.append(each)
        return going

    def load(self, name: str, source: str, going: Collection[str], busy: Collection[str], tell: Tell) -> None:
        """Load a model once those `going` have gone. Out of memory, all that are not `busy` go. Raises `ModelError`."""
        if text := self.failure(name):
            raise ModelError(text)
        self._emit(Loading(name))
        tell(_sentence(name, going))
        self._drop(going)
        try:
            held = self._open(name, source, tell)
            idle = self._idle(busy)
            if held is None and idle:
                tell(_sentence(name, idle))
                self._drop(idle)
                held = self._open(name, source, tell)
            if held is None:
                raise ModelError(f"there is not enough memory for the model {name}")
        except ModelError as error:
            self._failed[name] = time.monotonic() + FAILURE_LASTS, str(error)
            self._emit(Unloaded(name))
            raise
        finally:
            self._supply.settle()
        self._weights[name] = held.size
        self._held[name] = held

    def forgive(self, name: str) -> None:
        """Try a model again that could not be loaded."""
        self._failed.pop(name, None)

    def relieve(self, error: Exception, busy: Collection[str]) -> bool:
        """If a job's work failed for want of memory, let go of all models that are not `busy`. Whether any went."""
        idle = self._idle(busy)
        if not idle or not self._supply.is_full(error):
            return False
        log.warning("out of memory; %s unloaded to make room", ", ".join(idle))
        self._drop(idle)
        return True

    def unload(self, name: str) -> None:
        """Let go of a loaded model that no job works with."""
        self._drop([name])

    def _idle(self, busy: Collection[str]) -> list[str]:
        return [each for each in self._held if each not in busy]

    def _drop(self, names: Collection[str]) -> None:
        for name in names:
            pipeline = self._held.pop(name).pipeline
            self._gone = self._gone[0] + pipeline.forwards, self._gone[1] + pipeline.rows
            del pipeline
            log.info("model %s unloaded", name)
            self._emit(Unloaded(name))
        if names:
            self._supply.settle()

    def _fits(self, wanted: int, free: int | None, going: list[str]) -> bool:
        if self._most and len(self._held) - len(going) >= self._most:
            return False
        return free is None or wanted <= free + sum(self._held[each].size for each in going)

    def _open(self, name: str, source: str, tell: Tell) -> Held | None:
        """The model, measured and told of; None when there is no room for it."""
        began = time.monotonic()
        try:
            pipeline = self._supply.open(name, source)
            tell("measuring how many pictures it makes at once")
            curve = pipeline.warm_up()
            size, ready = pipeline.size, pipeline.describe()
        except MemoryError:
            log.warning("there is not enough memory for the model %s", name)
            return None
        except (ModelError, DeviceLostError):
            raise
        except Exception as error:
            # It must not end the engine, which would meet the same again with the job's next attempt.
            log.exception("cannot load %s", name)
            kind = type(error).__name__
            raise ModelError(f"the model {name} cannot be loaded ({kind}); the worker's log says more") from error
        self._emit(ready)
        if curve is not None:
            self._emit(curve)
        now = time.monotonic()
        return Held(pipeline, size, now, now - began)


class _Nothing:
    """A `Supply` that has no models."""

    def open(self, name: str, source: str) -> Pipeline:
        raise ModelError(f"there is no model {name}")

    def weigh(self, source: str) -> int:
        return 0

    def free(self) -> int | None:
        return None

    def settle(self) -> None:
        pass

    def is_full(self, error: Exception) -> bool:
        return False


def only(pipeline: Pipeline, emit: Callable[[Message], None]) -> Models:
    """A model that is loaded already, and no other: for benchmarks and tests."""
    models = Models(_Nothing(), emit, "")
    models._held[""] = Held(pipeline, 0, 0.0, 0.0)
    return models


def _sentence(name: str, going: Collection[str]) -> str:
    if not going:
        return f"loading model {name}"
    verb = "is" if len(going) == 1 else "are"
    return f"loading model {name}; {', '.join(going)} {verb} unloaded to make room"
