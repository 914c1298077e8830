"""The page at `/docs`: everything of the document is on it, nothing runs in it, and nothing comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from html.parser import HTMLParser
from typing import Any

import pytest

from rbee_sd.http.docs.document import document
from rbee_sd.http.docs.kinds import kind_of
from rbee_sd.http.docs.page import POLICY, page, prose
from rbee_sd.http.routes import ROUTES
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.table import OPERATIONS
from rbee_sd.settings import Settings
from tests.documented import GENERAL

URL = "http://worker.example:8600"
EMPTY = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Takes a page apart. Fails for elements that are not closed in order."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in EMPTY:
            self.open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def of(self, name: str) -> list[str]:
        """The values of an attribute."""
        return [value for attribute, value in self.attributes if attribute == name]

    @property
    def commands(self) -> list[str]:
        """What can be copied into a shell."""
        return [text.replace("\\\n", "") for text in self.texts["pre"]]


@pytest.fixture(scope="module")
def reader() -> Reader:
    """The page of no worker in particular."""
    return Reader(page(GENERAL, URL))


def test_every_call_is_on_the_page_with_its_summary_and_a_command(reader: Reader) -> None:
    for path, methods in GENERAL["paths"].items():
        for method, written in methods.items():
            if method == "head":
                continue
            assert written["operationId"] in reader.of("id")
            assert any(text.startswith(written["summary"]) for text in reader.texts["p"])
            assert f"{method.upper()} {path}" in reader.texts["h2"]
    calls = sum(method != "head" for methods in GENERAL["paths"].values() for method in methods)
    assert len(reader.commands) == calls + 2 * (len(OPERATIONS) - 1)


def test_every_field_is_on_the_page_with_its_default_and_bounds(reader: Reader) -> None:
    names = {text.split()[0] for text in reader.texts["dt"]}
    for schema in GENERAL["components"]["schemas"].values():
        assert set(schema.get("properties", ())) <= names
    lines = {" ".join(text.split()) for text in reader.texts["dt"]}
    assert "steps whole number, at least 1" in lines
    assert "priority whole number, -100 to 100; 0 when left out" in lines
    assert "strength number, more than 0, up to 1; 0.8 when left out" in lines
    assert "on_disconnect cancel or finish; cancel when left out" in lines
    assert "preview true or false; false when left out" in lines
    assert "prompt text, 1 to 10,000 characters required" in lines
    assert "limit whole number, 1 to 200; 50 when left out" in lines


def test_bounds_of_a_worker_are_on_its_page() -> None:
    limits = Limits(Settings(max_steps=33), ("demo", "sd-turbo"), lambda: None)
    reader = Reader(page(document(ROUTES, limits, locked=False), URL))
    lines = {" ".join(text.split()) for text in reader.texts["dt"]}
    assert "steps whole number, 1 to 33" in lines
    assert "model demo or sd-turbo" in lines


def test_every_link_leads_to_a_place_on_the_page_or_to_the_document(reader: Reader) -> None:
    names = reader.of("id")
    assert len(names) == len(set(names))
    assert {link.removeprefix("#") for link in reader.of("href")} - set(names) == {"openapi.json"}


def test_nothing_runs_and_nothing_comes_from_elsewhere(reader: Reader) -> None:
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "style")]
    (style,) = reader.texts["style"]
    assert "url(" not in style
    assert "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in POLICY
    assert POLICY.startswith("default-src 'none';")


def test_the_page_suits_narrow_windows_and_dark_rooms(reader: Reader) -> None:
    (style,) = reader.texts["style"]
    assert "width=device-width, initial-scale=1" in reader.of("content")
    assert "color-scheme: light dark" in style
    assert "prefers-color-scheme: dark" in style
    assert "table" not in reader.tags
    # Nothing has a width of its own below the one at which there is room for two columns.
    narrow, _, _ = style.partition("@media (min-width")
    assert not re.search(r"[^-]width: [\d.]+(px|rem|em)", narrow)
    assert re.search(r"pre \{[^}]*overflow-x: auto", style)


def test_commands_are_good_shell(reader: Reader) -> None:
    for command in reader.commands:
        words = shlex.split(command)
        assert words[0] == "curl"
        assert sum(word.startswith(URL) for word in words) == 1
        assert "{" not in next(word for word in words if word.startswith(URL))
        if "-d" in words:
            assert isinstance(json.loads(words[words.index("-d") + 1]), dict)


def test_where_a_key_is_asked_for_commands_send_it() -> None:
    reader = Reader(page(document(ROUTES, None, locked=True), URL))
    for command in reader.commands:
        is_open = re.search(rf"{URL}/(|health|ready|docs|studio/main.js)( |$)", command)
        assert ('-H "Authorization: Bearer $KEY"' in command) == (is_open is None)


def test_what_is_no_html_stays_text() -> None:
    evil = "<script>alert(`1`)</script>"
    assert prose(evil) == "&lt;script&gt;alert(<code>1</code>)&lt;/script&gt;"
    limits = Limits(Settings(), (evil,), lambda: None)
    html = page(document(ROUTES, limits, locked=False), f"http://{evil}")
    assert b"<script" not in html
    Reader(html)


@pytest.mark.parametrize(
    "schema, words",
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 1, "maxLength": 10000}, "text, 1 to 10,000 characters"),
        ({"type": "integer", "minimum": 64, "multipleOf": 8}, "whole number, at least 64, a multiple of 8"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1.5}, "number, more than 0, up to 1.5"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Lora"}, "maxItems": 8}, "list of Lora, up to 8"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "whole number or null"),
        ({"enum": ["", "queued", "running"]}, "empty, queued or running"),
        ({"const": "localhost"}, "localhost"),
        ({"enum": []}, "none"),
        ({}, "anything"),
    ],
)
def test_a_schema_is_put_into_words(schema: dict[str, Any], words: str) -> None:
    assert "".join(piece.text for piece in kind_of(schema)) == words
