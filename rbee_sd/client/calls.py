"""The calls of a worker's API, as data: what is sent, and what the answer means. No socket, no waiting."""

from __future__ import annotations

import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from rbee_sd.client.errors import NoAnswerError
from rbee_sd.client.results import Submitted

URL = "http://127.0.0.1:8600"
"""Where a worker listens unless told otherwise."""
HEALTH = "/health"
JOBS = "/v1/jobs"
EVENTS = "/v1/events"
CAPABILITIES = "/v1/capabilities"
BY_URL = {"images": "url"}
"""Streams tell where an image is; it is fetched when it is wanted."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    body: Any = None
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """For `request` of httpx2."""
        return {"json": self.body, "params": self.query or None, "headers": self.headers}


def submission(fields: dict[str, Any], key: str | None) -> Call:
    """Submit an operation. Bytes are sent as base64; without a key it gets one, so that it can be asked again."""
    body = {name: b64encode(value).decode() if isinstance(value, bytes) else value for name, value in fields.items()}
    return Call("POST", JOBS, body, headers={"Idempotency-Key": key or uuid.uuid4().hex})


def submitted(answer: httpx2.Response) -> Submitted:
    """What was accepted. Raises `NoAnswerError`."""
    body = object_of(answer)
    return Submitted(body["job_id"], body["state"], body["position"], body["seed"])


def object_of(answer: httpx2.Response) -> dict[str, Any]:
    """The JSON object in an answer. Raises `NoAnswerError` where it is none."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise NoAnswerError(f"{answer.url} does not answer like a worker")
    return body


def job_path(job_id: str, part: str = "") -> str:
    """The address of a job, or of a part of it. Whatever is given as an id stays one part of the path."""
    return f"{JOBS}/{quote(job_id, safe='')}{part}"
