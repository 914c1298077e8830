"""What a client raises. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: which, which rule it broke, and what was sent (shortened)."""

    field: str
    constraint: str
    message: str
    value: Any = None


class ClientError(Exception):
    """Base of all that a client raises. `status` is the HTTP status, None where there is none."""

    status: int | None = None


class NoAnswerError(ClientError):
    """Nothing answers there, or nothing that is a worker, or the connection was lost for too long."""


class ApiError(ClientError):
    """The worker refused. `fields` are all wrong fields, `retry_after` the seconds after which to try again, if told.

    `code` is one of those in docs/api.md, empty where something before the worker has answered; with `request_id` the
    worker's log tells more.
    """

    def __init__(self, answer: httpx2.Response) -> None:
        try:
            body = answer.json()["error"]
            message, code, kind = str(body["message"]), str(body["code"]), str(body["type"])
        except (ValueError, KeyError, TypeError):
            body, code, kind = {}, "", ""
            message = f"the worker answered {answer.status_code}"
        super().__init__(message)
        self.status: int = answer.status_code
        self.code = code
        self.type = kind
        self.param: str | None = body.get("param")
        self.request_id: str | None = body.get("request_id")
        self.fields = tuple(
            FieldError(each.get("field", ""), each.get("constraint", ""), each.get("message", ""), each.get("value"))
            for each in body.get("errors") or ()
        )
        self.retry_after = retry_after(answer)


class JobError(ClientError):
    """A job ended without what was asked for."""

    def __init__(self, job_id: str, message: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailedError(JobError):
    """The job ended with an error. `code` is one of those of `error` events in docs/api.md."""

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(job_id, message)
        self.code = code


class JobCancelledError(JobError):
    """The job was cancelled. `reason` says by what: `requested` or `disconnected`."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(job_id, "the job was cancelled")
        self.reason = reason


def retry_after(answer: httpx2.Response) -> float | None:
    """The seconds in `Retry-After`; None without one, and for a date, which we never send."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None
