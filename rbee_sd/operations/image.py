"""`image_generation`: images from a prompt. Front process."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rbee_sd.jobs.job import Order
from rbee_sd.messages import SCHEDULERS, Generate
from rbee_sd.operations.body import OperationRequest
from rbee_sd.operations.limits import (
    MAX_GUIDANCE_SCALE,
    MAX_PRIORITY,
    MAX_PROMPT,
    MAX_SEED,
    MAX_TIMEOUT,
    MIN_SIDE,
    MULTIPLE,
    Limits,
)

Side = Annotated[int, Field(ge=MIN_SIDE, multiple_of=MULTIPLE)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]

# Which setting bounds which field.
BOUNDS = {"width": "max_side", "height": "max_side", "steps": "max_steps", "count": "max_count"}


class ImageGeneration(OperationRequest):
    """The fields of an `image_generation`. None means: what the loaded model wants."""

    operation: Literal["image_generation"] = "image_generation"
    prompt: Prompt = Field(min_length=1, description="What the image shows.")
    negative_prompt: Prompt = Field("", description="What it must not show.")
    steps: int | None = Field(None, ge=1, description="Denoise steps.")
    guidance_scale: float | None = Field(None, ge=0, le=MAX_GUIDANCE_SCALE, description="How closely to follow.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Same seed, same image; left out: a random one.")
    width: Side | None = Field(None, description="Pixels, a multiple of 8.")
    height: Side | None = Field(None, description="Pixels, a multiple of 8.")
    scheduler: str | None = Field(None, description="One of the names in /v1/capabilities.")
    count: int = Field(1, ge=1, description="Images to make, with consecutive seeds.")
    model: str | None = Field(None, description="One of the names in /v1/capabilities.")
    on_disconnect: Literal["cancel", "finish"] = Field("cancel", description="When the last listener has gone.")
    preview: bool = Field(False, description="Accepted; this version sends no previews.")
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
        limit = getattr(_limits(info).settings, BOUNDS[info.field_name or ""])
        if value is not None and value > limit:
            raise ValueError(f"this worker takes at most {limit}")
        return value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str, info: ValidationInfo) -> str:
        names = _limits(info).models
        if value not in names:
            raise ValueError(f"no such model; there is {', '.join(names)}")
        return value

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str) -> str:
        if value not in SCHEDULERS:
            raise ValueError(f"no such scheduler; there is {', '.join(SCHEDULERS)}")
        return value

    @model_validator(mode="after")
    def _within_budget(self, info: ValidationInfo) -> ImageGeneration:
        limits = _limits(info)
        width, height, steps = limits.default_work()
        work = (self.width or width) * (self.height or height) * (self.steps or steps) * self.count / 1e6
        budget = limits.settings.max_megapixel_steps
        if work > budget:
            raise ValueError(
                f"width x height x steps x count is {work:.0f} million; this worker takes {budget:.0f} million a job"
            )
        return self


def order_image(request: ImageGeneration, limits: Limits) -> Order:
    """The order for an image job. A random seed is settled here, so that a repeat of the job gives the same image."""
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    work = Generate(
        job_id="",
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=seed,
        count=request.count,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        width=request.width,
        height=request.height,
        scheduler=request.scheduler,
    )
    return Order(
        operation=request.operation,
        request=request.model_dump(exclude_unset=True) | {"operation": request.operation},
        work=work,
        priority=request.priority,
        timeout=limits.settings.job_timeout if request.timeout is None else request.timeout,
        on_disconnect=request.on_disconnect,
        seed=seed,
    )


def _limits(info: ValidationInfo) -> Limits:
    limits = info.context
    if not isinstance(limits, Limits):
        raise TypeError("an image request is validated with Limits as context")
    return limits
