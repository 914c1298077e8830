"""What is answered when a job is done, and what its stream tells. Pure, but for the files that it names.

An `ImageFile` in an answer stands for its content in base64; see `http/pictures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rbee_sd.http.openai.requests import ImagesRequest, PromptedRequest
from rbee_sd.jobs.job import Job

NO_TOKENS: dict[str, Any] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""Nothing is counted here, but programs add them up."""


def answer(job: Job, request: ImagesRequest, origin: str) -> dict[str, Any]:
    """The images of a job; their addresses below `origin` if those were asked for."""
    images: list[dict[str, Any]]
    if request.response_format == "url":
        images = [{"url": origin + image["url"]} for image in job.images]
    else:
        images = [{"b64_json": file} for file in job.files]
    data = [image | {"seed": told["seed"]} for image, told in zip(images, job.images, strict=True)]
    return {"created": int(job.finished_at or job.created_at), "data": data, **_manner(job, request), **_ours(job)}


def partial_image(job: Job, request: ImagesRequest, preview: dict[str, Any], number: int) -> dict[str, Any]:
    """A picture on the way, of a `preview` event; the `number`-th of its image, from 0. It is small, and a JPEG."""
    return {
        "type": f"{request.event}.partial_image",
        "b64_json": preview["image_base64"],
        "partial_image_index": number,
        "index": preview["index"],
        "created_at": int(preview["at"]),
        **_manner(job, request),
        "output_format": preview["format"],
        **_ours(job),
    }


def completed(job: Job, request: ImagesRequest) -> Iterator[dict[str, Any]]:
    """The last events of a stream, one for each image."""
    for told, file in zip(job.images, job.files, strict=True):
        yield {
            "type": f"{request.event}.completed",
            "b64_json": file,
            "index": told["index"],
            "seed": told["seed"],
            "created_at": int(job.finished_at or job.created_at),
            **_manner(job, request),
            **_ours(job),
        }


class Partials:
    """Which previews of a job are passed on: `count` of each image at most, spread over its steps."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sent: dict[int, int] = {}
        self._next: dict[int, int] = {}

    def number(self, preview: dict[str, Any]) -> int | None:
        """The number of this preview among those of its image that are passed on, from 0; None if it is not."""
        index, step, total = preview["index"], preview["step"], preview["total"]
        # The parts of the way that this one stands for: with three, a quarter, a half and three quarters.
        reached = min(self._count, (self._count + 1) * step // total)
        if reached < self._next.get(index, 1):
            return None
        self._next[index] = reached + 1
        self._sent[index] = self._sent.get(index, -1) + 1
        return self._sent[index]


def _manner(job: Job, request: ImagesRequest) -> dict[str, Any]:
    size = f"{job.settled['width']}x{job.settled['height']}"
    quality = request.quality if isinstance(request, PromptedRequest) else "auto"
    manner = {"background": "opaque", "output_format": job.order.format, "quality": quality, "size": size}
    return manner | {"usage": NO_TOKENS}


def _ours(job: Job) -> dict[str, str]:
    return {"job_id": job.id}
