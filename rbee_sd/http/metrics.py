"""`/metrics`: numbers for Prometheus. Front process, IOLoop thread."""

from __future__ import annotations

from typing import ClassVar

from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.description import Answer, Doc, Docs

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsHandler(BaseHandler):
    """`/metrics`."""

    tag = "Worker"
    docs: ClassVar[Docs] = {
        "GET": Doc("Numbers for Prometheus", {200: Answer("In its text format.", {MEDIA_TYPE: None})})
    }

    def get(self) -> None:
        """Prometheus' text format, version 0.0.4."""
        self.set_header("Content-Type", MEDIA_TYPE)
        self.finish(self.context.metrics.text())
