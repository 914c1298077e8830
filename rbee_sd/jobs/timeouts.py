"""How long jobs have run, against how long they may.

Owned by the front's IOLoop thread; does not block. Time in which the process itself stood still (a stopped process
group, a suspended machine) does not count: the engine stood still with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK = 0.25
"""Seconds between looks; a job may run as much longer."""


class Timeouts:
    """Calls `expired` once with each key whose time is up."""

    def __init__(self, expired: Callable[[str], None]) -> None:
        self._expired = expired
        self._left: dict[str, float] = {}
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, key: str, seconds: float) -> None:
        """Its time begins, anew if it had begun."""
        if self._timer is None:
            self._left[key] = seconds
            self._wait()
        else:
            # At the next look, what has passed already is taken off again.
            self._left[key] = seconds + self._passed()

    def end(self, key: str) -> None:
        """Its time does not matter any more. Idempotent."""
        self._left.pop(key, None)
        if not self._left and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        """No time matters any more. Idempotent."""
        for key in tuple(self._left):
            self.end(key)

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._looked = loop.time()
        self._timer = loop.call_later(min(TICK, *self._left.values()), self._look)

    def _passed(self) -> float:
        return min(asyncio.get_running_loop().time() - self._looked, 2 * TICK)

    def _look(self) -> None:
        self._timer = None
        passed = self._passed()
        for key in self._left:
            self._left[key] -= passed
        for key in [key for key, left in self._left.items() if left <= 0]:
            del self._left[key]
            self._expired(key)
        if self._left and self._timer is None:
            self._wait()
