"""How soon and how large: what is measured while the chaos lasts. One event loop; nothing here blocks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from rbee_sd.bench.measure import percentile

SAMPLES_A_LIFE = 40
"""Of a front's size, before it can be said whether it grows."""
LARGEST_FRONT = 250_000_000
"""Bytes."""
LARGEST_GROWTH = 20_000_000
"""Bytes, of a front that lived for long, from its second quarter to its last."""
GONE_WITHIN = 1.0
"""Seconds until the engine of a front that was killed has gone."""
TOLD_WITHIN = 1.0
"""Seconds until the listeners know that the engine has died."""


class Measures:
    """Written by the faults, the clients and the probe. Durations are seconds, sizes bytes."""

    def __init__(self) -> None:
        self.engine_gone: list[float] = []
        """From the death of a front to that of its engine."""
        self.told: list[float] = []
        """From the death of an engine until a listener hears of it."""
        self.health: list[float] = []
        """Answers of `/health`, while nobody stops or kills the front itself."""
        self.engine_size = 0
        self._front_sizes: dict[int, list[int]] = {}
        self._died: float | None = None

    def engine_died(self) -> None:
        """An engine is killed just now."""
        self._died = time.monotonic()

    def disturbed(self) -> None:
        """The front is killed or stopped just now: what its listeners are told is late for that reason."""
        self._died = None

    def heard(self, since: float, before: float) -> float:
        """A listener who has listened since then is told that something is wrong with the engine.

        Returns the death that this was news of; `before` is the one that the same listener had heard of already.
        """
        died = self._died
        if died is None or died == before or since > died:
            return before
        self.told.append(time.monotonic() - died)
        return died

    def front_size(self, life: int, size: int) -> None:
        """The front that was started as number `life` has this size."""
        self._front_sizes.setdefault(life, []).append(size)

    def wrong(self) -> Iterator[str]:
        """What has grown out of bounds."""
        largest = self._largest_front()
        if largest > LARGEST_FRONT:
            yield f"the front grew to {largest // 1_000_000} MB"
        growth = self._growth()
        if growth is not None and growth > LARGEST_GROWTH:
            yield f"the front did not stop growing: by {growth // 1_000_000} MB from its second quarter to its last"

    def lines(self) -> Iterator[str]:
        """The report."""
        yield f"largest: front {self._largest_front() // 1_000_000} MB, engine {self.engine_size // 1_000_000} MB"
        growth = self._growth()
        if growth is not None:
            yield f"growth of the front that lived longest, second to last quarter: {growth / 1e6:.1f} MB"
        for name, seconds, unit, factor in (
            (f"death of the front to that of its engine (aim {GONE_WITHIN:g} s)", self.engine_gone, "s", 1),
            (f"death of the engine to its listeners (aim {TOLD_WITHIN:g} s)", self.told, "s", 1),
            ("/health (aim p99 50 ms)", self.health, "ms", 1000),
        ):
            if seconds:
                median, p99, worst = (
                    f"{factor * value:.3g} {unit}"
                    for value in (statistics.median(seconds), percentile(seconds, 99), max(seconds))
                )
                yield f"{name}: p50 {median}, p99 {p99}, worst {worst}, of {len(seconds)}"

    def _largest_front(self) -> int:
        return max((max(sizes) for sizes in self._front_sizes.values()), default=0)

    def _growth(self) -> int | None:
        sizes = max(self._front_sizes.values(), key=len, default=[])
        if len(sizes) < SAMPLES_A_LIFE:
            return None
        quarter = len(sizes) // 4
        return int(statistics.median(sizes[-quarter:]) - statistics.median(sizes[quarter : 2 * quarter]))
