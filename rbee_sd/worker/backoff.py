"""How long to wait before an engine that died is started again. Pure arithmetic, no clock of its own."""

from __future__ import annotations

DELAYS = (0.0, 1.0, 1.0, 2.0, 3.0)
WINDOW = 300.0


class Backoff:
    """Remembers deaths within the last `WINDOW` seconds. The caller passes the monotonic clock."""

    def __init__(self) -> None:
        self._deaths: list[float] = []

    def died(self, now: float) -> float:
        """Count a death; returns the seconds to wait before the next start."""
        self._deaths = [death for death in self._deaths if now - death < WINDOW] + [now]
        if self.exhausted:
            return WINDOW
        return DELAYS[len(self._deaths) - 1]

    def worked(self) -> None:
        """It did what it is there for: the deaths before say nothing of how the next start will fare."""
        self._deaths.clear()

    @property
    def exhausted(self) -> bool:
        """Whether it died so often that another start at once would be of no use."""
        return len(self._deaths) > len(DELAYS)
