"""The studio's files: what they are, how they are served, to whom."""

from __future__ import annotations

import re

import pytest

from rbee_sd.http.studio import FOLDER, TYPES
from rbee_sd.server import Server
from tests.conftest import Client
from tests.http.views import error_of

MOST = 120_000
"""Bytes of all files."""


async def test_the_page_and_every_file_it_names_are_there(client: Client) -> None:
    page = await client.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert {"studio/main.js", "studio/style.css", "studio/icon.svg"} <= named
    for path in named:
        answer = await client.http.get(f"/{path}")
        assert answer.status_code == 200, path
        if path != "docs":
            assert answer.content == (FOLDER / path.removeprefix("studio/")).read_bytes()


async def test_every_module_is_loaded_ahead_and_imports_only_its_neighbours(client: Client) -> None:
    page = (await client.http.get("/")).text
    modules = {path.name for path in FOLDER.glob("*.js")}
    assert {name for name in modules if f"studio/{name}" not in page} == set()
    for name in modules:
        for imported in re.findall(r'from "([^"]+)"', (FOLDER / name).read_text(encoding="utf-8")):
            assert imported.removeprefix("./") in modules, (name, imported)


def test_the_page_is_small_and_nothing_in_it_comes_from_elsewhere() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert {path.suffix for path in files} <= set(TYPES)
    assert sum(path.stat().st_size for path in files) < MOST
    for path in files:
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org"}, path.name


def test_every_module_says_what_it_owns() -> None:
    for path in FOLDER.glob("*.js"):
        assert re.match(r"// @ts-check\n// [A-Z].{60}", path.read_text(encoding="utf-8")), path.name


async def test_nothing_inline_and_nothing_from_elsewhere_may_run_in_the_page(client: Client) -> None:
    answer = await client.http.get("/")
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'self'", "img-src 'self' blob: data:", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", answer.text)


async def test_a_browser_that_has_a_file_is_not_sent_it_again(client: Client) -> None:
    for path in ("/", "/studio/main.js"):
        answer = await client.http.get(path)
        assert answer.headers["cache-control"] == "no-cache"
        again = await client.http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        changed = await client.http.get(path, headers={"If-None-Match": '"another"'})
        assert (changed.status_code, changed.content) == (200, answer.content)


@pytest.mark.parametrize(
    "path", ["/studio/none.js", "/studio/", "/studio/..%2fsettings.py", "/studio/../setup.py", "/studio/index"]
)
async def test_nothing_else_can_be_fetched_there(client: Client, path: str) -> None:
    error_of(await client.http.get(path), 404, "not_found")


async def test_the_page_is_only_read(client: Client) -> None:
    answer = await client.http.post("/", json={})
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    head = await client.http.head("/")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.settings(api_key="secret")
async def test_the_page_is_shown_without_the_key_and_what_it_shows_is_not(client: Client) -> None:
    assert (await client.http.get("/")).status_code == 200
    assert (await client.http.get("/studio/main.js")).status_code == 200
    for path in ("/v1/jobs", "/v1/status", "/v1/events", "/v1/capabilities"):
        error_of(await client.http.get(path), 401, "invalid_api_key")


async def test_the_page_keeps_to_the_names_of_the_worker(client: Client) -> None:
    for path in ("/", "/studio/main.js"):
        error_of(await client.http.get(path, headers={"Host": "evil.example"}), 403, "host_not_allowed")


async def test_a_link_anywhere_may_lead_to_the_page_but_to_nothing_else(client: Client) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await client.http.get("/", headers=followed)).status_code == 200
    for path, headers in (
        ("/v1/jobs", followed),
        ("/studio/main.js", followed),
        ("/", followed | {"Sec-Fetch-Mode": "no-cors"}),
        ("/", followed | {"Origin": "https://evil.example"}),
    ):
        error_of(await client.http.get(path, headers=headers), 403, "origin_not_allowed")


async def test_the_status_is_told_without_a_job(server: Server, client: Client) -> None:
    await client.ready()
    answer = await client.http.get("/v1/status")
    assert answer.status_code == 200
    assert answer.json() == server.status()
    assert answer.json()["engine"]["memory"] == 0
    assert (await client.http.get("/v1/jobs")).json()["jobs"] == []
