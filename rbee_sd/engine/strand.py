"""One image of a job in the making: a pipeline call in a greenlet of its own.

Runs on the engine's main thread. The greenlet lets an unmodified, blocking `pipe(...)` be parked wherever it waits for
something that is shared, woken with the result, and ended by throwing into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from greenlet import greenlet

from rbee_sd.engine.calls import Call, Stage
from rbee_sd.engine.pipeline import Picture


class JobCancelled(BaseException):
    """Thrown into a parked job. No `Exception`, so that no library on the way catches it."""


class Strand:
    """An image that is being made. `paint` makes it, and parks for what is in `wants`."""

    def __init__(self, index: int, paint: Callable[[], Picture], *, priority: int, owner: str, place: int) -> None:
        self.index = index
        self.priority = priority
        self.owner = owner
        self.place = place
        self.begun = False
        self.wants: Call | Stage | None = None
        self.picture: Picture | None = None
        self.error: Exception | None = None
        self._paint = paint
        self._greenlet = greenlet(self._run)

    @property
    def call(self) -> Call:
        """The forward that it waits for; only while it waits for one."""
        if not isinstance(self.wants, Call):
            raise RuntimeError("this image waits for no forward")
        return self.wants

    @property
    def done(self) -> bool:
        """Whether it has its picture, or its error."""
        return bool(self._greenlet.dead)

    def wake(self, result: Any = None) -> None:
        """Give it what it waits for (at first: let it begin), and run it until it waits for the next thing."""
        self.begun = self.begun or isinstance(self.wants, Call)
        self._park(self._greenlet.switch, result)

    def fail(self, error: Exception) -> None:
        """What it waits for has failed."""
        self._park(self._greenlet.throw, error)

    def end(self) -> None:
        """End it where it stands, and let go of all it holds."""
        if self._greenlet:
            self._park(self._greenlet.throw, JobCancelled)
        else:
            # Never switched to: there is nothing to unwind.
            self._greenlet.throw()

    def _park(self, switch: Callable[[Any], Any], what: Any) -> None:
        self.wants = None
        wants = switch(what)
        self.wants = None if self.done else wants

    def _run(self, _: None) -> None:
        try:
            self.picture = self._paint()
        except JobCancelled:
            pass
        except Exception as error:
            self.error = error
