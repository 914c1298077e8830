"""`/v1/jobs` and `/v1/inference`: submit, list, look at, cancel, forget, download. Front process, IOLoop thread."""

from __future__ import annotations

from typing import ClassVar

from rbee_sd.errors import RequestError
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.body import IDEMPOTENCY, BodyHandler
from rbee_sd.http.docs.answers import Accepted, JobPage, JobView
from rbee_sd.http.docs.description import IF_NONE_MATCH, JOB_ID, JSON, Answer, Doc, Docs, OneOf, Parameter
from rbee_sd.http.transfer import SLICE
from rbee_sd.jobs.job import State
from rbee_sd.messages import FORMATS
from rbee_sd.operations.table import models_of

PAGE = 50
LARGEST_PAGE = 200
STATES = ("", *map(str, State))
FALSE_OR_TRUE = ("false", "true")


class SubmitHandler(BodyHandler):
    """`POST /v1/inference`, and the POST of `/v1/jobs`."""

    tag = "Jobs"
    docs: ClassVar[Docs] = {
        "POST": Doc(
            "Submit a job",
            {200: Answer("It is on disk, and waits.", {JSON: Accepted})},
            errors=(409, 410, 415, 503),
            body={JSON: OneOf("operation", models_of)},
            parameters=(IDEMPOTENCY,),
        )
    }

    async def post(self) -> None:
        """Accept an operation: 200 with the job's id and stream, at once."""
        job = await self.context.desk.submit(bytes(self.body), self.idempotency_key(), self.owner)
        view = self.context.registry.view(job)
        sse_url = f"{self.request.path}/{job.id}/stream"
        self.answer(
            {
                "job_id": job.id,
                "sse_url": sse_url,
                "state": view["state"],
                "position": view["position"],
                "seed": view["seed"],
            }
        )


class JobsHandler(SubmitHandler):
    """`/v1/jobs`."""

    docs: ClassVar[Docs] = {
        "GET": Doc(
            "List jobs, newest first",
            {200: Answer("A page of them.", {JSON: JobPage})},
            errors=(404, 410, 503),
            parameters=(
                Parameter("state", "Only those in this state.", {"enum": list(STATES), "default": ""}),
                Parameter(
                    "limit", "So many.", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE}
                ),
                Parameter("before", "Only those made before the job with this id.", {"type": "string"}),
            ),
        ),
        **SubmitHandler.docs,
    }

    async def get(self) -> None:
        """List jobs, newest first, a page at a time."""
        registry = self.context.registry
        state = self.choice("state", STATES)
        limit = self.number("limit", PAGE, 1, LARGEST_PAGE)
        before = self.get_query_argument("before", "")
        # Jobs are listed in the order they were made, so this holds when `before` has changed its state.
        number = (await registry.recall(before)).number if before else None
        jobs = await registry.page(state, number, limit + 1)
        page = jobs[:limit]
        more = page[-1].id if len(jobs) > limit else None
        self.answer({"jobs": [registry.view(job) for job in page], "next": more})


class JobHandler(BaseHandler):
    """`/v1/jobs/{id}` and `…/status`."""

    tag = "Jobs"
    path_parameters = (JOB_ID,)
    docs: ClassVar[Docs] = {
        "GET": Doc("A job as it is now", {200: Answer("The job.", {JSON: JobView})}, errors=(404, 410, 503))
    }

    async def get(self, job_id: str) -> None:
        """The job as it is now."""
        registry = self.context.registry
        job = await registry.recall(job_id)
        # What has come to its end is shown so when that is on disk.
        await registry.closed(job)
        self.answer(registry.view(job))


class CancellableJobHandler(JobHandler):
    """`/v1/jobs/{id}`."""

    docs: ClassVar[Docs] = {
        **JobHandler.docs,
        "DELETE": Doc(
            "Cancel a job; no effect on one that has ended, or forget that",
            {200: Answer("The job.", {JSON: JobView})},
            errors=(404, 409, 410, 503),
            parameters=(
                Parameter(
                    "forget",
                    "`true`: cancel nothing, but remove a job that has ended, with its images.",
                    {"enum": list(FALSE_OR_TRUE), "default": FALSE_OR_TRUE[0]},
                ),
            ),
        ),
    }

    async def delete(self, job_id: str) -> None:
        """Cancel; no effect on a job that has ended. With `?forget=true` an ended one is removed with its images."""
        registry = self.context.registry
        forget = self.choice("forget", FALSE_OR_TRUE) == "true"
        job = await registry.recall(job_id)
        if forget:
            await registry.forget(job)
            self.answer(registry.view(job))
            return
        registry.cancel(job, "requested")
        await registry.closed(job)
        self.answer(registry.view(job))


class ImageHandler(BaseHandler):
    """`/v1/jobs/{id}/images/{n}` and `/v1/jobs/{id}/image`."""

    tag = "Jobs"
    path_parameters = (
        JOB_ID,
        Parameter("n", "Which image, counted from 0.", {"type": "integer", "minimum": 0}, "path", 0),
    )
    docs: ClassVar[Docs] = {
        "GET": Doc(
            "A finished image",
            {
                200: Answer(
                    "A file in the job's format; it says in itself how it was made.",
                    {f"image/{kind}": None for kind in FORMATS},
                    ("ETag",),
                ),
                304: Answer("The client has it.", headers=("ETag",)),
            },
            errors=(404, 409, 410, 503),
            parameters=(
                Parameter(
                    "thumbnail",
                    "`true`: a small JPEG of it, at most 256 pixels on its longer side; of an image that is no larger, "
                    "or was made before there were thumbnails, the file itself.",
                    {"enum": list(FALSE_OR_TRUE), "default": FALSE_OR_TRUE[0]},
                ),
                IF_NONE_MATCH,
            ),
        )
    }

    async def get(self, job_id: str, number: str = "0") -> None:
        """The file's bytes; 304 when the client has them."""
        registry = self.context.registry
        small = self.choice("thumbnail", FALSE_OR_TRUE) == "true"
        job = await registry.recall(job_id)
        await registry.closed(job)
        if not job.state.terminal:
            raise RequestError(409, "job_unfinished", f"the job is {job.state}; its images come when it completes")
        images = job.files
        if len(number) > 4 or int(number) >= len(images):
            raise RequestError(
                404, "image_not_found", f"the job {job.state} with {len(images)} images; there is no such"
            )
        image = images[int(number)]
        if small and image.thumbnail is not None:
            image = image.thumbnail
        self.set_header("Content-Type", f"image/{image.format}")
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")
        self.set_header("Etag", image.etag)
        if self.check_etag_header():
            self.set_status(304)
            return
        try:
            file = await registry.images.open(image)
        except OSError as error:
            raise RequestError(410, "image_gone", "the image is no longer on disk") from error
        async with file:
            self.set_header("Content-Length", str(image.size))
            while part := await file.read(SLICE):
                if not await self.send(part):
                    return
