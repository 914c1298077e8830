"""`/openapi.json` and `/docs`: what they say is so. All answers in this folder are looked up too; see `conftest`."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from pathlib import Path
from typing import Any

import pytest

from rbee_sd.http.docs.page import POLICY
from rbee_sd.server import Server
from tests.conftest import Client, Faults
from tests.documented import GENERAL, wrong
from tests.http.conftest import Dial, Undocumented
from tests.http.test_events_feed import feed, until_terminal
from tests.http.views import Told, error_of, listening, running
from tests.http.wire import request
from tests.pictures import png
from tests.unit.test_docs_page import Reader

NAMES = {
    "queued": "Queued",
    "started": "Started",
    "narration": "Narration",
    "progress": "Progress",
    "preview": "Preview",
    "complete": "Complete",
    "error": "Failed",
    "cancelled": "Cancelled",
}


async def document(client: Client) -> dict[str, Any]:
    """The document that a worker gives out."""
    answer = await client.http.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json()
    return document


async def seen(told: Told) -> set[str]:
    """Listen to the end; returns the names of the events, all of which are as the document says."""
    names = set()
    async for event in told:
        if event.data and event.data != "[DONE]":
            assert wrong(NAMES[event.event], json.loads(event.data)) == []
            names.add(event.event)
    return names


@pytest.mark.faults({"slow-start": "0.5"})
@pytest.mark.settings(max_steps=30)
async def test_the_document_is_of_this_worker_and_changes_when_its_model_is_loaded(
    server: Server, client: Client
) -> None:
    before = await document(client)
    assert before["components"]["schemas"]["ImageGeneration"]["properties"]["steps"]["maximum"] == 30
    assert before["paths"].keys() == GENERAL["paths"].keys()
    assert server.settings.model == "fake"
    await client.ready()
    after = await document(client)
    assert after["components"]["schemas"]["ImageGeneration"]["properties"]["model"]["enum"] == ["fake"]
    assert await document(client) == after


@pytest.mark.settings(api_key="sesame")
async def test_where_a_key_is_asked_for_the_document_wants_it_too_and_says_so(client: Client) -> None:
    error_of(await client.http.get("/openapi.json"), 401, "invalid_api_key")
    client.http.headers["Authorization"] = "Bearer sesame"
    assert "securitySchemes" in (await document(client))["components"]


async def test_another_host_gets_no_document(server: Server, dial: Dial) -> None:
    answer = await (await dial(server)).exchange(request("GET", "/openapi.json", "Host: evil.example"))
    error_of(answer, 403, "host_not_allowed")


async def test_the_page_may_load_nothing_and_run_nothing(client: Client) -> None:
    answer = await client.http.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.settings(api_key="sesame")
async def test_who_has_no_key_sees_a_page_that_names_nothing_of_this_worker(client: Client) -> None:
    page = (await client.http.get("/docs")).text
    assert "<code>$KEY</code>" in page
    assert "<code>model</code> <span>text</span>" in page
    page = (await client.http.get("/docs", headers={"X-API-Key": "sesame"})).text
    assert "<code>model</code> <span>fake</span>" in page


# The examples name the model that every real worker has.
@pytest.mark.settings(model="demo")
async def test_the_commands_on_the_page_work(server: Server, client: Client, tmp_path: Path) -> None:
    await client.ready()
    reader = Reader((await client.http.get("/docs")).content)
    options = ("--max-time", "2", "-w", "\n%{http_code}")
    for command in reader.commands:
        assert server.url in command
        # Some commands read these; others write an answer into one.
        for file in ("image.png", "mask.png"):
            (tmp_path / file).write_bytes(png())
        ended = await asyncio.create_subprocess_exec(
            *shlex.split(command), *options, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        told, _ = await ended.communicate()
        # The examples' job is none, and a stream of everything never ends.
        expected = b"404" if "job_" in command else b"200"
        assert told.rpartition(b"\n")[2] == expected, (command, told[-500:])


async def test_every_event_of_every_kind_of_job_is_as_the_document_says(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    async with listening(client, await client.submit(steps=8, preview=True)) as told:
        assert await seen(told) >= {"queued", "started", "progress", "preview", "complete"}
    job_id = (await client.http.post("/v1/jobs", json={"operation": "status"})).json()["job_id"]
    async with listening(client, job_id) as told:
        assert await seen(told) == {"queued", "complete"}
    cancelled = await client.submit(steps=6)
    await client.http.delete(f"/v1/jobs/{cancelled}")
    async with listening(client, cancelled) as told:
        assert await seen(told) >= {"queued", "cancelled"}
    faults.on("crash", "once")
    async with listening(client, await client.submit(steps=6)) as told:
        assert await seen(told) >= {"queued", "narration", "complete"}
    faults.on("fail")
    async with listening(client, await client.submit(steps=6)) as told:
        assert await seen(told) >= {"queued", "error"}


async def test_every_event_of_the_feed_is_as_the_document_says(client: Client) -> None:
    async with feed(client) as told:
        await client.submit(steps=2)
        collected = await until_terminal(told, 1)
    for event in collected:
        assert wrong(NAMES[event.event], json.loads(event.data)) == []


async def test_views_of_jobs_in_every_state_are_as_the_document_says(client: Client, faults: Faults) -> None:
    faults.on("fail", "once")
    await client.ended(await client.submit(steps=1))
    await client.ended(await client.submit(steps=1))
    faults.on("hang")
    await running(client, await client.submit(exclusive=True))
    waits = await client.submit(exclusive=True)
    gone = await client.submit()
    await client.http.delete(f"/v1/jobs/{gone}")
    page = (await client.http.get("/v1/jobs")).json()
    assert wrong("JobPage", page) == []
    assert {job["state"] for job in page["jobs"]} >= {"queued", "running", "completed", "failed", "cancelled"}, waits
    faults.off("hang")


async def test_an_answer_that_is_in_no_document_is_noticed(client: Client, undocumented: Undocumented) -> None:
    for method, path, status in (("GET", "/v1/jobs?limit=1", 418), ("GET", "/ready", 404), ("PUT", "/nowhere", 200)):
        arguments = ("127.0.0.1", method, path, status, 1.0, "-")
        undocumented.emit(logging.LogRecord("rbee_sd.access", logging.INFO, "", 0, "", arguments, None))
    assert undocumented.answers == {"GET /v1/jobs?limit=1: 418", "GET /ready: 404", "PUT /nowhere: 200"}
    undocumented.answers.clear()
    for method, path in (("PUT", "/v1/jobs"), ("OPTIONS", "/ready"), ("GET", "/nowhere"), ("GET", "/v1/jobs?state=x")):
        await client.http.request(method, path)
    assert not undocumented.answers
