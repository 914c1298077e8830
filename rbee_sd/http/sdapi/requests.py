"""The requests of AUTOMATIC1111's dialect: what of them is read. Pure data.

As lenient as the original: what is unknown is ignored, null counts as left out, `"20"` is a number. Which values a
worker takes is judged when they have become the fields of an operation.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from rbee_sd.operations.body import Request
from rbee_sd.operations.input_image import EXAMPLE
from rbee_sd.operations.limits import MAX_PROMPT, MAX_SEED

# Empty is how the original's page says it.
Seed = Annotated[int, BeforeValidator(lambda value: -1 if value == "" else value)]
# It goes back in the answer, and JSON there has no larger ones.
Ignored = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)]


class SdapiRequest(Request):
    """Base of all of them."""

    takes_null: ClassVar[bool] = True

    model_config = ConfigDict(strict=False, extra="ignore", frozen=True, allow_inf_nan=False)


class Options(SdapiRequest):
    """`POST /sdapi/v1/options`. Clients send all options back that they were told."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sd_model_checkpoint": None}]})

    sd_model_checkpoint: str | None = Field(None, description="The model for the caller's next requests, by its title.")


class Overrides(SdapiRequest):
    """`override_settings`: options for one request."""

    sd_model_checkpoint: str | None = Field(None, description="A model, by its title.")
    sd_vae: str | None = Field(None, description="Ignored: each model has its own.")
    CLIP_stop_at_last_layers: Ignored | None = Field(None, description="Ignored.")


class Txt2Img(SdapiRequest):
    """`POST /sdapi/v1/txt2img`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a red circle on a blue background", "steps": 20, "seed": 42}]}
    )

    prompt: str = Field(
        "",
        max_length=2 * MAX_PROMPT,
        description="What the image shows. `<lora:NAME:SCALE>` in it applies a LoRA; what is left is a prompt.",
    )
    negative_prompt: str = Field("", description="What it must not show.")
    steps: int | None = Field(None, description="Denoise steps; left out: what the model wants.")
    cfg_scale: float | None = Field(None, description="How closely to follow; left out: what the model wants.")
    width: int | None = Field(None, description="Pixels, rounded down to a multiple of 8.")
    height: int | None = Field(None, description="Pixels, rounded down to a multiple of 8.")
    seed: Seed = Field(-1, description="Same seed, same image; -1: a random one.")
    batch_size: int = Field(1, ge=1, description="Images; times n_iter.")
    n_iter: int = Field(1, ge=1, description="Images; times batch_size.")
    sampler_name: str = Field("", description="As in /sdapi/v1/samplers; an unknown one gives the model's own.")
    sampler_index: str = Field("", description="The older name of sampler_name.")
    scheduler: str = Field("", description="As in /sdapi/v1/schedulers.")
    override_settings: Overrides = Field(Overrides(), description="Options for this request.")
    override_settings_restore_afterwards: bool = Field(True, description="False: the model stays the caller's.")
    send_images: bool = Field(True, description="Whether the answer holds the images.")
    enable_hr: bool = Field(False, description="A second pass, which this worker does not do: true is refused.")
    script_name: str = Field("", description="A script, of which this worker has none: any is refused.")
    alwayson_scripts: dict[str, Any] = Field({}, description="The same.")
    styles: list[str | None] = Field([], description="Ignored: there are none.")
    subseed_strength: float = Field(0, description="Ignored.")
    clip_skip: Ignored = Field(1, description="Ignored.")
    restore_faces: bool = Field(False, description="Ignored.")
    tiling: bool = Field(False, description="Ignored.")
    refiner_checkpoint: str = Field("", description="Ignored.")


class Img2Img(Txt2Img):
    """`POST /sdapi/v1/img2img`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a blue star", "init_images": [EXAMPLE], "denoising_strength": 0.6}]}
    )

    init_images: list[str] | None = Field(
        None, description="One image: PNG, JPEG or WebP, in base64 or as a data: URL."
    )
    denoising_strength: float = Field(0.75, description="How much is changed.")
    resize_mode: int = Field(0, ge=0, le=3, description="How an image of another shape is brought to width x height.")
    mask: str | None = Field(None, description="Of the image's size; white is painted anew.")
    inpainting_mask_invert: bool = Field(False, description="Black is painted anew instead.")
    mask_blur: float = Field(4, ge=0, description="Pixels over which the edge of the mask is blurred.")
    inpainting_fill: Ignored = Field(1, description="Ignored: what is painted anew begins from what is there.")
    inpaint_full_res: bool = Field(False, description="Ignored: the whole picture is worked on.")
    include_init_images: bool = Field(False, description="Whether `parameters` in the answer holds them.")


class PngInfo(SdapiRequest):
    """`POST /sdapi/v1/png-info`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"image": EXAMPLE}]})

    image: str = Field(description="PNG, JPEG or WebP, in base64 or as a data: URL.")
