"""Where the reading of a stream is: what has come, and with what to ask for the rest. No socket, no waiting.

It ends with the job's last event, or never, for the stream of all jobs.
"""

from __future__ import annotations

import time

import httpx2
import orjson

from rbee_sd.client.errors import NoAnswerError
from rbee_sd.client.events import TERMINAL, Event, event_of
from rbee_sd.client.link import Attempts, Link

DONE = "[DONE]"
SETTLED = 5.0
"""Seconds that a stream was open after which it counts as having worked, whatever came."""


class Reading:
    """The reading of one stream behind the event `after`, over any number of connections."""

    def __init__(self, link: Link, path: str, *, after: str, endless: bool) -> None:
        self.path = path
        self._done = False
        self._link = link
        self._last = after
        self._endless = endless
        self._attempts = Attempts(link)
        self._opened_at = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """For the next connection."""
        return {"Last-Event-ID": self._last} if self._last else {}

    def done(self) -> bool:
        """Whether all of it has come."""
        return self._done

    def opened(self, answer: httpx2.Response) -> float | None:
        """None to read it; else the seconds after which to open it again. Raises `ClientError`."""
        pause = self._attempts.answered(answer)
        self._opened_at = time.monotonic()
        # All of it has been read already.
        self._done = answer.status_code == 204
        return pause

    def take(self, frame: httpx2.ServerSentEvent) -> Event | None:
        """The event in a frame, None for one that is none. Raises `NoAnswerError` for nonsense."""
        if not frame.data:
            return None
        self._attempts.went_well()
        if frame.data == DONE:
            self._done = not self._endless
            return None
        try:
            data = orjson.loads(frame.data)
            event = event_of(frame.id, str(data["event"]), data)
        except (ValueError, KeyError, TypeError) as error:
            raise NoAnswerError(f"{self._link.url} does not answer like a worker") from error
        self._last = frame.id
        self._done = not self._endless and isinstance(event, TERMINAL)
        return event

    def failed(self, error: Exception) -> float:
        """The seconds after which to open it again, since it could not be opened or was lost. Raises `ClientError`."""
        self._was_open()
        return self._attempts.failed(error)

    def ended(self) -> float:
        """The same, since it ended, as a worker's streams do when that is stopped."""
        self._was_open()
        return self._attempts.cut_off()

    def _was_open(self) -> None:
        if self._opened_at and time.monotonic() - self._opened_at > SETTLED:
            self._attempts.went_well()
        self._opened_at = 0.0
