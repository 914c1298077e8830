"""The handlers of the OpenAI Images API. Front process, IOLoop thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel

from rbee_sd.errors import RequestError
from rbee_sd.http import sse
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.call import CallHandler, failure_of
from rbee_sd.http.docs.description import Docs
from rbee_sd.http.door import is_loopback
from rbee_sd.http.openai.answers import Partials, answer, completed, partial_image
from rbee_sd.http.openai.description import (
    EDITS,
    FOUND,
    GENERATIONS,
    LISTED,
    MODEL,
    OPENAI_MEANINGS,
    VARIATIONS,
    OpenAIError,
)
from rbee_sd.http.openai.errors import as_openai, contents, envelope, explained, renamed
from rbee_sd.http.openai.forms import boundary_of, fields_of
from rbee_sd.http.openai.models import described
from rbee_sd.http.openai.requests import (
    EditRequest,
    GenerationRequest,
    ImagesRequest,
    PromptedRequest,
    VariationRequest,
)
from rbee_sd.jobs.job import Job, State
from rbee_sd.operations.body import validate
from rbee_sd.operations.json_object import parse_object


class DialectHandler(BaseHandler):
    """What its routes share: errors of its shape."""

    tag = "OpenAI Images"
    error_shape: ClassVar[type[BaseModel]] = OpenAIError
    meanings: ClassVar[Mapping[int, str]] = OPENAI_MEANINGS

    def error_answer(self, error: RequestError) -> bytes:
        """Set status and headers for an error, as its clients understand them; returns the body."""
        return super().error_answer(as_openai(error))

    def error_body(self, error: RequestError) -> bytes:
        """Its envelope."""
        return envelope(error)


class ImagesHandler(DialectHandler, CallHandler):
    """What the three calls share: a request becomes a job, and the job's end the answer, or a stream's."""

    takes: ClassVar[type[ImagesRequest]]

    async def post(self) -> None:
        """Make images and answer with them."""
        request = self._accept()
        model = self.context.model_names.resolve(request.model)
        fields = request.fields(self.context.limits.of(model))
        if model is not None:
            fields["model"] = model
        try:
            job = await self.start(fields, sent=request.model_dump(), again=self._sent_again())
        except RequestError as error:
            raise renamed(error) from error
        # The files are the job's now, and gone with it.
        self.body.clear()
        if isinstance(request, PromptedRequest) and request.stream:
            await self._stream(job, request)
        elif await self.completed(job):
            await self.answer_pictures(answer(job, request, self._origin()))

    def sent(self) -> dict[str, Any]:
        """The fields in the body. Raises 400."""
        return parse_object(bytes(self.body))

    def _accept(self) -> ImagesRequest:
        fields = self.sent()
        try:
            return validate(self.takes, fields, self.context.limits)
        except RequestError as error:
            raise explained(error.fields) from error

    async def _stream(self, job: Job, request: PromptedRequest) -> None:
        if self.cursor is None or not await self.begin():
            return
        partials = Partials(request.partial_images)
        async for _, event in self.follow(self.cursor):
            if event.name != "preview":
                continue
            preview = orjson.loads(event.data)
            number = partials.number(preview)
            if number is not None and not await self._tell(partial_image(job, request, preview, number)):
                return
        if self.cursor.exhausted and await self._tell_end(job, request) and await self.send(sse.DONE):
            await self.end()

    async def _tell_end(self, job: Job, request: PromptedRequest) -> bool:
        try:
            if job.state is not State.COMPLETED:
                raise failure_of(job)
            for event in completed(job, request):
                if not await self._tell(event):
                    return False
        except RequestError as error:
            return await self.send_event("error", {"type": "error", "error": contents(error)})
        return True

    async def _tell(self, event: dict[str, Any]) -> bool:
        return await self.send_event(event["type"], event)

    def _sent_again(self) -> bool:
        count = self.request.headers.get("X-Stainless-Retry-Count", "0")
        return count.isascii() and count.isdigit() and count.strip("0") != ""

    def _origin(self) -> str:
        """Where the client found this worker: what addresses in an answer begin with."""
        scheme = self.request.protocol
        if self.request.remote_ip is not None and is_loopback(self.request.remote_ip):
            # A proxy on this machine says what its client spoke.
            forwarded = self.request.headers.get("X-Forwarded-Proto", "").lower()
            scheme = forwarded if forwarded in ("http", "https") else scheme
        return f"{scheme}://{self.request.host}"


class GenerationsHandler(ImagesHandler):
    """`/v1/images/generations`."""

    takes = GenerationRequest
    docs: ClassVar[Docs] = {"POST": GENERATIONS}


class FormHandler(ImagesHandler):
    """A call whose body is a form."""

    def check_type(self) -> None:
        """Raise 415 for what is no form."""
        self.check_encoding()
        boundary_of(self.request.headers.get("Content-Type", ""))

    def sent(self) -> dict[str, Any]:
        """The fields and files in the form. Raises 400."""
        return fields_of(bytes(self.body), boundary_of(self.request.headers.get("Content-Type", "")))


class EditsHandler(FormHandler):
    """`/v1/images/edits`."""

    takes = EditRequest
    docs: ClassVar[Docs] = {"POST": EDITS}


class VariationsHandler(FormHandler):
    """`/v1/images/variations`."""

    takes = VariationRequest
    docs: ClassVar[Docs] = {"POST": VARIATIONS}


class ModelsHandler(DialectHandler):
    """`/v1/models`."""

    docs: ClassVar[Docs] = {"GET": LISTED}

    def get(self) -> None:
        """Every name that a request may give."""
        self.answer({"object": "list", "data": self.context.model_names.listed()})


class ModelHandler(DialectHandler):
    """`/v1/models/{id}`."""

    path_parameters = (MODEL,)
    docs: ClassVar[Docs] = {"GET": FOUND}

    def get(self, name: str) -> None:
        """A model by any name that a request may give."""
        self.context.model_names.resolve(name)
        self.answer(described(name))


class UnknownCallHandler(DialectHandler):
    """What OpenAI's API has beside these, or below them."""

    def admit(self) -> None:
        """After the door: a stranger is not told what is here."""
        super().admit()
        raise RequestError(404, "not_found", "this worker does not have that part of OpenAI's API")
