"""Logging of both processes: standard library loggers, one line a record, to standard error.

`configure` is called once in each process, before anything else logs. Control characters in what clients sent
(line breaks, terminal escapes) are shown as escapes, so that a prompt cannot forge a line.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any

WAITING = 10_000
"""Lines of the log that may wait to be written."""
LAST_WORDS = 1.0
"""Seconds that the end of a process waits for its log."""

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


class BackgroundHandler(logging.Handler):
    """Writes to standard error from a thread of its own, so that a reader who does not read holds nobody up.

    Lines beyond `WAITING` that cannot be written are dropped and counted; the count is told when there is room.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(WAITING)
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. Does not block."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until what is queued has been written, for `LAST_WORDS` at most. Called by logging at the end."""
        deadline = time.monotonic() + LAST_WORDS
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            note = f"({dropped} lines of the log were dropped: nobody read them)\n" if dropped else ""
            # Standard error may be closed; there is nowhere to say so.
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{note}{line}\n")
                sys.stderr.flush()
            self._lines.task_done()


def configure(level: str = "info", style: str = "text", *, background: bool = False) -> None:
    """Send all records of this process to standard error. `level` and `style` are the settings of those names.

    Worker and engine want `background`: they must not wait for whoever reads the log.
    """
    handler: logging.Handler = BackgroundHandler() if background else logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
