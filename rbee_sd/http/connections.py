"""The HTTP server with a cap on connections. Front process, IOLoop thread.

Out of file descriptors, accepting fails again at every turn of the loop and floods the log, and the worker can open no
image and no pipe. So some are kept back, and a connection beyond the cap is closed as it comes.
"""

from __future__ import annotations

import logging
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

log = logging.getLogger(__name__)

RESERVE = 64
"""File descriptors for the loop, the engine's pipes, images, the log."""


def connections_within(files: int) -> int:
    """How many connections to take where a process may have so many open files."""
    return max(files - RESERVE, files // 2)


class CappedServer(HTTPServer):
    """Tornado's server. Set `cap` before it listens."""

    cap = connections_within(1024)
    _open = 0
    _refusing = False

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """A client has connected."""
        if self._open >= self.cap:
            if not self._refusing:
                log.warning("%d connections are open, which is the cap; more are refused", self._open)
            self._refusing = True
            stream.close()
            return
        self._open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """A connection that was taken has ended."""
        self._open -= 1
        self._refusing = False
        super().on_close(server_conn)
