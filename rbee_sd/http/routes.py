"""The table of routes, and the application they make. Front process."""

from __future__ import annotations

from typing import Any

from tornado.httputil import ParseBodyConfig, ParseMultipartConfig, set_parse_body_config
from tornado.web import Application

from rbee_sd.http.access import log_access
from rbee_sd.http.base import BaseHandler, NotFoundHandler
from rbee_sd.http.context import Context
from rbee_sd.http.docs.handlers import Book, DocsHandler, OpenAPIHandler
from rbee_sd.http.health import CapabilitiesHandler, HealthHandler, ReadyHandler, StatusHandler
from rbee_sd.http.jobs import CancellableJobHandler, ImageHandler, JobHandler, JobsHandler, SubmitHandler
from rbee_sd.http.metrics import MetricsHandler
from rbee_sd.http.openai.handlers import UnknownCallHandler
from rbee_sd.http.openai.routes import OPENAI
from rbee_sd.http.sdapi.base import UnknownHandler
from rbee_sd.http.sdapi.routes import SDAPI
from rbee_sd.http.stream import FeedHandler, JobStreamHandler
from rbee_sd.http.studio import AssetHandler, StudioHandler

JOB = FILE = r"([^/]+)"

ROUTES: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/", StudioHandler),
    (rf"/studio/{FILE}", AssetHandler),
    (r"/health", HealthHandler),
    (r"/ready", ReadyHandler),
    (r"/metrics", MetricsHandler),
    (r"/openapi\.json", OpenAPIHandler),
    (r"/docs", DocsHandler),
    (r"/v1/capabilities", CapabilitiesHandler),
    (r"/v1/status", StatusHandler),
    (r"/v1/events", FeedHandler),
    (r"/v1/jobs", JobsHandler),
    (rf"/v1/jobs/{JOB}", CancellableJobHandler),
    (rf"/v1/jobs/{JOB}/status", JobHandler),
    (rf"/v1/jobs/{JOB}/stream", JobStreamHandler),
    (rf"/v1/jobs/{JOB}/image", ImageHandler),
    (rf"/v1/jobs/{JOB}/images/([0-9]+)", ImageHandler),
    (r"/v1/inference", SubmitHandler),
    (rf"/v1/inference/{JOB}/status", JobHandler),
    (rf"/v1/inference/{JOB}/stream", JobStreamHandler),
    *OPENAI,
    *SDAPI,
)
UNKNOWN: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/v1/(?:images|models)/.*", UnknownCallHandler),
    (r"/sdapi/.*", UnknownHandler),
)
"""Paths without a route whose clients want to be told so in their own way."""


def make_application(context: Context) -> Application:
    """The Tornado application for `context`."""
    # It would be done before the door is asked, on every route; `openai/forms` does it where a form is wanted.
    set_parse_body_config(ParseBodyConfig(multipart=ParseMultipartConfig(enabled=False)))
    arguments: dict[str, Any] = {"context": context}
    return Application(
        [(path, handler, arguments) for path, handler in (*ROUTES, *UNKNOWN)],
        default_handler_class=NotFoundHandler,
        default_handler_args=arguments,
        log_function=log_access,
        book=Book(ROUTES, context.limits, locked=context.door.locked),
    )
