"""Bytes in and out of a handler: bounded bodies, refusals that arrive, sending under a deadline.

Front process, IOLoop thread. Bodies are taken as a stream, so that an oversize one is refused before it is read
and none is ever parsed as a form.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler, stream_request_body

from rbee_sd.errors import RequestError
from rbee_sd.http.access import log_access
from rbee_sd.http.context import Context

log = logging.getLogger(__name__)

SMALL_BODY = 64 * 1024
"""Bytes that are read and ignored where no body is expected."""
LINGER_BYTES = 64 * 1024 * 1024
"""What is read and dropped of a body that was refused, so that its sender gets to see why."""
SLICE = 64 * 1024
"""Bytes handed to the socket at a time: the most that is held for a client that does not read."""


@stream_request_body
class TransferHandler(RequestHandler):
    """What `BaseHandler` builds on."""

    max_body = SMALL_BODY
    request_id = ""

    def initialize(self, context: Context) -> None:
        """Called by Tornado with the route's keyword arguments."""
        self.context = context
        self.body = bytearray()
        self._dropped = 0
        self._turned_away = False
        self._unread = False

    def error_answer(self, error: RequestError) -> bytes:
        """Set status and headers for an error; returns the body. `BaseHandler` does it."""
        raise NotImplementedError

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
        return self.turn_away(self.too_large())

    def body_expected(self) -> bool:
        """Whether the client is sending a body, or about to."""
        headers = self.request.headers
        # With `Expect` the client waits for the answer before it sends.
        announced = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
        return announced and "Expect" not in headers

    async def turn_away(self, error: RequestError) -> None:
        """Answer before the body has been read, in a way that a client which is still sending can see.

        Closing while data arrives would reset the connection, and the answer with it. So the answer is sent, our
        half of the connection is closed, and what still comes is dropped, for LINGER_BYTES or `body_timeout`.
        """
        self._turned_away = True
        body = self.error_answer(error)
        self.set_header("Connection", "close")
        self.set_header("Content-Length", str(len(body)))
        self.write(body)
        log_access(self)
        stream = self.socket_stream
        if await self.flushed() and stream is not None and not stream.closed():
            # A client that hung up in the meantime is no news.
            with suppress(OSError):
                stream.socket.shutdown(socket.SHUT_WR)
        # Tornado calls the method of this name once the body has come to its end.
        setattr(self, str(self.request.method).lower(), self._close_behind)

    async def _close_behind(self, *_: str) -> None:
        self.cut()

    def too_large(self) -> RequestError:
        """The refusal of an oversize body."""
        return RequestError(413, "body_too_large", f"the body is larger than {self.max_body} bytes")

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
            self.tell_unread()
            self.cut()
            return False
        return True

    def tell_unread(self) -> None:
        """Count it, and say in the log why the client was cut off; once, should the kernel see it too."""
        if self._unread:
            return
        self._unread = True
        self.context.metrics.dropped()
        log.warning("%s dropped a client that does not read: %s", self.request_id, self.request.path)

    @property
    def socket_stream(self) -> Any:
        """Tornado's stream of this connection; None when it is gone."""
        connection: Any = self.request.connection
        return connection.stream

    def cut(self) -> None:
        """Close the connection without another word."""
        if self.socket_stream is not None:
            self.socket_stream.close()
