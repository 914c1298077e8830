"""What can be told to whoever asked: one exception for requests, one for settings.

Runs in the front and in the command line. Messages are written for the client: what is wrong and what to do,
never a path, a traceback or a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: which, which rule it broke, and what was sent (shortened)."""

    field: str
    constraint: str
    message: str
    value: Any = None


class RequestError(Exception):
    """This request failed; the worker is well. Raised by operations, jobs and handlers, answered as JSON.

    `status` is the HTTP status, `code` the machine-readable reason, `fields` every wrong field at once.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = tuple(fields)
        self.headers = dict(headers or {})


class StartError(Exception):
    """The worker cannot start as asked: wrong settings, or a port or state folder in use. Ends in exit status 2."""


class SettingsError(StartError):
    """A setting is unknown, of the wrong kind or out of bounds."""
