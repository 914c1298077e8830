"""Errors as the contract's JSON. Pure functions."""

from __future__ import annotations

from dataclasses import asdict
from http.client import responses

import orjson

from rbee_sd.errors import RequestError

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


def error_json(error: RequestError, request_id: str) -> bytes:
    """The body of the answer to a request that failed."""
    fields = [asdict(field) for field in error.fields]
    body = {
        "code": error.code,
        "type": TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
        "message": error.message,
        "param": fields[0]["field"] if fields else None,
        "request_id": request_id,
        "errors": fields,
    }
    return orjson.dumps({"error": body})


def error_of_status(status: int) -> RequestError:
    """The error for a status that Tornado came to by itself."""
    reason = responses.get(status, "error")
    message = "the worker failed on this request; the log has the request id" if status >= 500 else reason
    return RequestError(status, reason.lower().replace(" ", "_"), message)
