"""What the engine has done, for the front: forwards, rows, and how much of its time went into the model.

Runs on the engine's main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from rbee_sd.engine.models import Models
from rbee_sd.messages import Message, Pulse

INTERVAL = 0.25
"""Seconds between two messages while it works."""


class Meter:
    """Counts, and tells. Time is counted while there are jobs.

    `working` and `aside` are for `with`: what happens within the first is the work of a model or of a pipeline's own
    code, and what happens within the second, there too, is the engine's own. Sending a message is.
    """

    def __init__(self, models: Models, emit: Callable[[Message], None]) -> None:
        self._models = models
        self._send = emit
        self._told = Pulse(0)
        self._told_at = 0.0
        self._since: float | None = None
        self._elapsed = 0.0
        self._worked = 0.0
        self._at_work = False
        self._turned_at = 0.0
        self.working: AbstractContextManager[None] = _Spell(self, True)
        self.aside: AbstractContextManager[None] = _Spell(self, False)

    def begin(self) -> None:
        """There is a job (again)."""
        if self._since is None:
            self._since = time.monotonic()

    def emit(self, message: Message) -> None:
        """Send a message. However long the front takes to take it, the model does nothing meanwhile."""
        with self.aside:
            self._send(message)

    def turn(self, at_work: bool) -> bool:
        """From now on the model works, or does not; returns which it was until now."""
        now, before = time.monotonic(), self._at_work
        if before:
            self._worked += now - self._turned_at
        self._at_work, self._turned_at = at_work, now
        return before

    def tell(self, *, at_once: bool = False) -> None:
        """Send a message if it has news, and if it is time or must be `at_once`."""
        now = time.monotonic()
        if self._models.forwards != self._told.forwards and (at_once or now - self._told_at >= INTERVAL):
            elapsed = self._elapsed + (now - self._since if self._since is not None else 0.0)
            self._told = Pulse(
                self._models.forwards,
                self._models.rows,
                round(self._worked, 4),
                round(elapsed, 4),
                self._models.memory,
            )
            self._told_at = now
            self._send(self._told)

    def rest(self) -> None:
        """There is no job any more."""
        self.tell(at_once=True)
        if self._since is not None:
            self._elapsed += time.monotonic() - self._since
            self._since = None


class _Spell(AbstractContextManager[None]):
    """Turns the meter, and back. A class, since a generator would take several times as long, many times a step."""

    def __init__(self, meter: Meter, at_work: bool) -> None:
        self._meter = meter
        self._at_work = at_work
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(self._meter.turn(self._at_work))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meter.turn(self._before.pop())
