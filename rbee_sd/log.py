"""Logging of both processes: standard library loggers, one line a record, to standard error.

`configure` is called once in each process, before anything else logs. Control characters in what clients sent
(line breaks, terminal escapes) are shown as escapes, so that a prompt cannot forge a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


class TextFormatter(logging.Formatter):
    """`2026-11-21 10:00:00,123 INFO rbee_sd.jobs: job_… queued`; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        record.message = record.message.translate(_CONTROLS)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Indented, since its text may hold what a client sent: no line of it must look like a record."""
        lines = super().formatException(ei).split("\n")
        return "\n".join("  " + line.translate(_CONTROLS) for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: time (Unix seconds), level, logger, process, message, exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(level: str = "info", style: str = "text") -> None:
    """Send all records of this process to standard error. `level` and `style` are the settings of those names."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        formatter = TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        formatter.converter = time.localtime
        handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
