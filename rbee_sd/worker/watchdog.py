"""The watchdog: notices that an engine which has work says nothing any more.

Owned by the front's IOLoop thread; does not block. Time in which the front itself stood still (a stopped process
group, a suspended machine) does not count: nobody could have heard anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK = 1.0
"""Seconds between looks; a quarter of the patience, when that is less."""


class Watchdog:
    """Calls `bark` once when nothing was heard for `patience` seconds."""

    def __init__(self, patience: float, bark: Callable[[], None]) -> None:
        self._patience = patience
        self._bark = bark
        self._tick = min(TICK, patience / 4)
        self._silence = 0.0
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """There is work. No effect while it watches."""
        if self._timer is None:
            self._silence = 0.0
            self._wait()

    def heard(self) -> None:
        """The engine said something."""
        self._silence = 0.0
        if self._timer is not None:
            self._looked = asyncio.get_running_loop().time()

    def rest(self) -> None:
        """There is no work, or no engine. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._looked = loop.time()
        self._timer = loop.call_later(self._tick, self._look)

    def _look(self) -> None:
        self._silence += min(asyncio.get_running_loop().time() - self._looked, 2 * self._tick)
        if self._silence < self._patience:
            self._wait()
        else:
            self._timer = None
            self._bark()
