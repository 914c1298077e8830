"""`txt2img` and `img2img`: one request, one job, and an answer when it is done. Front process, IOLoop thread."""

from __future__ import annotations

import logging
from typing import ClassVar

from rbee_sd.errors import RequestError
from rbee_sd.http.body import IDEMPOTENCY
from rbee_sd.http.call import CallHandler
from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs
from rbee_sd.http.sdapi import answers
from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.info import described, info_of
from rbee_sd.http.sdapi.models import model_named
from rbee_sd.http.sdapi.requests import Img2Img, Txt2Img
from rbee_sd.http.sdapi.translation import fields_of
from rbee_sd.jobs.job import Job, State

log = logging.getLogger(__name__)

NAMES = {
    "count": "batch_size x n_iter",
    "guidance_scale": "cfg_scale",
    "image": "init_images",
    "model": "sd_model_checkpoint",
    "strength": "denoising_strength",
}
INTERRUPTED = "interrupted before a picture was finished"


def _doc(summary: str, takes: type[Txt2Img]) -> Doc:
    return Doc(
        summary,
        {200: Answer("When they are finished, or the job was interrupted.", {JSON: answers.Pictures})},
        errors=(404, 409, 410, 415, 500, 503),
        body={JSON: takes},
        parameters=(IDEMPOTENCY,),
    )


class Txt2ImgHandler(SdapiHandler, CallHandler):
    """`/sdapi/v1/txt2img`."""

    takes: ClassVar[type[Txt2Img]] = Txt2Img
    names = NAMES
    docs: ClassVar[Docs] = {"POST": _doc("Make pictures from a prompt", Txt2Img)}

    async def post(self) -> None:
        """Make pictures, and answer with them and with how they were made."""
        job, request, notes = await self._begin()
        if await self._ended(job):
            await self._answer(job, request, notes)

    async def _begin(self) -> tuple[Job, Txt2Img, list[str]]:
        """The job of this request; the request, without images since it may wait for long; what is to be said."""
        request = self.read(self.takes)
        model = self._model(request)
        fields, notes = fields_of(request, self.context.limits.of(model), model)
        job = await self.start(fields)
        self.context.callers.began(job)
        for note in notes:
            log.warning("%s: %s", job.id, note)
        if isinstance(request, Img2Img) and not request.include_init_images:
            request = request.model_copy(update={"init_images": None, "mask": None})
        return job, request, notes

    def _model(self, request: Txt2Img) -> str | None:
        """The model that the request names, or the one that its caller has chosen before."""
        title = request.override_settings.sd_model_checkpoint
        if not title:
            return self.context.callers.chosen(self.owner)
        model = model_named(title, self.context.limits)
        if not request.override_settings_restore_afterwards:
            self.context.callers.choose(self.owner, model)
        return model

    async def _ended(self, job: Job) -> bool:
        """Wait for the job; False when the client has gone. One that was interrupted has ended as it should."""
        try:
            return await self.completed(job)
        except RequestError:
            if job.state is not State.CANCELLED or not job.told:
                raise
            return True

    async def _answer(self, job: Job, request: Txt2Img, notes: list[str]) -> None:
        try:
            pictures = await described(self.context.registry.images, job.files)
        except OSError as error:
            raise RequestError(410, "image_gone", "the image is no longer on disk") from error
        told = [*notes, INTERRUPTED] if job.state is State.CANCELLED else notes
        await self.answer_pictures(
            {
                "images": job.files if request.send_images else [],
                "parameters": request.model_dump(),
                "info": info_of(job, request, pictures, told),
            }
        )


class Img2ImgHandler(Txt2ImgHandler):
    """`/sdapi/v1/img2img`."""

    takes = Img2Img
    docs: ClassVar[Docs] = {"POST": _doc("Change a picture, or paint parts of it anew", Img2Img)}
