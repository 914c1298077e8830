"""What the data of each event of a stream holds, as models for the OpenAPI document. Front process.

The events are made in `jobs`; tests hold them to these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from rbee_sd.http.docs.answers import Body, JobImage
from rbee_sd.http.docs.description import OneOf


class Told(Body):
    """What the data of every event holds."""

    job_id: str
    at: float = Field(description="Unix seconds.")


class Queued(Told):
    """The job waits."""

    event: Literal["queued"]
    type: Literal["queued"]
    position: int = Field(description="Jobs ahead of it.")
    seed: int | None


class Started(Told):
    """The engine has begun. Open values are settled."""

    event: Literal["started"]
    type: Literal["started"]
    total: int = Field(description="Denoise steps.")
    attempt: int
    seed: int | None
    width: int
    height: int
    guidance_scale: float
    scheduler: str


class Narration(Told):
    """A sentence for people."""

    event: Literal["narration"]
    type: Literal["narration"]
    text: str


class ProgressSteps(Told):
    """A denoise step is done."""

    event: Literal["progress"]
    type: Literal["progress"]
    step: int
    total: int
    percent: float
    eta_s: float = Field(description="Seconds that are left, by what the steps so far took.")


class ProgressBytes(Told):
    """A download has come so far."""

    event: Literal["progress"]
    type: Literal["progress"]
    bytes: int
    total_bytes: int
    percent: float
    eta_s: float | None = Field(description="Seconds that are left, by what came so far.")


class Progress(RootModel[ProgressSteps | ProgressBytes]):
    """It goes on."""


class Preview(Told):
    """What an image looks like so far."""

    event: Literal["preview"]
    type: Literal["preview"]
    index: int = Field(description="Of the image.")
    step: int
    total: int | None
    format: Literal["jpeg"]
    image_base64: str


class CompleteImages(Told):
    """The images are made."""

    event: Literal["complete"]
    type: Literal["complete"]
    format: Literal["png", "jpeg", "webp"]
    seed: int | None
    images: list[JobImage]
    width: int
    height: int
    guidance_scale: float
    scheduler: str
    image_base64: str = Field("", description="The first image; left out with `images=url` and on `/v1/events`.")


class CompleteResult(Told):
    """The result of an operation that makes no images."""

    event: Literal["complete"]
    type: Literal["complete"]
    result: dict[str, Any]


class Complete(RootModel[CompleteImages | CompleteResult]):
    """The job is done. Nothing follows."""

    model_config = ConfigDict(defer_build=True)


class Failed(Told):
    """The job failed. Nothing follows."""

    event: Literal["error"]
    type: Literal["error"]
    code: str
    message: str


class Cancelled(Told):
    """The job was cancelled. Nothing follows."""

    event: Literal["cancelled"]
    type: Literal["cancelled"]
    reason: str
    step: int
    total: int | None


MODELS: dict[str, type[BaseModel]] = {
    "queued": Queued,
    "started": Started,
    "narration": Narration,
    "progress": Progress,
    "preview": Preview,
    "complete": Complete,
    "error": Failed,
    "cancelled": Cancelled,
}
EVENTS = OneOf("event", lambda _: MODELS)
