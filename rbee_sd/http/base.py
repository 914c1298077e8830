"""The base of all handlers: the door, request ids, CORS, query arguments, JSON answers and errors.

Front process, IOLoop thread.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.http.context import Context
from rbee_sd.http.docs.answers import Error
from rbee_sd.http.docs.description import Docs, Parameter
from rbee_sd.http.errors import MEANINGS, error_json, error_of_status
from rbee_sd.http.owner import owner_of
from rbee_sd.http.transfer import TransferHandler
from rbee_sd.operations.body import invalid

log = logging.getLogger(__name__)

HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-API-Key", "X-Request-ID")
"""What a page may send."""
STAINLESS = re.compile(r"x-stainless-[a-z-]{1,40}", re.ASCII)
"""What OpenAI's package sends along, in a page too."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class BaseHandler(TransferHandler):
    """Every route's handler derives from this."""

    open_to_all = False
    """Whether the route is answered without an API key."""
    cross_site_links = False
    """Whether a link on a page of another origin may lead to the route."""

    # What the OpenAPI document says of it.
    tag: ClassVar[str]
    path_parameters: ClassVar[tuple[Parameter, ...]] = ()
    docs: ClassVar[Docs] = {}
    wrong_value: ClassVar[int] = 400
    """The status of what a request should not have said."""
    error_shape: ClassVar[type[BaseModel]] = Error
    meanings: ClassVar[Mapping[int, str]] = MEANINGS

    def initialize(self, context: Context) -> None:
        """Called by Tornado with the route's keyword arguments."""
        super().initialize(context)
        self._admitted = False
        self._admitted_origin: str | None = None
        self.key = ""
        self.owner = ""

    def set_default_headers(self) -> None:
        """Called at the start, and again when an error clears what was set."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        if not self.request_id:
            sent = self.request.headers.get("X-Request-ID", "")
            self.request_id = sent if REQUEST_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}"
        self.set_header("X-Request-ID", self.request_id)

    async def prepare(self) -> None:
        """Runs when the headers are here and before any of the body."""
        try:
            self.admit()
        except RequestError as error:
            if not self.body_expected():
                raise
            await self.turn_away(error)
        else:
            self._admitted = True

    def admit(self) -> None:
        """Raise `RequestError` for what must not come in. Subclasses add to it."""
        headers = self.request.headers
        host = headers.get("Host")
        origin = headers.get("Origin")
        if not self.context.door.host_allowed(host):
            raise RequestError(
                403, "host_not_allowed", "this worker does not go by that Host name; see the setting allowed_hosts"
            )
        followed = self.cross_site_links and headers.get("Sec-Fetch-Mode") == "navigate"
        site = None if followed else headers.get("Sec-Fetch-Site")
        if not self.context.door.origin_allowed(origin, site, host):
            raise RequestError(
                403,
                "origin_not_allowed",
                "pages from that origin may not use this worker; see the setting cors_origins",
            )
        self._admitted_origin = origin
        self._allow_origin()
        if self.request.method == "OPTIONS":
            return
        length = headers.get("Content-Length", "0")
        # Any other length is broken framing, which Tornado answers when it comes to the body.
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > self.max_body):
            raise self.too_large()
        if self.open_to_all:
            return
        key = self.context.door.key_name(headers.get("Authorization"), headers.get("X-API-Key"))
        if key is None:
            raise RequestError(
                401,
                "invalid_api_key",
                "send the worker's API key as 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
        self.key = key
        self.owner = key or owner_of(self.request.remote_ip, headers)
        self.context.quotas.request(self.owner)

    @classmethod
    def methods(cls) -> tuple[str, ...]:
        """The methods that the route has."""
        return tuple(
            name
            for name in cls.SUPPORTED_METHODS
            if getattr(cls, name.lower()) is not getattr(RequestHandler, name.lower())
        )

    def options(self, *_: str) -> None:
        """CORS preflight, and plain OPTIONS."""
        self.set_header("Allow", ", ".join(self.methods()))
        self.set_status(204)
        self.finish()

    def answer(self, body: Mapping[str, Any], status: int = 200) -> None:
        """Send a JSON object and finish."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(orjson.dumps(body))

    def choice(self, name: str, words: tuple[str, ...]) -> str:
        """A query argument that is one of `words`; the first when it is left out. Raises 400."""
        value = self.get_query_argument(name, words[0])
        if value not in words:
            wanted = ", ".join(word for word in words if word)
            raise invalid([FieldError(name, "one_of", f"must be one of {wanted}", value[:100])])
        return value

    def number(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """A query argument that is a whole number within bounds. Raises 400."""
        value = self.get_query_argument(name, str(default))
        if not (value.isascii() and value.isdigit() and len(value) < 10 and minimum <= int(value) <= maximum):
            text = f"must be a whole number from {minimum} to {maximum}"
            raise invalid([FieldError(name, "range", text, value[:100])])
        return int(value)

    def compute_etag(self) -> str | None:
        """No tag for what changes all the time; an image sets its own."""
        return None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error, whoever raised it, as the contract's JSON."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        if not self._admitted:
            # Tornado closes behind an answer that is given before it has looked for a body.
            self.set_header("Connection", "close")
        self.finish(self.error_answer(raised if isinstance(raised, RequestError) else error_of_status(status_code)))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Give a RequestError its own status; Tornado would answer 500 for what is no HTTPError."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        super().send_error(raised.status if isinstance(raised, RequestError) else status_code, **kwargs)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """A refused request is no news beyond its access line; anything else is a defect of ours."""
        if isinstance(value, RequestError | HTTPError | StreamClosedError):
            log.debug("%s: %s", self.request_id, value)
        else:
            log.error("%s: defect in %s", self.request_id, self.request.path, exc_info=value)

    def error_answer(self, error: RequestError) -> bytes:
        """Set status and headers for an error; returns the body."""
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        self._allow_origin()
        if error.status == 405:
            self.set_header("Allow", ", ".join(self.methods()))
        for name, value in error.headers.items():
            self.set_header(name, value)
        return self.error_body(error)

    def error_body(self, error: RequestError) -> bytes:
        """The JSON of an error: the contract's. A dialect has its own, and may add to the headers."""
        return error_json(error, self.request_id)

    def _allow_origin(self) -> None:
        self.set_header("Vary", "Origin")
        if self._admitted_origin is None:
            return
        self.set_header("Access-Control-Allow-Origin", self._admitted_origin)
        self.set_header("Access-Control-Expose-Headers", "X-Request-ID, Retry-After, X-Should-Retry, ETag")
        if self.request.method == "OPTIONS":
            self.set_header("Access-Control-Allow-Methods", ", ".join(self.methods()))
            self.set_header("Access-Control-Allow-Headers", ", ".join((*HEADERS, *self._stainless())))
            self.set_header("Access-Control-Max-Age", "600")

    def _stainless(self) -> list[str]:
        asked = self.request.headers.get("Access-Control-Request-Headers", "").lower().split(",")
        return [name.strip() for name in asked if STAINLESS.fullmatch(name.strip())]


class NotFoundHandler(BaseHandler):
    """Every path without a route."""

    def admit(self) -> None:
        """After the door: a stranger is not told what is here."""
        super().admit()
        raise RequestError(404, "not_found", "there is nothing at this path")
