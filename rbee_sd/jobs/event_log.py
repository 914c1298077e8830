"""The event log: a list of numbered events that grows at its end, and cursors that read it.

Owned by the front's IOLoop thread; nothing here blocks. A listener is a cursor, not a queue: it holds a number
and, while it waits, one future. So many listeners, late ones and resumption cost nothing extra, each event is
serialised once, and a slow listener cannot grow memory. What has become worthless (a preview, once there is a newer
one) can be dropped; its number is not given again, so the others keep theirs.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it will be sent: its name and its data, already JSON."""

    name: str
    data: bytes


class EventLog:
    """Events numbered from `first`. With a `limit` only the newest are kept."""

    def __init__(self, first: int = 1, limit: int | None = None) -> None:
        self._limit = limit
        self._last = first - 1
        # Two lists in step: the numbers rise, with gaps where events were dropped.
        self._numbers: list[int] = []
        self._events: list[Event] = []
        self._cursors: set[Cursor] = set()
        self.closed = False

    @classmethod
    def whole(cls, events: list[tuple[int, Event]]) -> EventLog:
        """A closed log of numbered events."""
        log = cls()
        log._numbers = [number for number, _ in events]
        log._events = [event for _, event in events]
        log._last = log._numbers[-1] if events else 0
        log.closed = True
        return log

    @property
    def first(self) -> int:
        """Number of the oldest event kept (or of the next one, while there is none)."""
        return self._numbers[0] if self._numbers else self._last + 1

    @property
    def last(self) -> int:
        """Number of the newest event, also when it was dropped; one less than the first while there was none."""
        return self._last

    def append(self, event: Event) -> int:
        """Add an event and wake every listener; returns its number."""
        if self.closed:
            raise RuntimeError("append to a closed event log")
        if len(self._events) == self._limit:
            del self._numbers[0], self._events[0]
        self._last += 1
        self._numbers.append(self._last)
        self._events.append(event)
        self._wake()
        return self._last

    def drop(self, number: int) -> None:
        """Take an event out again; who has not read it will not. No effect on one that is not kept any more."""
        if number in self:
            place = bisect_left(self._numbers, number)
            del self._numbers[place], self._events[place]

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self._numbers, number)
        return place < len(self._numbers) and self._numbers[place] == number

    def close(self) -> None:
        """No event will follow. Idempotent."""
        self.closed = True
        self._wake()

    def after(self, number: int) -> list[tuple[int, Event]]:
        """The events behind `number`, each with its own number."""
        start = bisect_right(self._numbers, number)
        return list(zip(self._numbers[start:], self._events[start:], strict=True))

    def reaches_beyond(self, number: int) -> bool:
        """Whether there is any event behind `number`."""
        return bool(self._numbers) and self._numbers[-1] > number

    def open(self, after: int | None = None) -> Cursor:
        """A cursor that reads on behind event `after`; None reads from the oldest kept."""
        cursor = Cursor(self, self.first - 1 if after is None else after)
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

    def kept(self, number: int) -> bool:
        """Whether an event that was taken is still in the log: else it is not worth sending any more."""
        return number in self._log

    @property
    def exhausted(self) -> bool:
        """Whether the log is closed and everything in it was taken."""
        return self._log.closed and not self._log.reaches_beyond(self._place)

    async def wait(self, timeout: float) -> bool:
        """Wait until there is something to take or to end for; False when `timeout` seconds passed instead."""
        if self.closed or self._log.closed or self._log.reaches_beyond(self._place):
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
