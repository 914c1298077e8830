"""`/openapi.json` and `/docs`: the worker's API for programs and for people. Front process, IOLoop thread.

Making the document takes tens of milliseconds, so it is kept until something that is in it has changed. The page is
open to all, as a browser cannot be made to send a key with it: to who sends none where one is asked for, it says what
holds for every worker, and nothing of this one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs
from rbee_sd.http.docs.document import Routes, document
from rbee_sd.http.docs.page import POLICY, page
from rbee_sd.operations.limits import Limits


class Book:
    """The document of `routes`, for one worker and for all. `locked`: an API key is asked for."""

    def __init__(self, routes: Routes, limits: Limits, *, locked: bool) -> None:
        self._routes = routes
        self._limits = limits
        self._locked = locked
        self._made_for: Any = None
        self._made: dict[str, Any] = {}
        self._general: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """The document of this worker as it is now."""
        limits = self._limits
        state = limits.loaded(), tuple(limits.models), limits.loras
        if state != self._made_for:
            self._made = document(self._routes, limits, locked=self._locked)
            self._made_for = state
        return self._made

    def general(self) -> dict[str, Any]:
        """The document without anything of this worker but whether it asks for a key."""
        self._general = self._general or document(self._routes, None, locked=self._locked)
        return self._general


class OpenAPIHandler(BaseHandler):
    """`/openapi.json`."""

    tag = "Worker"
    docs: ClassVar[Docs] = {"GET": Doc("This document", {200: Answer("OpenAPI 3.1.", {JSON: None})})}

    def get(self) -> None:
        """The document, with what this worker accepts now."""
        self.answer(self.settings["book"].document())


class DocsHandler(BaseHandler):
    """`/docs`."""

    open_to_all = True
    tag = "Worker"
    docs: ClassVar[Docs] = {"GET": Doc("This document as a page", {200: Answer("For people.", {"text/html": None})})}

    def get(self) -> None:
        """The page."""
        book = self.settings["book"]
        headers = self.request.headers
        known = self.context.door.key_name(headers.get("Authorization"), headers.get("X-API-Key")) is not None
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        url = f"{self.request.protocol}://{self.request.host}"
        self.finish(page(book.document() if known else book.general(), url))
