"""The events of a stream, one frozen dataclass each. Pure.

Whatever a worker sends is in `data`, also fields that have no attribute here; an event of a kind that is not known here
is an `Event`, under its name.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `id` goes into `Last-Event-ID`, `at` are Unix seconds, `data` is all that was sent."""

    id: str
    name: str
    data: Mapping[str, Any] = field(repr=False)
    job_id: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(Event):
    """The job waits, behind `position` others."""

    position: int = 0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The job is worked on; `data` holds what the model settled. `attempt` counts from 1."""

    total: int | None = None
    attempt: int = 1
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Narration(Event):
    """A sentence for people."""

    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """`step` of `total` denoise steps is done; of a download, `bytes` of `total_bytes` are here."""

    step: int = 0
    total: int = 0
    bytes: int | None = None
    total_bytes: int | None = None
    percent: float = 0.0
    eta_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview(Event):
    """A small picture of what image `index` looks like after `step` steps."""

    index: int = 0
    step: int = 0
    total: int = 0
    format: str = "jpeg"
    image_base64: str = field(default="", repr=False)

    @property
    def image(self) -> bytes:
        """The picture's file."""
        return b64decode(self.image_base64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(Event):
    """The job is done. Of an image job `images` tells what there is to fetch, of others `result` is the answer."""

    seed: int | None = None
    width: int | None = None
    height: int | None = None
    format: str = "png"
    images: list[dict[str, Any]] = field(default_factory=list)
    result: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """The job ended with an error (the event `error`)."""

    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Event):
    """The job was cancelled, for this reason: `requested` or `disconnected`."""

    reason: str = ""
    step: int = 0
    total: int | None = None


KINDS: dict[str, type[Event]] = {
    "queued": Queued,
    "started": Started,
    "narration": Narration,
    "progress": Progress,
    "preview": Preview,
    "complete": Complete,
    "error": Failed,
    "cancelled": Cancelled,
}
OnEvent = Callable[[Event], object]
TERMINAL = (Complete, Failed, Cancelled)
"""Exactly one of these ends a job."""
_ALL: tuple[type[Event], ...] = (Event, *KINDS.values())
_ATTRIBUTES = {kind: {item.name for item in fields(kind)} - {"id", "name", "data"} for kind in _ALL}


def event_of(number: str, name: str, data: Mapping[str, Any]) -> Event:
    """The event of this id and name that was sent with this data."""
    kind = KINDS.get(name, Event)
    known = {key: data[key] for key in _ATTRIBUTES[kind] & data.keys()}
    return kind(id=number, name=name, data=data, **known)
