"""What the OpenAPI document says of the OpenAI Images API. Pure data; front process.

The models of answers describe them and do not make them; tests hold the answers to them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from rbee_sd.http.body import IDEMPOTENCY
from rbee_sd.http.docs.answers import Body
from rbee_sd.http.docs.curl import FORM
from rbee_sd.http.docs.description import JSON, STREAM, Answer, Doc, OneOf, Parameter
from rbee_sd.http.errors import MEANINGS
from rbee_sd.http.openai.requests import EditRequest, GenerationRequest, ImagesRequest, VariationRequest

SENT_AGAIN = Parameter(
    "X-Stainless-Retry-Count",
    "OpenAI's package counts here how often it has sent a request before. One that lost its connection finds its job.",
    {"type": "string"},
    "header",
)
MODEL = Parameter("model", "A name as it is listed.", {"type": "string"}, "path", "gpt-image-1")


class OpenAIErrorDetail(Body):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="The first wrong field.")
    code: str


class OpenAIError(Body):
    """Every error of the dialect."""

    error: OpenAIErrorDetail


class TokenDetails(Body):
    """Nothing is counted."""

    image_tokens: Literal[0]
    text_tokens: Literal[0]


class Usage(Body):
    """Nothing is counted."""

    input_tokens: Literal[0]
    output_tokens: Literal[0]
    total_tokens: Literal[0]
    input_tokens_details: TokenDetails


class Manner(Body):
    """How images were made."""

    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    quality: str
    size: str = Field(description="WIDTHxHEIGHT.")
    usage: Usage
    job_id: str = Field(description="Ours: the job, under /v1/jobs.")


class MadeImage(Body):
    """One image."""

    b64_json: str = Field("", description="The file in base64.")
    url: str = Field("", description="Its address, if that was asked for.")
    seed: int = Field(description="Ours: with it, the same image.")


class Images(Manner):
    """The images of a request."""

    created: int
    data: list[MadeImage]


class PartialImage(Manner):
    """A picture on the way: small, and a JPEG."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    b64_json: str
    partial_image_index: int
    index: int = Field(description="Ours: of which image.")
    created_at: int


class CompletedImage(Manner):
    """An image that is done."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    b64_json: str
    index: int = Field(description="Ours: which image.")
    seed: int = Field(description="Ours: with it, the same image.")
    created_at: int


class StreamError(Body):
    """The job came to another end; nothing follows."""

    type: Literal["error"]
    error: OpenAIErrorDetail


class Model(Body):
    """One model, by one of its names."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Body):
    """Every name that a request may give."""

    object: Literal["list"]
    data: list[Model]


OPENAI_MEANINGS = {
    **MEANINGS,
    400: "`missing_required_parameter`, `unknown_parameter`, `invalid_value`: see `param`. `invalid_json`, "
    "`invalid_form`: the body cannot be read. `invalid_input`: an image that cannot be decoded.",
    404: "`model_not_found`: no model goes by that name.",
    415: "`not_json`, `not_a_form`, `encoded_body`: the body is not of the kind that is taken here.",
    429: MEANINGS[429] + " `queue_full`: not now.",
    500: "The job failed; `code` is that of its `error` event. It is not worth sending again.",
    503: "`draining`, `storage_unavailable`, `storage_failed`: not now.",
}


def images_call(summary: str, media_type: str, takes: type[ImagesRequest], event: str = "") -> Doc:
    """A call that makes images; `event` is what the names of its stream's events begin with, if it has one."""
    content = {JSON: Images}
    streamed: dict[str, type[BaseModel]] = {
        f"{event}.partial_image": PartialImage,
        f"{event}.completed": CompletedImage,
        "error": StreamError,
    }
    return Doc(
        summary,
        {
            200: Answer(
                "The images, when they are done; with `stream`, events while they are made.",
                {**content, STREAM: OneOf("type", lambda _: streamed)} if event else content,
            )
        },
        errors=(404, 409, 410, 415, 500, 503),
        body={media_type: takes},
        parameters=(IDEMPOTENCY, SENT_AGAIN),
    )


GENERATIONS = images_call("Make images from a prompt", JSON, GenerationRequest, GenerationRequest.event)
EDITS = images_call("Change an image, or the transparent part of it or of a mask", FORM, EditRequest, EditRequest.event)
VARIATIONS = images_call("Change an image towards no prompt", FORM, VariationRequest)
LISTED = Doc("The names that a request may give", {200: Answer("All of them.", {JSON: ModelList})})
FOUND = Doc("A model by its name", {200: Answer("The model.", {JSON: Model})}, errors=(404,))
