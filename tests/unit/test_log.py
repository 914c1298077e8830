"""`log`: one record is one line, whatever a client put into it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import orjson
import pytest

from rbee_sd import log as logs
from rbee_sd.log import JsonFormatter, TextFormatter

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HOSTILE = {
    "line feed": "a\n2026-11-21 10:00:00,123 INFO rbee_sd: forged",
    "carriage return": "a\rINFO forged",
    "both": "a\r\nb",
    "clear screen": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "eight-bit escape": "\x9b2J",
    "next line": "a\x85b",
    "form feeds": "a\x0bb\x0cc\x1cd\x1de\x1ef",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "NUL": "a\0b",
    "delete and backspace": "a\x7f\x08b",
    "percent": "%s %d %(name)s",
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


def record(message: str, *arguments: object, failed: bool = False) -> logging.LogRecord:
    """A log record; with `failed`, one with a traceback whose exception says the same as the message."""
    info = None
    if failed:
        try:
            raise ValueError(message)
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("rbee_sd.jobs", logging.INFO, "jobs.py", 1, message, arguments, info)


def harmless(line: str) -> bool:
    """Whether a text is one line without anything that steers a terminal."""
    return len(line.splitlines()) == 1 and not any(ord(mark) < 32 or 128 <= ord(mark) < 160 for mark in line)


@hostile
def test_a_text_line_stays_one_line(text: str) -> None:
    line = TextFormatter(FORMAT).format(record("%s queued: %s", "job_1", text))
    assert harmless(line)
    assert "\x7f" not in line
    assert "INFO rbee_sd.jobs: job_1 queued: " in line


@hostile
def test_a_json_line_stays_one_line_and_says_the_same(text: str) -> None:
    line = JsonFormatter().format(record("%s queued: %s", "job_1", text))
    assert orjson.loads(line)["message"] == f"job_1 queued: {text}"
    assert harmless(line)


def test_other_writing_is_left_as_it_is() -> None:
    text = "שלום 🎉 naïve — 日本語 \u202e"
    assert TextFormatter("%(message)s").format(record("%s", text)) == text
    assert orjson.loads(JsonFormatter().format(record("%s", text)))["message"] == text


def test_a_json_line_says_what_its_docstring_says() -> None:
    entry = orjson.loads(JsonFormatter().format(record("hello")))
    assert entry["level"] == "info"
    assert entry["logger"] == "rbee_sd.jobs"
    assert entry["message"] == "hello"
    assert isinstance(entry["time"], float)
    assert "exception" not in entry


def test_a_json_line_holds_a_whole_traceback() -> None:
    line = JsonFormatter().format(record("went wrong\nbadly", failed=True))
    assert harmless(line)
    assert "ValueError: went wrong\nbadly" in orjson.loads(line)["exception"]


def test_a_text_that_is_not_unicode_is_logged_all_the_same() -> None:
    # What the file system calls a folder whose name is not UTF-8.
    for formatter in (TextFormatter(FORMAT), JsonFormatter()):
        assert "cannot read caf" in formatter.format(record("cannot read %s", "caf\udce9"))


def test_a_traceback_follows_its_line() -> None:
    first, *rest = TextFormatter(FORMAT).format(record("went wrong", failed=True)).splitlines()
    assert first.endswith("went wrong")
    assert "Traceback" in rest[0]
    assert "ValueError: went wrong" in rest[-1]


@hostile
def test_a_traceback_cannot_forge_a_line_or_steer_a_terminal(text: str) -> None:
    # Libraries put what a client sent into their exceptions.
    _, *rest = TextFormatter(FORMAT).format(record(text, failed=True)).split("\n")
    assert all(harmless(line) for line in rest)
    assert not any(line.startswith("2026-") for line in rest)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize("style", ["text", "json"])
def test_configuring_twice_sends_each_record_once(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], style: str
) -> None:
    logs.configure("info", style)
    logs.configure("warning", style)
    logging.getLogger("rbee_sd.test").info("not shown")
    logging.getLogger("rbee_sd.test").warning("shown\nonce")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "shown" in captured.err
    assert captured.err.startswith("{") == (style == "json")
