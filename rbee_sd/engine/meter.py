"""What the engine has done, for the front: forwards, rows, and how much of its time went into the model.

Runs on the engine's main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rbee_sd.engine.models import Models
from rbee_sd.messages import Message, Pulse

INTERVAL = 0.25
"""Seconds between two messages while it works."""


class Meter:
    """Counts, and tells. Time is counted while there are jobs."""

    def __init__(self, models: Models, emit: Callable[[Message], None]) -> None:
        self._models = models
        self._emit = emit
        self._told = Pulse(0)
        self._told_at = 0.0
        self._since: float | None = None
        self._elapsed = 0.0
        self._worked = 0.0

    def begin(self) -> None:
        """There is a job (again)."""
        if self._since is None:
            self._since = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """What happens in here is work of the model."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._worked += time.monotonic() - began

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
            self._emit(self._told)

    def rest(self) -> None:
        """There is no job any more."""
        self.tell(at_once=True)
        if self._since is not None:
            self._elapsed += time.monotonic() - self._since
            self._since = None
