"""What the OpenAI Images API may be asked, and the fields of our own operations that it becomes.

Front process; pure. Numbers may come as text, as forms have them. What is for other kinds of models (moderation, whom a
request is for) is taken and ignored; what asks for something that cannot be done here is refused by name.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import orjson
from pydantic import ConfigDict, Field, field_validator

from rbee_sd.errors import FieldError
from rbee_sd.messages import ALPHA, INPAINT, TEXT, TRANSFORM
from rbee_sd.operations.body import Request
from rbee_sd.operations.limits import MAX_PRIORITY, MAX_SEED, Limits

SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
MAX_IMAGES = 10
MAX_PARTIAL_IMAGES = 3
MAX_IGNORED = 1000
"""Characters of a text that is ignored."""
EFFORT = {"low": 0.5, "medium": 1.0, "standard": 1.0, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 3.0}
"""Of the steps that the model wants, how many each `quality` takes."""
ALIKE = (
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "guidance_scale",
    "scheduler",
    "loras",
    "strength",
    "priority",
    "exclusive",
    "timeout",
    "on_disconnect",
)
"""Fields that are called the same in our own API and checked there."""
NAMES = {"count": "n", "width": "size", "height": "size", "format": "output_format", "quality": "output_compression"}
"""What fields of our own API, in what becomes of a request, are called here."""
CANNOT = {
    "frame_count": "this worker makes still pictures",
    "frame_duration_ms": "this worker makes still pictures",
    "svg": "this worker makes pictures of pixels",
    "markup": "send a mask that is transparent where the image is to be changed",
}


class ImagesRequest(Request):
    """What all three calls take."""

    takes_null: ClassVar[bool] = True
    operation: ClassVar[str] = TEXT
    event: ClassVar[str] = "image_generation"
    """What the names of its events begin with."""

    model: str | None = Field(None, description="One of /v1/models; a name of OpenAI's is the default model.")
    n: int = Field(1, ge=1, le=MAX_IMAGES, description="Images to make.")
    size: str = Field(
        "auto",
        description="WIDTHxHEIGHT in pixels, or auto.",
        json_schema_extra={"pattern": f"^(auto|{SIZE.pattern})$"},
    )
    response_format: Literal["b64_json", "url"] = Field("b64_json", description="Images themselves, or addresses.")
    user: str = Field("", max_length=MAX_IGNORED, description="Ignored.")

    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Ours: same seed, same image.")
    steps: int | None = Field(None, ge=1, le=MAX_SEED, description="Ours: denoise steps.")
    negative_prompt: str | None = Field(None, description="Ours: what the image must not show.")
    guidance_scale: float | None = Field(None, description="Ours: how closely to follow the prompt.")
    scheduler: str | None = Field(None, description="Ours: one of the names in /v1/capabilities.")
    loras: list[dict[str, Any]] | None = Field(None, description="Ours: LoRAs to apply; in a form, as JSON.")
    priority: int | None = Field(None, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Ours: higher runs first.")
    exclusive: bool | None = Field(None, description="Ours: its steps are shared with no other job.")
    timeout: float | None = Field(None, description="Ours: seconds of running.")
    on_disconnect: str | None = Field(None, description="Ours: cancel, or finish without the client.")

    @field_validator("size")
    @classmethod
    def _width_and_height(cls, value: str) -> str:
        if value != "auto" and not SIZE.fullmatch(value):
            raise ValueError("must be auto or WIDTHxHEIGHT, such as 512x512")
        return value

    @field_validator("loras", mode="before")
    @classmethod
    def _in_a_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError('in a form, LoRAs are JSON: [{"name": "watercolour"}]') from error

    def fields(self, limits: Limits) -> dict[str, Any]:
        """The fields of the operation that it becomes, but for the model."""
        own = self.model_dump(include=set(ALIKE), exclude_none=True)
        fields = own | {"operation": self.operation, "count": self.n}
        if (size := SIZE.fullmatch(self.size)) is not None:
            fields |= {"width": int(size[1]), "height": int(size[2])}
        return fields


class PromptedRequest(ImagesRequest):
    """What is made from a prompt."""

    prompt: str = Field(description="What the image shows.")
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] = Field(
        "auto", description="How many steps, unless they are named: half of what the model wants, up to three times."
    )
    background: Literal["auto", "opaque"] = Field("auto", description="Images here are opaque.")
    output_format: Literal["png", "jpeg", "webp"] = Field("png", description="Of the images.")
    output_compression: int | None = Field(None, ge=0, le=100, description="Quality of JPEG and WebP.")
    stream: bool = Field(False, description="Answer with events.")
    partial_images: int = Field(0, ge=0, le=MAX_PARTIAL_IMAGES, description="Previews in a stream.")
    safety_identifier: str = Field("", max_length=MAX_IGNORED, description="Ignored.")
    complexity: str = Field("", max_length=MAX_IGNORED, description="Ignored.")

    def crossed(self, context: Any) -> list[FieldError]:
        """Whether format and compression, stream and answer go together."""
        wrong = []
        if self.output_format == "png" and self.output_compression not in (None, 100):
            text = "a PNG is always whole; ask for jpeg or webp, or leave it out"
            wrong.append(FieldError("output_compression", "invalid_value", text, self.output_compression))
        if self.stream and self.response_format == "url":
            text = "a stream holds the images themselves; leave it out, or do not stream"
            wrong.append(FieldError("response_format", "invalid_value", text, self.response_format))
        return wrong

    def fields(self, limits: Limits) -> dict[str, Any]:
        """The fields of the operation that it becomes, but for the model."""
        fields = super().fields(limits) | {"format": self.output_format}
        if self.output_compression is not None and self.output_format != "png":
            # There 0 is allowed too.
            fields["quality"] = max(1, self.output_compression)
        if self.stream and self.partial_images:
            fields["preview"] = True
        # What the model wants is not known before it is loaded.
        if self.steps is None and self.quality in EFFORT and (loaded := limits.loaded()) is not None:
            fields["steps"] = max(1, min(limits.settings.max_steps, round(loaded.steps * EFFORT[self.quality])))
        return fields


class GenerationRequest(PromptedRequest):
    """`POST /v1/images/generations`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a red circle on a blue background", "n": 1, "seed": 42}]}
    )

    moderation: Literal["auto", "low"] = Field("auto", description="Ignored.")
    style: str = Field("", max_length=MAX_IGNORED, description="Ignored.")


class EditRequest(PromptedRequest):
    """`POST /v1/images/edits`. With a mask, its transparent part is painted anew; without, that of the image itself.

    An image that is opaque is changed as a whole.
    """

    # In a form everything is text.
    model_config = ConfigDict(
        strict=False,
        json_schema_extra={"examples": [{"image": "@image.png", "mask": "@mask.png", "prompt": "a blue star"}]},
    )

    operation: ClassVar[str] = INPAINT
    event: ClassVar[str] = "image_edit"

    image: bytes = Field(description="The file of a PNG, JPEG or WebP.")
    mask: bytes | None = Field(None, description="Of the image's size; transparent is painted anew.")
    strength: float | None = Field(None, description="Ours: how much is changed.")
    input_fidelity: Literal["high", "low"] = Field("low", description="Ignored.")

    def fields(self, limits: Limits) -> dict[str, Any]:
        """The fields of the operation that it becomes, but for the model."""
        fields = super().fields(limits) | {"image": self.image}
        if self.mask is not None:
            return fields | {"mask": self.mask, "mask_means": ALPHA}
        if INPAINT in limits.operations:
            return fields | {"mask_means": ALPHA}
        return fields | {"operation": TRANSFORM}


class VariationRequest(ImagesRequest):
    """`POST /v1/images/variations`: an image changed towards no prompt, or one."""

    model_config = ConfigDict(strict=False, json_schema_extra={"examples": [{"image": "@image.png", "strength": 0.5}]})

    operation: ClassVar[str] = TRANSFORM

    image: bytes = Field(description="The file of a PNG, JPEG or WebP.")
    prompt: str | None = Field(None, description="Ours: what the image shows.")
    strength: float | None = Field(None, description="Ours: how much is changed.")

    def fields(self, limits: Limits) -> dict[str, Any]:
        """The fields of the operation that it becomes, but for the model."""
        return super().fields(limits) | {"image": self.image}
