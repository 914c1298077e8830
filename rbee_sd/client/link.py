"""What a client knows of its worker, and when it asks again. No socket, no thread, no waiting: both clients use it.

A call is asked again where an answer was lost on the way, also where nothing answers any more though something did
before: it may be that the worker is being started again. It is asked with growing pauses, until `patience` is over.
"""

from __future__ import annotations

import random
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2

from rbee_sd import __version__
from rbee_sd.client.errors import ApiError, NoAnswerError

TIMEOUT = 30.0
"""Seconds without a byte before a connection is given up; streams send a heartbeat every 10 s or less."""
PATIENCE = 60.0
LEAVING = 5.0
"""Seconds for the last word to a worker."""
SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
LOST = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError)
"""What may come of a connection to a worker that ends."""
NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout)
AWAY = (502, 504)
"""What a proxy answers while the worker is away."""
BUSY = (429, 503)
"""What the worker answers that begins, ends, or has not yet noticed that the connection before is lost."""
ERRORS = (httpx2.HTTPError, httpx2.InvalidURL)
"""All that a call can raise."""


class Link:
    """The worker at `url`. `patience`: seconds of trying again. Raises `NoAnswerError` for what is no URL."""

    def __init__(self, url: str, api_key: str, patience: float) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise NoAnswerError(f"{url[:100]} is no address of a worker; one looks like http://127.0.0.1:8600")
        if not (api_key.isascii() and api_key.isprintable()):
            raise NoAnswerError("the API key holds characters that no key has")
        self.url = url
        self.patience = patience
        self.answered = False
        self._api_key = api_key

    def options(self) -> dict[str, Any]:
        """For the HTTP client of httpx2, either of them."""
        headers = {"User-Agent": f"rbee-sd/{__version__}"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        # A proxy of the environment is for the internet, not for a worker.
        return {"base_url": self.url, "headers": headers, "timeout": TIMEOUT, "trust_env": False}

    def healthy(self, outcome: httpx2.Response | Exception) -> bool:
        """Whether what came of asking /health is the answer of a worker. Raises `NoAnswerError` for another's."""
        if isinstance(outcome, httpx2.ConnectError):
            return False
        if isinstance(outcome, Exception):
            text = f"{self.url} does not answer like a worker ({type(outcome).__name__})"
            raise NoAnswerError(text) from outcome
        if outcome.status_code != 200 or b'"healthy"' not in outcome.content:
            raise NoAnswerError(f"what answers at {self.url} is not an rbee-sd worker")
        self.answered = True
        return True


class Attempts:
    """The attempts at one call: whether what came of one was the last."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tries = 0
        self._failing_since = 0.0

    def answered(self, answer: httpx2.Response) -> float | None:
        """None to take this answer; else the seconds after which to ask again. Raises `ApiError`."""
        if answer.is_success:
            self._link.answered = True
            return None
        error = ApiError(answer)
        if self._expected and (answer.status_code in AWAY or (self._tries and answer.status_code in BUSY)):
            return max(self._pause(error), error.retry_after or 0.0)
        raise error

    def failed(self, error: Exception) -> float:
        """The seconds after which to ask again, since no answer came. Raises `NoAnswerError`."""
        told = NoAnswerError(f"no answer from {self._link.url} ({type(error).__name__})")
        # Nothing was sent, and nothing was ever there: whoever called wants to know at once.
        if not isinstance(error, LOST) or (isinstance(error, NOT_CONNECTED) and not self._expected):
            raise told from error
        return self._pause(told)

    def cut_off(self) -> float:
        """Seconds after which to ask again for the rest of an answer that ended too early. Raises `NoAnswerError`."""
        return self._pause(NoAnswerError(f"the answer of {self._link.url} ends too early"))

    def went_well(self) -> None:
        """The call has got somewhere, so that the next failure is a first one."""
        self._tries = 0

    @property
    def _expected(self) -> bool:
        """Whether there is reason to think that a worker should be there."""
        return self._link.answered or self._tries > 0

    def _pause(self, otherwise: Exception) -> float:
        now = time.monotonic()
        if self._tries == 0:
            self._failing_since = now
        if now - self._failing_since >= self._link.patience:
            raise otherwise
        longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(self._tries, 10))
        self._tries += 1
        # Clients that lose a worker lose it together; they should not all come back at the same moment.
        return random.uniform(longest / 2, longest)  # noqa: S311
