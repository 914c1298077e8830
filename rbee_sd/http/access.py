"""The access log: one line a request. Front process, IOLoop thread."""

from __future__ import annotations

import logging

from tornado.web import RequestHandler

access = logging.getLogger("rbee_sd.access")


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
