"""`/openapi.json`: the worker's API for programs. Front process, IOLoop thread.

Making the document takes tens of milliseconds, so it is kept until something that is in it has changed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rbee_sd.http.base import BaseHandler
from rbee_sd.http.description import JSON, Answer, Call, Calls
from rbee_sd.http.openapi import Routes, document
from rbee_sd.operations.limits import Limits


class Book:
    """The document of `routes`, for one worker. `locked`: an API key is asked for."""

    def __init__(self, routes: Routes, limits: Limits, *, locked: bool) -> None:
        self._routes = routes
        self._limits = limits
        self._locked = locked
        self._made_for: Any = None
        self._made: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """The document as it is now."""
        limits = self._limits
        state = limits.loaded(), limits.models, limits.loras
        if state != self._made_for:
            self._made = document(self._routes, limits, locked=self._locked)
            self._made_for = state
        return self._made


class OpenAPIHandler(BaseHandler):
    """`/openapi.json`."""

    tag = "Worker"
    calls: ClassVar[Calls] = {"GET": Call("This document", {200: Answer("OpenAPI 3.1.", {JSON: None})})}

    def get(self) -> None:
        """The document, with what this worker accepts now."""
        self.answer(self.settings["book"].document())
