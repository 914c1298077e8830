"""The words in which a handler says what it takes and what it answers. Pure data; front process.

Each handler has a `Doc` for each of its methods; `document` makes the document of them, and a test fails for a method
without one. What holds for every route (the door, the key, the quotas) is not repeated in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from rbee_sd.operations.limits import Limits

JSON = "application/json"
STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several models, told apart by the value of one `field`.

    `models` gives them by that value: for a worker with these limits, or for any worker (None).
    """

    field: str
    models: Callable[[Limits | None], Mapping[str, type[BaseModel]]]


Shape = type[BaseModel] | OneOf | None
"""What a body holds; None for what has no fields, such as an image. A stream's is that of its events' data."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent with one status: its shape by media type (none: no body), and headers; see `document.HEADERS`."""

    description: str
    content: Mapping[str, Shape] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request says besides its body. `schema` is JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, Any]
    place: Literal["query", "header", "path"] = "query"
    example: str | int | None = None


@dataclass(frozen=True, slots=True)
class Doc:
    """One method of a handler: what it does, takes and answers. `errors` are the statuses that hold an error.

    Not named there are those that follow: 403 and 413 always, 401 and 429 where a key is asked for, 400 (or what the
    handler has as `wrong_value`) where there is a body, an argument or a part of the path that can be wrong.
    """

    summary: str
    answers: Mapping[int, Answer]
    errors: tuple[int, ...] = ()
    body: Mapping[str, Shape] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()


Docs = Mapping[str, Doc]
"""What a handler says of its methods, by name. HEAD is left out: it is as GET."""

JOB_ID = Parameter(
    "job_id",
    "The job's id, as the answer to its submission told it.",
    {"type": "string"},
    "path",
    "job_00000000-0000-4000-8000-000000000000",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "The id of the last event that was seen: the stream goes on behind it. A nonsense one replays all.",
    {"type": "string"},
    "header",
)
IF_NONE_MATCH = Parameter("If-None-Match", "The `ETag` of what the client has.", {"type": "string"}, "header")
