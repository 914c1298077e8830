"""What is answered in AUTOMATIC1111's dialect, as models for the OpenAPI document; tests hold the answers to them.

Front process. Answers are made in the handlers, not of these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, RootModel

from rbee_sd.http.docs.answers import Body

MEANINGS = {
    401: "`invalid_api_key`: the key is missing or wrong. It may also come as the password of HTTP's basic login.",
    403: "`host_not_allowed`: the `Host` is none of the worker's. `origin_not_allowed`: a page of another origin asks.",
    404: "`model_not_found`, `image_not_found`, `not_found`: there is no such thing.",
    409: "`idempotency_conflict`: the key was used with another body. `job_cancelled`: somebody cancelled the job.",
    410: "`image_gone`, `job_expired`: it was here once.",
    413: "`body_too_large`: refused before it is read.",
    415: "`not_json`, `encoded_body`: send plain JSON in UTF-8.",
    422: "`invalid_json`, `invalid_request`, `unsupported_operation`, `invalid_input`: `detail` says what is wrong.",
    429: "`too_many_requests`, `too_many_streams`, `too_many_jobs`: more than one client may ask for.",
    500: "The job failed; `error` is its code, such as `out_of_memory`.",
    503: "`queue_full`, `draining`, `storage_unavailable`, `storage_failed`: not now.",
}
"""What the document says of each status of an error."""


class SdapiError(Body):
    """An error as clients of AUTOMATIC1111 know it."""

    error: str = Field(description="The reason, as a code.")
    detail: str = Field(description="What is wrong, and what to do.")
    body: str
    errors: str


class Nothing(Body):
    """Done."""


class Pictures(Body):
    """Finished images."""

    images: list[str] = Field(description="PNG files in base64.")
    parameters: dict[str, Any] = Field(description="The request as it was understood.")
    info: str = Field(description="How they were made: JSON as text.")


class PngParameters(Body):
    """How a picture was made, as it says itself."""

    info: str = Field(description="The text in the picture; empty without one.")
    items: dict[str, str] = Field(description="What else is in it.")
    parameters: dict[str, str] = Field(description="The text, taken apart.")


class SdapiState(Body):
    """The caller's current job."""

    skipped: bool
    interrupted: bool
    stopping_generation: bool
    job: str = Field(description="Its id, or what the worker does; empty for nothing.")
    job_count: int = Field(description="The caller's jobs that have not ended.")
    job_timestamp: str
    job_no: int
    sampling_step: int
    sampling_steps: int


class SdapiProgress(Body):
    """How far the caller's current job is."""

    progress: float = Field(description="0 to 1.")
    eta_relative: float = Field(description="Seconds that are left.")
    state: SdapiState
    current_image: str | None = Field(description="A preview, a JPEG file in base64.")
    textinfo: str | None


class Chosen(Body):
    """The options that there are."""

    sd_model_checkpoint: str = Field(description="The model of the caller's next requests.")
    sd_checkpoint_hash: str
    sd_vae: str
    CLIP_stop_at_last_layers: int
    samples_format: str
    live_previews_enable: bool


class Flags(Body):
    """Of the original's flags, those that this worker behaves like."""

    api: bool
    nowebui: bool


class Memory(Body):
    """Bytes of the machine, and what the engine holds of the device's."""

    ram: dict[str, int]
    cuda: dict[str, Any]


class ModelEntry(Body):
    """A model."""

    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    filename: str
    config: str | None


class SamplerEntry(Body):
    """A sampler; its aliases are schedulers of `/v1/jobs`."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class ScheduleEntry(Body):
    """A schedule."""

    name: str
    label: str
    aliases: list[str] | None
    default_rho: float
    need_inner_model: bool


class LoraEntry(Body):
    """A LoRA."""

    name: str
    alias: str
    path: str
    metadata: dict[str, Any]


class UpscalerEntry(Body):
    """What stands for no upscaler."""

    name: Literal["None"]
    model_name: str | None
    model_path: str | None
    model_url: str | None
    scale: float


class Models(RootModel[list[ModelEntry]]):
    """The models of this worker."""

    model_config = ConfigDict(defer_build=True)


class Samplers(RootModel[list[SamplerEntry]]):
    """The samplers that the model takes."""

    model_config = ConfigDict(defer_build=True)


class Schedules(RootModel[list[ScheduleEntry]]):
    """The schedules that any sampler has a choice of."""

    model_config = ConfigDict(defer_build=True)


class Loras(RootModel[list[LoraEntry]]):
    """The LoRAs of this worker."""

    model_config = ConfigDict(defer_build=True)


class Upscalers(RootModel[list[UpscalerEntry]]):
    """None, which clients want to be the first."""

    model_config = ConfigDict(defer_build=True)


class EmptyList(RootModel[list[Any]]):
    """There are none."""

    model_config = ConfigDict(defer_build=True, json_schema_extra={"maxItems": 0})


class Embeddings(Body):
    """There are none."""

    loaded: dict[str, Any]
    skipped: dict[str, Any]


class Scripts(Body):
    """There are none."""

    txt2img: list[str]
    img2img: list[str]
