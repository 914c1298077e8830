"""Errors as the contract's JSON. Pure functions."""

from __future__ import annotations

from dataclasses import asdict
from http.client import responses

import orjson

from rbee_sd.errors import RequestError

MEANINGS = {
    400: "`invalid_json`: not one JSON object. `invalid_request`: wrong fields, all of them named. "
    "`unsupported_operation`: not one that this worker does.",
    401: "`invalid_api_key`: the key is missing or wrong.",
    403: "`host_not_allowed`: the `Host` is none of the worker's. `origin_not_allowed`: a page of another origin asks.",
    404: "`not_found`, `job_not_found`, `image_not_found`: there is no such thing.",
    409: "`idempotency_conflict`: the key was used with another body. `job_unfinished`: its images come later. "
    "`job_cancelled`: somebody cancelled the job of this request.",
    410: "`job_expired`, `image_gone`: it was here once.",
    413: "`body_too_large`: refused before it is read.",
    415: "`not_json`, `encoded_body`: send plain JSON in UTF-8.",
    429: "`too_many_requests`, `too_many_streams`, `too_many_jobs`: more than one client may ask for.",
    503: "`queue_full`, `draining`, `storage_unavailable`: not now.",
}
"""What the document says of each status, with the codes it comes with."""
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
