"""The base of all handlers: the door, request ids, CORS, bounded bodies, JSON errors, sending under a deadline.

Front process, IOLoop thread. Bodies are taken as a stream, so that an oversize one is refused before it is read
and none is ever parsed as a form.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import uuid
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import responses
from typing import Any

import orjson
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.http.door import Door
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.operations.body import invalid
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.table import Desk
from rbee_sd.settings import Settings

access = logging.getLogger("rbee_sd.access")
log = logging.getLogger(__name__)

SMALL_BODY = 64 * 1024
"""Bytes that are read and ignored where no body is expected."""
LINGER_BYTES = 64 * 1024 * 1024
"""What is read and dropped of a body that was refused, so that its sender gets to see why."""
SLICE = 64 * 1024
"""Bytes handed to the socket at a time: the most that is held for a client that does not read."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


@dataclass(frozen=True, slots=True)
class Context:
    """What the handlers work with. One for the whole application."""

    settings: Settings
    door: Door
    registry: JobRegistry
    watcher: Watcher
    desk: Desk
    limits: Limits
    status: Any
    """Callable that returns the worker's status as a JSON object."""


@stream_request_body
class BaseHandler(RequestHandler):
    """Every route's handler derives from this."""

    open_to_all = False
    """Whether the route is answered without an API key."""
    max_body = SMALL_BODY

    def initialize(self, context: Context) -> None:
        """Called by Tornado with the route's keyword arguments."""
        self.context = context
        self.body = bytearray()
        self._dropped = 0
        self._turned_away = False
        self._admitted = False
        self._admitted_origin: str | None = None

    def set_default_headers(self) -> None:
        """Called at the start, and again when an error clears what was set."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        if not hasattr(self, "request_id"):
            sent = self.request.headers.get("X-Request-ID", "")
            self.request_id = sent if REQUEST_ID.fullmatch(sent) else f"req_{uuid.uuid4().hex}"
        self.set_header("X-Request-ID", self.request_id)

    async def prepare(self) -> None:
        """Runs when the headers are here and before any of the body."""
        try:
            self.admit()
        except RequestError as error:
            if not self._body_expected():
                raise
            await self._turn_away(error)
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
        if not self.context.door.origin_allowed(origin, headers.get("Sec-Fetch-Site"), host):
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
            raise self._too_large()
        if not self.open_to_all and not self.context.door.key_accepted(
            headers.get("Authorization"), headers.get("X-API-Key")
        ):
            raise RequestError(
                401,
                "invalid_api_key",
                "send the worker's API key as 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Called by Tornado with each part of the body."""
        if self._turned_away:
            self._dropped += len(chunk)
            if self._dropped > LINGER_BYTES:
                self.cut()
            return None
        self.body += chunk
        if len(self.body) <= self.max_body:
            return None
        self.body.clear()
        return self._turn_away(self._too_large())

    def options(self, *_: str) -> None:
        """CORS preflight, and plain OPTIONS."""
        self.set_header("Allow", self._allowed_methods())
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

    async def send(self, data: bytes) -> bool:
        """Send bytes in slices, each taken by the client within `listener_timeout`; False when it has gone.

        A client that does not read is cut off.
        """
        view = memoryview(data)
        for start in range(0, len(view), SLICE):
            self.write(bytes(view[start : start + SLICE]))
            if not await self.flushed():
                return False
        return True

    async def flushed(self) -> bool:
        """Wait until what was written has left; False when the client has gone or does not read."""
        try:
            async with asyncio.timeout(self.context.settings.listener_timeout):
                await self.flush()
        except StreamClosedError:
            return False
        except TimeoutError:
            log.warning("%s dropped a client that does not read: %s", self.request_id, self.request.path)
            self.cut()
            return False
        return True

    @property
    def socket_stream(self) -> Any:
        """Tornado's stream of this connection; None when it is gone."""
        connection: Any = self.request.connection
        return connection.stream

    def cut(self) -> None:
        """Close the connection without another word."""
        if self.socket_stream is not None:
            self.socket_stream.close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error, whoever raised it, as the contract's JSON."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        if not self._admitted:
            # Tornado closes behind an answer that is given before it has looked for a body.
            self.set_header("Connection", "close")
        self.finish(self._error_body(raised if isinstance(raised, RequestError) else _as_request_error(status_code)))

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

    def _error_body(self, error: RequestError) -> bytes:
        """Set status and headers for an error; returns the body."""
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        self._allow_origin()
        if error.status == 405:
            self.set_header("Allow", self._allowed_methods())
        for name, value in error.headers.items():
            self.set_header(name, value)
        fields = [asdict(field) for field in error.fields]
        body = {
            "code": error.code,
            "type": TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
            "message": error.message,
            "param": fields[0]["field"] if fields else None,
            "request_id": self.request_id,
            "errors": fields,
        }
        return orjson.dumps({"error": body})

    def _allow_origin(self) -> None:
        self.set_header("Vary", "Origin")
        if self._admitted_origin is None:
            return
        self.set_header("Access-Control-Allow-Origin", self._admitted_origin)
        self.set_header("Access-Control-Expose-Headers", "X-Request-ID, Retry-After, ETag")
        if self.request.method == "OPTIONS":
            self.set_header("Access-Control-Allow-Methods", self._allowed_methods())
            self.set_header(
                "Access-Control-Allow-Headers",
                "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-Request-ID",
            )
            self.set_header("Access-Control-Max-Age", "600")

    def _body_expected(self) -> bool:
        headers = self.request.headers
        # With `Expect` the client waits for the answer before it sends.
        announced = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
        return announced and "Expect" not in headers

    async def _turn_away(self, error: RequestError) -> None:
        """Answer before the body has been read, in a way that a client which is still sending can see.

        Closing while data arrives would reset the connection, and the answer with it. So the answer is sent, our
        half of the connection is closed, and what still comes is dropped, for LINGER_BYTES or `body_timeout`.
        """
        self._turned_away = True
        body = self._error_body(error)
        self.set_header("Connection", "close")
        self.set_header("Content-Length", str(len(body)))
        self.write(body)
        log_access(self)
        stream = self.socket_stream
        if await self.flushed() and not stream.closed():
            # A client that hung up in the meantime is no news.
            with suppress(OSError):
                stream.socket.shutdown(socket.SHUT_WR)
        # Tornado calls the method of this name once the body has come to its end.
        setattr(self, str(self.request.method).lower(), self._close_behind)

    async def _close_behind(self, *_: str) -> None:
        self.cut()

    def _too_large(self) -> RequestError:
        return RequestError(413, "body_too_large", f"the body is larger than {self.max_body} bytes")

    def _allowed_methods(self) -> str:
        methods = [
            name
            for name in self.SUPPORTED_METHODS
            if getattr(type(self), name.lower()) is not getattr(RequestHandler, name.lower())
        ]
        return ", ".join(methods)


def _as_request_error(status: int) -> RequestError:
    reason = responses.get(status, "error")
    message = "the worker failed on this request; the log has the request id" if status >= 500 else reason
    return RequestError(status, reason.lower().replace(" ", "_"), message)


class NotFoundHandler(BaseHandler):
    """Every path without a route."""

    def admit(self) -> None:
        """After the door: a stranger is not told what is here."""
        super().admit()
        raise RequestError(404, "not_found", "there is nothing at this path")


def log_access(handler: RequestHandler) -> None:
    """One line a request, when it ends; a stream's when the stream ends; a refused one's when it is refused."""
    if getattr(handler, "logged", False):
        return
    handler.logged = True  # type: ignore[attr-defined]
    request = handler.request
    level = logging.WARNING if handler.get_status() >= 500 else logging.INFO
    access.log(
        level,
        "%s %s %s %d %.1fms %s",
        request.remote_ip,
        request.method,
        request.uri,
        handler.get_status(),
        1000 * request.request_time(),
        getattr(handler, "request_id", "-"),
    )
