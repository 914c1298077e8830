"""What a client hands back for what was asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from rbee_sd.client.errors import JobCancelledError, JobError, JobFailedError
from rbee_sd.client.events import Cancelled, Complete, Event, Failed


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that the worker has accepted; it is on disk there."""

    job_id: str
    state: str
    position: int
    seed: int | None


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a job: its file. `flagged`: the model's own safety checker has blacked it out."""

    data: bytes = field(repr=False)
    index: int
    seed: int
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The images of a job, and in `complete` the event that told of them, with what the model settled."""

    job_id: str
    images: tuple[Image, ...]
    complete: Complete

    @property
    def image(self) -> bytes:
        """The first image."""
        return self.images[0].data


def completed(job_id: str, last: Event | None) -> Complete:
    """The event of a job that is done, from the last of its stream. Raises `JobError` for what ended otherwise."""
    match last:
        case Complete():
            return last
        case Failed():
            raise JobFailedError(job_id, last.code, last.message)
        case Cancelled():
            raise JobCancelledError(job_id, last.reason)
        case _:
            raise JobError(job_id, "the stream ended without a result")
