"""Errors as OpenAI's clients read them. Pure functions.

Its package sends a request again, by itself, after 409, 429 and 5xx, unless `x-should-retry` says not to. Where our own
error says when to come back, that is right; anything else would do a job twice, or fail twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.http.errors import TYPES
from rbee_sd.http.openai.requests import CANNOT, NAMES
from rbee_sd.operations.body import invalid

STATUS = {"queue_full": 429}
"""Which of our errors have another status there."""
CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
"""What is wrong with a field, in its words; `invalid_value` for the rest."""


def as_openai(error: RequestError) -> RequestError:
    """An error with the status and the headers that OpenAI's clients understand."""
    status = STATUS.get(error.code, error.status)
    headers = error.headers if "Retry-After" in error.headers else error.headers | {"X-Should-Retry": "false"}
    return RequestError(status, error.code, error.message, fields=error.fields, headers=headers)


def envelope(error: RequestError) -> bytes:
    """The body of the answer to a request that failed."""
    return orjson.dumps({"error": contents(error)})


def contents(error: RequestError) -> dict[str, str | None]:
    """What is in the envelope, here and in a stream."""
    first = error.fields[0] if error.fields else None
    code = CODES.get(first.constraint, "invalid_value") if first and error.code == "invalid_request" else error.code
    kind = TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {
        "message": error.message,
        "type": "rate_limit_error" if error.status == 429 else kind,
        # `request` is what our own errors call all fields together.
        "param": first.field if first and first.field != "request" else None,
        "code": code,
    }


def renamed(error: RequestError) -> RequestError:
    """An error of our own API about the fields that became of a request, with the names that were sent."""
    if error.code != "invalid_request":
        return error
    # Width and height are one field here, and mostly wrong in the same way.
    fields = {(_theirs(field.field), field.message): field for field in error.fields}
    return invalid([replace(field, field=name) for (name, _), field in fields.items()])


def explained(fields: Sequence[FieldError]) -> RequestError:
    """Unknown fields that OpenAI has are told apart from those that nobody has."""
    return invalid([replace(field, message=CANNOT.get(field.field, field.message)) for field in fields])


def _theirs(name: str) -> str:
    first, dot, rest = name.partition(".")
    return NAMES.get(first, first) + dot + rest
