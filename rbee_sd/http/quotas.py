"""How much one client may ask for: requests a second, and streams at a time. Front process, IOLoop thread.

A client is who `owner` says: a key's name, or an address. Requests are measured by a token bucket for each client that
has not been quiet; a bucket holds ten seconds' worth.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable

from rbee_sd.errors import RequestError

BURST = 10.0
"""Seconds' worth of requests that may come at once."""
CLIENTS = 10_000
"""Buckets that are kept; the one unused for longest goes first."""


class Quotas:
    """`rate` in requests a second, `streams` at a time, for each client; 0 bounds nothing. `clock` gives seconds."""

    def __init__(self, rate: float, streams: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = max(1.0, rate * BURST)
        self._streams = streams
        self._clock = clock
        # What is left in a bucket, and when that was so.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._open: Counter[str] = Counter()

    def request(self, owner: str) -> None:
        """Count a request. Raises 429 `too_many_requests` with the time after which there is room for another."""
        if not self._rate:
            return
        now = self._clock()
        left, then = self._buckets.pop(owner, (self._most, now))
        left = min(self._most, left + (now - then) * self._rate)
        allowed = left >= 1
        self._buckets[owner] = (left - allowed, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = math.ceil((1 - left) / self._rate)
            raise RequestError(
                429,
                "too_many_requests",
                f"this worker takes {self._rate:g} requests a second of one client; try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )

    def enter(self, owner: str) -> None:
        """A stream begins; every one that was let in must `leave`. Raises 429 `too_many_streams`."""
        if self._streams and self._open[owner] >= self._streams:
            raise RequestError(
                429,
                "too_many_streams",
                f"this worker keeps {self._streams} streams open for one client; /v1/events is one for all jobs",
                headers={"Retry-After": "5"},
            )
        self._open[owner] += 1

    def leave(self, owner: str) -> None:
        """A stream has ended."""
        self._open[owner] -= 1
        if not self._open[owner]:
            del self._open[owner]
