"""The event log: an append-only list of numbered events, and cursors that read it.

Owned by the front's IOLoop thread; nothing here blocks. A listener is a cursor, not a queue: it holds a number
and, while it waits, one future. So many listeners, late ones and resumption cost nothing extra, each event is
serialised once, and a slow listener cannot grow memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it will be sent: its name and its data, already JSON."""

    name: str
    data: bytes


class EventLog:
    """Events numbered from `first`. With a `limit` only the newest are kept."""

    def __init__(self, first: int = 1, limit: int | None = None) -> None:
        self._first = first
        self._events: deque[Event] = deque(maxlen=limit)
        self._cursors: set[Cursor] = set()
        self.closed = False

    @property
    def first(self) -> int:
        """Number of the oldest event kept (or of the next one, while there is none)."""
        return self._first

    @property
    def last(self) -> int:
        """Number of the newest event; `first - 1` while there is none."""
        return self._first + len(self._events) - 1

    def append(self, event: Event) -> None:
        """Add an event and wake every listener."""
        if self.closed:
            raise RuntimeError("append to a closed event log")
        if len(self._events) == self._events.maxlen:
            self._first += 1
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """No event will follow. Idempotent."""
        self.closed = True
        self._wake()

    def after(self, number: int) -> list[tuple[int, Event]]:
        """The events behind `number`, each with its own number."""
        start = max(number + 1, self._first)
        return list(enumerate(islice(self._events, start - self._first, None), start))

    def open(self, after: int | None = None) -> Cursor:
        """A cursor that reads on behind event `after`; None reads from the oldest kept."""
        cursor = Cursor(self, self._first - 1 if after is None else after)
        self._cursors.add(cursor)
        return cursor

    def discard(self, cursor: Cursor) -> None:
        """Forget a cursor."""
        self._cursors.discard(cursor)

    def _wake(self) -> None:
        for cursor in tuple(self._cursors):
            cursor.wake()


class Cursor:
    """One listener's place in a log."""

    __slots__ = ("_log", "_place", "_waiter", "closed")

    def __init__(self, log: EventLog, place: int) -> None:
        self._log = log
        self._place = place
        self._waiter: asyncio.Future[bool] | None = None
        self.closed = False

    def take(self) -> list[tuple[int, Event]]:
        """The events not yet taken, with their numbers."""
        events = self._log.after(self._place)
        if events:
            self._place = events[-1][0]
        return events

    @property
    def exhausted(self) -> bool:
        """Whether the log is closed and everything in it was taken."""
        return self._log.closed and self._place >= self._log.last

    async def wait(self, timeout: float) -> bool:
        """Wait until there is something to take or to end for; False when `timeout` seconds passed instead."""
        if self.closed or self._log.closed or self._place < self._log.last:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_later(timeout, self._answer, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def wake(self) -> None:
        """End a wait in progress."""
        self._answer(True)

    def _answer(self, woken: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(woken)

    def close(self) -> None:
        """The listener has gone. Idempotent."""
        self.closed = True
        self._log.discard(self)
        self.wake()
