"""`/metrics`: numbers for Prometheus. Front process, IOLoop thread."""

from __future__ import annotations

from rbee_sd.http.base import BaseHandler


class MetricsHandler(BaseHandler):
    """`/metrics`."""

    def get(self) -> None:
        """Prometheus' text format, version 0.0.4."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.context.metrics.text())
