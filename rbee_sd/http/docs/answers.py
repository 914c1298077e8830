"""What JSON answers hold, as models for the OpenAPI document; tests hold the answers to them. Front process.

The answers are not made of these: a job's view or the worker's status are made where they are known.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from rbee_sd.jobs.job import State

ID = "job_2f6c3f3e-6c2b-4a57-9d1e-0d6f5c1b7a90"


class Body(BaseModel):
    """Base of all: no field that is not named here. Built when the document is made, not when the worker starts."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class WrongField(Body):
    """One wrong field of a request."""

    field: str = Field(description="As it was sent; `request` for what concerns several.")
    constraint: str = Field(description="The rule it breaks.")
    message: str
    value: Any = Field(description="What was sent, shortened.")


class ErrorDetail(Body):
    """What went wrong, for people and for programs."""

    code: str = Field(pattern="^[a-z_]+$", description="The reason.")
    type: Literal[
        "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "server_error"
    ]
    message: str = Field(description="What is wrong, and what to do.")
    param: str | None = Field(description="The first wrong field.")
    request_id: str = Field(description="As in `X-Request-ID`; the worker's log has it too.")
    errors: list[WrongField] = Field(description="All wrong fields.")


class Error(Body):
    """Every error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "invalid_request",
                        "type": "invalid_request_error",
                        "message": "steps: Input should be greater than or equal to 1",
                        "param": "steps",
                        "request_id": "req_1f0c",
                        "errors": [
                            {
                                "field": "steps",
                                "constraint": "greater_than_equal",
                                "message": "Input should be greater than or equal to 1",
                                "value": 0,
                            }
                        ],
                    }
                }
            ]
        }
    )

    error: ErrorDetail


class Accepted(Body):
    """A job that is on disk."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"job_id": ID, "sse_url": f"/v1/jobs/{ID}/stream", "state": "queued", "position": 0, "seed": 42}
            ]
        }
    )

    job_id: str
    sse_url: str = Field(description="Its stream.")
    state: State
    position: int | None = Field(description="Jobs ahead of it.")
    seed: int | None


class JobImage(Body):
    """One finished image."""

    index: int
    url: str
    seed: int
    flagged: bool = Field(description="Blacked out by the model's safety checker.")


class JobError(Body):
    """Why a job failed."""

    code: str
    message: str


class Settled(TypedDict, total=False):
    """What the model settled for values that the request left open; empty before the start."""

    width: int
    height: int
    guidance_scale: float
    scheduler: str


class JobView(Body):
    """A job as it is now. Times named `_at` are Unix seconds, `_s` are seconds."""

    job_id: str
    operation: str
    state: State
    position: int | None = Field(description="Jobs ahead of it, while it waits.")
    priority: int
    step: int
    total: int | None = Field(description="Denoise steps, once they are known.")
    attempt: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    queue_s: float
    run_s: float | None
    seed: int | None
    images: list[JobImage]
    result: dict[str, Any] | None = Field(description="Of operations that make no images.")
    error: JobError | None
    request: dict[str, Any] = Field(description="What was sent; of an image, what it is.")
    settled: Settled
    sse_url: str


class JobPage(Body):
    """Jobs, newest first."""

    jobs: list[JobView]
    next: str | None = Field(description="Goes into `before`; null on the last page.")


class Health(Body):
    """The front lives."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "healthy", "timestamp": 1795233308.367}]})

    status: Literal["healthy"]
    timestamp: float = Field(description="Unix seconds.")


class Readiness(Body):
    """Whether jobs that are sent now start at once, or when those before them are done."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"ready": True, "reason": None, "detail": ""},
                {"ready": False, "reason": "model loading", "detail": ""},
            ]
        }
    )

    ready: bool
    reason: str | None = Field(description="Why not, in two or three words that do not change.")
    detail: str = Field(description="More of it, for people.")


class EngineStatus(Body):
    """The engine process, and what it has done since it started."""

    pid: int | None
    starts: int = Field(description="Engines so far.")
    jobs: int = Field(description="Jobs in it.")
    forwards: int = Field(description="Forwards of the denoiser.")
    rows: int = Field(description="Rows in them: divided by the forwards, those of one.")
    worked: float = Field(description="Seconds in the model: divided by the forwards, the time of a step.")
    elapsed: float = Field(description="Seconds in which it had jobs.")
    memory: int = Field(description="Bytes of the device that it holds; 0 on a CPU.")


class QueueStatus(Body):
    """The jobs that wait."""

    waiting: int
    size: int = Field(description="Those that may.")


class WorkerStatus(Readiness):
    """How the worker is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ready": True,
                    "reason": None,
                    "detail": "",
                    "version": "0.1.0",
                    "model": "demo",
                    "loaded": ["demo"],
                    "device": "cpu",
                    "dtype": "float32",
                    "engine": {
                        "pid": 4711,
                        "starts": 1,
                        "jobs": 2,
                        "forwards": 240,
                        "rows": 960,
                        "worked": 14.2,
                        "elapsed": 15.1,
                        "memory": 0,
                    },
                    "jobs": {"queued": 0, "running": 2, "completed": 12, "failed": 0, "cancelled": 1},
                    "queue": {"waiting": 0, "size": 64},
                    "listeners": 2,
                }
            ]
        }
    )

    version: str
    model: str = Field(description="The default one.")
    loaded: list[str] = Field(description="The models that are loaded.")
    device: str | None = Field(description="Null until the model is loaded.")
    dtype: str | None
    engine: EngineStatus
    jobs: dict[str, int] = Field(description="How many are in each state.")
    queue: QueueStatus
    listeners: int = Field(description="Open streams of single jobs.")


class Defaults(Body):
    """What the loaded model wants where a job leaves it open."""

    width: int
    height: int
    steps: int
    guidance_scale: float


class Strengths(Body):
    """What `strength` is where a job leaves it out."""

    image_transform: float
    image_inpaint: float


class Rows(Body):
    """What a forward takes for images of one size."""

    width: int
    height: int
    rows: list[int]
    ms: list[float] = Field(description="Milliseconds, for each number of rows.")
    cap: int = Field(description="Most rows that one forward is given.")
    model: str


class Batching(Body):
    """How jobs share forwards."""

    jobs: int | None = Field(description="Jobs that the engine works on at once, once the model is loaded.")
    shapes: list[Rows]


class Bounds(Body):
    """The largest and smallest that is accepted."""

    min_side: int
    max_side: int
    multiple_of: int
    max_steps: int
    max_count: int
    max_megapixel_steps: float
    max_prompt: int
    max_guidance_scale: float
    max_strength: float
    max_input_side: int
    max_input_pixels: int
    formats: list[str]
    input_formats: list[str]
    max_loras: int
    max_lora_scale: float
    max_body: int
    queue_size: int
    disconnect_grace: float
    job_timeout: float


class ModelView(Body):
    """A model that jobs may name. What only loading it tells is null until it was loaded once."""

    name: str
    default: bool = Field(description="Whether it is that of jobs which name none.")
    loaded: bool
    kind: Literal["embedded", "folder", "file", "download", "hub"]
    family: str | None
    size: int | None = Field(description="Bytes of its weights on disk.")
    operations: list[str] | None
    schedulers: list[str] | None
    multiple_of: int | None
    negative_prompt: bool | None = Field(description="Whether it takes one; where it does not, it is left out.")
    defaults: Defaults | None


class Capabilities(Body):
    """What a form or a client may offer. Operations, schedulers, defaults and bounds are those of the default model."""

    operations: list[str]
    models: list[str]
    model_details: list[ModelView]
    schedulers: list[str]
    loras: list[str]
    defaults: Defaults | None = Field(description="Null until the model is loaded.")
    strengths: Strengths
    batching: Batching
    limits: Bounds
