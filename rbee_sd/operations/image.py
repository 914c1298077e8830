"""What all image operations share: their fields, the checks across fields, and the order for the engine.

Front process. Each operation adds its own fields in a file of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from rbee_sd.errors import FieldError
from rbee_sd.jobs.job import Order
from rbee_sd.messages import MAX_GUIDANCE_SCALE, MIN_SIDE, MULTIPLE, PNG, Generate
from rbee_sd.operations.body import OperationRequest, Request
from rbee_sd.operations.limits import (
    MAX_LORA_SCALE,
    MAX_LORAS,
    MAX_PRIORITY,
    MAX_PROMPT,
    MAX_SEED,
    MAX_TIMEOUT,
    Limits,
)

Side = Annotated[int, Field(ge=MIN_SIDE, multiple_of=MULTIPLE)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT, json_schema_extra={"pattern": "^[^\\u0000]*$"})]

# Which setting bounds which field.
BOUNDS = {"width": "max_side", "height": "max_side", "steps": "max_steps", "count": "max_count"}
NAMED = 20
"""Names that a message lists; a folder of LoRAs can hold hundreds."""


class Lora(Request):
    """One entry of `loras`."""

    name: str
    scale: float = Field(1.0, ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE)

    @field_validator("name")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return one_of(value, limits_of(info.context).loras, "LoRA")

    @classmethod
    def narrow(cls, fields: dict[str, Any], limits: Limits) -> None:
        """See `Request`."""
        fields["name"]["enum"] = list(limits.loras)


class ImageRequest(OperationRequest):
    """The fields of every image operation. None means: what the loaded model wants."""

    operation: str
    # Before the fields whose values depend on it.
    model: str | None = Field(None, description="One of the names in /v1/capabilities.")
    prompt: Prompt = Field(min_length=1, description="What the image shows.")
    negative_prompt: Prompt = Field("", description="What it must not show.")
    steps: int | None = Field(None, ge=1, description="Denoise steps.")
    guidance_scale: float | None = Field(None, ge=0, le=MAX_GUIDANCE_SCALE, description="How closely to follow.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Same seed, same image; left out: a random one.")
    width: Side | None = Field(None, description="Pixels, a multiple of 8.")
    height: Side | None = Field(None, description="Pixels, a multiple of 8.")
    scheduler: str | None = Field(None, description="One of the names in /v1/capabilities.")
    count: int = Field(1, ge=1, description="Images to make, with consecutive seeds.")
    loras: list[Lora] = Field([], max_length=MAX_LORAS, description="LoRAs to apply, named in /v1/capabilities.")
    format: Literal["png", "jpeg", "webp"] = Field("png", description="Of the files.")
    quality: int | None = Field(None, ge=1, le=100, description="Of JPEG and WebP files.")
    on_disconnect: Literal["cancel", "finish"] = Field("cancel", description="When the last listener has gone.")
    exclusive: bool = Field(False, description="Its steps are shared with no other job.")
    preview: bool = Field(False, description="Small pictures on the way, while somebody listens.")
    priority: int = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Higher runs first.")
    timeout: float | None = Field(None, ge=1, le=MAX_TIMEOUT, description="Seconds of running.")

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a NUL character cannot be part of a prompt")
        return value

    @field_validator(*BOUNDS)
    @classmethod
    def _within_settings(cls, value: int | None, info: ValidationInfo) -> int | None:
        limit = getattr(limits_of(info.context).settings, BOUNDS[info.field_name or ""])
        if value is not None and value > limit:
            raise ValueError(f"this worker takes at most {limit}")
        return value

    @field_validator("width", "height")
    @classmethod
    def _of_the_models_kind(cls, value: int | None, info: ValidationInfo) -> int | None:
        multiple = limits_of(info.context).of(info.data.get("model")).multiple
        if value is not None and value % multiple:
            raise ValueError(f"this model makes pictures whose sides are multiples of {multiple}")
        return value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str, info: ValidationInfo) -> str:
        return one_of(value, limits_of(info.context).models, "model")

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str, info: ValidationInfo) -> str:
        return one_of(value, limits_of(info.context).of(info.data.get("model")).schedulers, "scheduler")

    @field_validator("loras")
    @classmethod
    def _each_once(cls, value: list[Lora]) -> list[Lora]:
        if len({lora.name for lora in value}) < len(value):
            raise ValueError("a LoRA can be applied only once")
        return value

    def crossed(self, context: Any) -> list[FieldError]:
        """Whether the fields go together, and the work of all of them is within the budget."""
        if self.quality is not None and self.format == PNG:
            text = "a PNG loses nothing, so it has no quality; leave it out, or ask for another format"
            return [FieldError("quality", "no_quality", text, self.quality)]
        limits = limits_of(context)
        width, height, steps = self.work(limits)
        work = width * height * steps * self.count / 1e6
        budget = limits.settings.max_megapixel_steps
        if work <= budget:
            return []
        text = f"width x height x steps x count is {work:.0f} million; this worker takes {budget:.0f} million a job"
        return [FieldError("request", "budget", text)]

    def work(self, limits: Limits) -> tuple[int, int, int]:
        """Width, height and steps of each image, as far as they are known before the engine settles them."""
        width, height, steps = limits.of(self.model).default_work()
        return self.width or width, self.height or height, self.steps or steps

    @classmethod
    def narrow(cls, fields: dict[str, Any], limits: Limits) -> None:
        """See `Request`."""
        for name, setting in BOUNDS.items():
            fields[name]["maximum"] = getattr(limits.settings, setting)
        for name in ("width", "height"):
            fields[name]["multipleOf"] = limits.multiple
        fields["scheduler"]["enum"] = list(limits.schedulers)
        fields["model"]["enum"] = list(limits.models)
        if not limits.loras:
            fields["loras"]["maxItems"] = 0

    def inputs(self) -> tuple[bytes, ...]:
        """The image files that go to the engine."""
        return ()

    def amount(self) -> float | None:
        """How much of an input image is changed."""
        return None

    def treatment(self) -> dict[str, Any]:
        """What the engine is told besides, by the names that `Generate` has for it: how input images are taken."""
        return {}


def order_image(request: ImageRequest, limits: Limits) -> Order:
    """The order for an image job. A random seed is settled here, so that a repeat of the job gives the same image."""
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    work = Generate(
        job_id="",
        operation=request.operation,
        model=request.model or "",
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=seed,
        count=request.count,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        width=request.width,
        height=request.height,
        scheduler=request.scheduler,
        strength=request.amount(),
        format=request.format,
        quality=request.quality,
        loras=tuple(lora.name for lora in request.loras),
        lora_scales=tuple(lora.scale for lora in request.loras),
        priority=request.priority,
        exclusive=request.exclusive,
        preview=request.preview,
        inputs=request.inputs(),
        **request.treatment(),
    )
    return Order(
        operation=request.operation,
        # What was sent, but of an image only what it is: clients ask for their jobs again and again.
        request=request.model_dump(exclude_unset=True) | {"operation": request.operation},
        work=work,
        priority=request.priority,
        timeout=limits.settings.job_timeout if request.timeout is None else request.timeout,
        on_disconnect=request.on_disconnect,
        seed=seed,
    )


def limits_of(context: Any) -> Limits:
    """The context that image requests are validated with."""
    if not isinstance(context, Limits):
        raise TypeError("an image request is validated with Limits as context")
    return context


def one_of(value: str, names: Collection[str], what: str) -> str:
    """The value, if it is one of `names`. Raises `ValueError` that lists some of them."""
    # Whatever the name looks like, it is only compared: nothing is looked up by it.
    if value not in names:
        listed = ", ".join(islice(names, NAMED)) + (", …" if len(names) > NAMED else "")
        raise ValueError(f"no such {what}; there is {listed or 'none'}")
    return value
