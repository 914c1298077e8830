"""`/v1/events`: every job's events on one stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.views import TERMINAL, Told, events, heard, listening, raw_stream


@asynccontextmanager
async def feed(client: Client, last: str | None = None) -> AsyncIterator[Told]:
    """Listen to every job."""
    headers = {} if last is None else {"Last-Event-ID": last}
    async with client.http.sse("/v1/events", headers=headers) as source:
        told = aiter(source)
        # The retry block is here as soon as the cursor is.
        await anext(told)
        yield told


async def until_terminal(told: Told, jobs: int) -> list[httpx2.ServerSentEvent]:
    """Collect events until so many jobs have ended."""
    collected = []
    async for event in told:
        collected.append(event)
        jobs -= event.event in TERMINAL
        if not jobs:
            break
    return collected


def data(told: list[httpx2.ServerSentEvent], job_id: str) -> list[dict[str, Any]]:
    """The data of one job's events."""
    return [body for event in told if (body := json.loads(event.data))["job_id"] == job_id]


async def test_the_feed_holds_every_event_of_every_job_in_order(client: Client) -> None:
    async with feed(client) as told:
        jobs = [await client.submit(f"{n}", steps=3) for n in range(3)]
        collected = await until_terminal(told, 3)
    ids = [int(event.id) for event in collected]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    for event in collected:
        body = json.loads(event.data)
        assert body["event"] == body["type"] == event.event
    for job_id in jobs:
        own = events(await raw_stream(client, job_id, params={"images": "url"}))
        assert data(collected, job_id) == [event.data for event in own]


async def test_the_feed_has_the_headers_of_a_stream_and_no_image_data(client: Client) -> None:
    async with client.http.stream("GET", "/v1/events") as answer:
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        assert "no-cache" in answer.headers["cache-control"]
        assert answer.headers["x-accel-buffering"] == "no"
        raw = b""
        job_id = await client.submit(steps=1)
        async for part in answer.aiter_raw():
            raw += part
            if b"event: complete" in raw and raw.endswith(b"\n\n"):
                break
    complete = events(raw)[-1].data
    assert complete["job_id"] == job_id
    assert complete["images"][0]["url"] == f"/v1/jobs/{job_id}/images/0"
    assert "image_base64" not in complete
    assert b"[DONE]" not in raw


async def test_a_new_listener_hears_only_what_comes_from_now_on(client: Client) -> None:
    before = await client.submit(steps=1)
    await client.ended(before)
    async with feed(client) as told:
        after = await client.submit(steps=1)
        collected = await until_terminal(told, 1)
    assert {json.loads(event.data)["job_id"] for event in collected} == {after}


async def test_the_feed_resumes_after_every_id_without_loss_or_repeat(client: Client) -> None:
    async with feed(client) as told:
        await client.submit(steps=2)
        await client.submit(steps=2)
        collected = await until_terminal(told, 2)
    for place, event in enumerate(collected[:-1]):
        jobs_left = sum(later.event in TERMINAL for later in collected[place + 1 :])
        async with feed(client, event.id) as told:
            assert await until_terminal(told, jobs_left) == collected[place + 1 :]


async def test_the_feed_replays_what_it_has_to_a_listener_with_an_id_it_never_sent(client: Client) -> None:
    async with feed(client) as told:
        await client.submit(steps=1)
        collected = await until_terminal(told, 1)
    for sent in ("abc", "-1", "7", "9" * 19, "9" * 5000):
        async with feed(client, sent) as told:
            assert data(await until_terminal(told, 1), json.loads(collected[0].data)["job_id"]) == [
                json.loads(event.data) for event in collected
            ]


@pytest.mark.settings(heartbeat=0.1)
async def test_a_silent_feed_has_heartbeats(client: Client) -> None:
    raw = b""
    async with client.http.stream("GET", "/v1/events") as answer:
        async for part in answer.aiter_raw():
            raw += part
            if raw.count(b": hb\n\n") == 2:
                break
    assert events(raw) == []


async def test_listening_to_the_feed_keeps_no_job_alive(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    async with feed(client) as everything:
        job_id = await client.submit(steps=150)
        async with listening(client, job_id) as told:
            await heard(told, "progress")
        assert (await heard(everything, "cancelled"))["job_id"] == job_id
    assert (await client.job(job_id))["state"] == "cancelled"


async def test_leaving_the_feed_cancels_nothing(server: Server, client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    async with feed(client) as told:
        job_id = await client.submit(steps=25)
        await heard(told, "progress")
    assert (await client.ended(job_id))["state"] == "completed"


async def test_two_pages_that_listen_to_everything_hear_the_same(client: Client) -> None:
    async with feed(client) as first, feed(client) as second:
        await client.submit(steps=3)
        one, other = await asyncio.gather(until_terminal(first, 1), until_terminal(second, 1))
    assert one == other


async def test_a_page_that_comes_back_after_the_feed_has_moved_on_gets_what_is_left(
    client: Client, faults: Faults
) -> None:
    async with feed(client) as told:
        await client.submit(steps=1)
        first = (await until_terminal(told, 1))[0]
    faults.on("spam", "once")
    noisy = await client.submit(steps=1, on_disconnect="finish")
    await client.ended(noisy)
    async with feed(client, first.id) as told:
        collected = await until_terminal(told, 1)
    ids = [int(event.id) for event in collected]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert ids[0] > int(first.id) + 1
    assert json.loads(collected[-1].data)["job_id"] == noisy


@asynccontextmanager
async def feed_of(client: Client, *jobs: str) -> AsyncIterator[Told]:
    """Listen to every job, and keep these alive."""
    async with client.http.sse("/v1/events", params={"jobs": ",".join(jobs)}) as source:
        told = aiter(source)
        await anext(told)
        yield told


@pytest.mark.faults({"slow": "0.02", "capacity": "3"})
async def test_leaving_the_feed_cancels_the_jobs_it_named_and_no_other(client: Client) -> None:
    first, second, other = [await client.submit(f"{n}", steps=40) for n in range(3)]
    async with feed_of(client, first, second) as told:
        await heard(told, "progress")
    for job_id in (first, second):
        assert (await client.ended(job_id))["state"] == "cancelled"
    assert (await client.ended(other))["state"] == "completed"


async def test_a_page_that_is_loaded_again_within_grace_keeps_its_jobs(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=40)
    for _ in range(3):
        async with feed_of(client, job_id) as told:
            await heard(told, "progress")
    async with feed_of(client, job_id) as told:
        assert (await heard(told, "complete"))["job_id"] == job_id


@pytest.mark.faults({"slow": "0.02", "capacity": "2"})
@pytest.mark.settings(disconnect_grace=0.0)
async def test_a_job_is_named_by_another_feed_before_the_first_is_left(server: Server, client: Client) -> None:
    first = await client.submit(steps=30)
    async with feed_of(client, first) as before:
        await heard(before, "progress")
        second = await client.submit(steps=30)
        now = feed_of(client, first, second)
        told = await now.__aenter__()
    await eventually(lambda: server.watcher.total == 2)
    assert {event.event for event in await until_terminal(told, 2)} >= {"complete"}
    await now.__aexit__(None, None, None)
    assert [(await client.job(job_id))["state"] for job_id in (first, second)] == ["completed", "completed"]


async def test_the_feed_counts_each_named_job_once_and_ignores_what_is_none(
    server: Server, client: Client, faults: Faults
) -> None:
    over = await client.submit(steps=1)
    await client.ended(over)
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=30)
    async with feed_of(client, job_id, job_id, over, "job_none", "", "../x") as told:
        await heard(told, "progress")
        assert server.watcher.listeners(job_id) == 1
    assert (await client.ended(job_id))["state"] == "cancelled"
    await eventually(lambda: server.watcher.total == 0)
