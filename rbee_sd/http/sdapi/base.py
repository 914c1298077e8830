"""What the handlers of AUTOMATIC1111's dialect share: its errors, and how its requests are read.

Front process, IOLoop thread. Its clients know FastAPI's status for a wrong value, 422, and one shape of errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeVar

import orjson

from rbee_sd.errors import RequestError
from rbee_sd.http.body import BodyHandler
from rbee_sd.http.sdapi.answers import MEANINGS, SdapiError
from rbee_sd.http.sdapi.requests import SdapiRequest
from rbee_sd.operations.body import validate
from rbee_sd.operations.json_object import parse_object

R = TypeVar("R", bound=SdapiRequest)


class SdapiHandler(BodyHandler):
    """Every route under `/sdapi/v1`."""

    tag = "AUTOMATIC1111"
    error_shape = SdapiError
    meanings = MEANINGS
    wrong_value = 422
    takes: ClassVar[type[SdapiRequest] | None] = None
    """What a POST holds; None where nothing of a body is looked at."""
    names: ClassVar[Mapping[str, str]] = {}
    """What clients of this dialect call fields of ours that an error may name, where they call them something else."""

    def check_type(self) -> None:
        """Raise 415 for what is not JSON. Many programs for this dialect send JSON without saying so."""
        if self.takes is None:
            return
        if "Content-Type" in self.request.headers:
            super().check_type()
        else:
            self.check_encoding()

    def read(self, model: type[R]) -> R:
        """The request in the body, which is let go of. Raises `RequestError`."""
        body, self.body = bytes(self.body), bytearray()
        return validate(model, parse_object(body), None)

    def answer_list(self, entries: list[dict[str, object]]) -> None:
        """Send a JSON list and finish."""
        self.set_header("Content-Type", "application/json")
        self.finish(orjson.dumps(entries))

    def error_answer(self, error: RequestError) -> bytes:
        """Set status and headers for an error; returns the body."""
        body = super().error_answer(error)
        if error.status == 400:
            self.set_status(self.wrong_value)
        if error.status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="rbee-sd"')
        return body

    def error_body(self, error: RequestError) -> bytes:
        """The JSON of an error, with fields under the names of this dialect."""
        named = [f"{self._renamed(field.field)}: {field.message}" for field in error.fields]
        text = "; ".join(named) or error.message
        return orjson.dumps({"error": error.code, "detail": text, "body": "", "errors": text})

    def _renamed(self, field: str) -> str:
        first, _, rest = field.partition(".")
        return self.names.get(first, first) + (f".{rest}" if rest else "")


class UnknownHandler(SdapiHandler):
    """Every path of the dialect without a route."""

    def admit(self) -> None:
        """After the door: a stranger is not told what is here."""
        super().admit()
        raise RequestError(404, "not_found", "this worker does not have that part of AUTOMATIC1111's API")
