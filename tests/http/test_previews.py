"""Previews on the wire: who gets them, and that nobody gets a stale one. The test plays the engine's part in them."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from rbee_sd.jobs.job import Job
from rbee_sd.messages import Narration, Preview
from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually, known
from tests.http.conftest import Dial
from tests.http.views import events, heard, listening, raw_stream, running
from tests.http.wire import Wire, request


async def held(server: Server, client: Client, faults: Faults) -> Job:
    """A job that runs, and hangs in its first step until `hang` is off."""
    faults.on("hang")
    job = known(server, await client.submit(steps=2))
    await running(client, job.id)
    await eventually(lambda: job.total)
    return job


async def previews_up_to(step: int, wire: Wire) -> list[int]:
    """The steps of the previews that come, up to and with this one."""
    read = b""
    while b'"step":%d,' % step not in read or not read.endswith(b"\n\n"):
        read += await wire.receive()
    data = [line[6:] for line in read.split(b"\n") if line.startswith(b'data: {"event":"preview"')]
    return [json.loads(line)["step"] for line in data]


@pytest.mark.parametrize("params", [{}, {"images": "url"}])
async def test_a_preview_comes_with_its_picture(
    server: Server, client: Client, faults: Faults, params: dict[str, str]
) -> None:
    job = await held(server, client, faults)
    async with listening(client, job.id, params=params) as told:
        await heard(told, "started")
        server.dispatcher.said(Preview(job.id, 0, 1, b"\xff\xd8 jpeg"))
        body = await heard(told, "preview")
    assert (body["index"], body["step"], body["total"], body["format"]) == (0, 1, 2, "jpeg")
    assert base64.b64decode(body["image_base64"], validate=True) == b"\xff\xd8 jpeg"
    faults.off("hang")


async def test_the_feed_carries_previews_too(server: Server, client: Client, faults: Faults) -> None:
    job = await held(server, client, faults)
    async with client.http.sse("/v1/events") as source:
        told = aiter(source)
        await anext(told)
        server.dispatcher.said(Preview(job.id, 0, 1, b"jpeg"))
        body = await heard(told, "preview")
    assert (body["job_id"], body["image_base64"]) == (job.id, base64.b64encode(b"jpeg").decode())
    faults.off("hang")


async def test_who_comes_late_gets_the_newest_preview_and_after_the_end_none(
    server: Server, client: Client, faults: Faults
) -> None:
    job = await held(server, client, faults)
    for step in (1, 2, 3):
        server.dispatcher.said(Preview(job.id, 0, step, b"jpeg"))
    late = asyncio.ensure_future(raw_stream(client, job.id))
    await eventually(lambda: server.watcher.listeners(job.id) == 1)
    faults.off("hang")
    during = events(await late)
    after = events(await raw_stream(client, job.id))
    assert [event.data["step"] for event in during if event.name == "preview"] == [3]
    assert after == [event for event in during if event.name != "preview"]


async def test_resuming_behind_every_id_gives_each_other_event_once(
    server: Server, client: Client, faults: Faults
) -> None:
    job = await held(server, client, faults)
    for step in (1, 2, 3):
        server.dispatcher.said(Preview(job.id, 0, step, b"jpeg"))
    faults.off("hang")
    await client.ended(job.id)
    whole = events(await raw_stream(client, job.id))
    assert whole[-1].id == job.log.last > len(whole)
    for seen in range(job.log.last):
        raw = await raw_stream(client, job.id, headers={"Last-Event-ID": str(seen)})
        assert events(raw) == [event for event in whole if event.id > seen], seen
        assert raw.endswith(b"data: [DONE]\n\n")
    answer = await client.http.get(f"/v1/jobs/{job.id}/stream", headers={"Last-Event-ID": str(job.log.last)})
    assert answer.status_code == 204


@pytest.mark.settings(listener_timeout=20)
@pytest.mark.parametrize("path", ["/v1/jobs/{}/stream", "/v1/events"])
async def test_a_slow_listener_is_sent_no_stale_previews(
    server: Server, client: Client, dial: Dial, faults: Faults, path: str
) -> None:
    job = await held(server, client, faults)
    wire = await dial(server, receive_buffer=4096)
    await wire.send(request("GET", path.format(job.id), version="HTTP/1.0"))
    await eventually(lambda: server.watcher.watched(job.id))
    for step in range(1, 301):
        server.dispatcher.said(Preview(job.id, 0, step, b"x" * 50_000))
        await asyncio.sleep(0)
    sent = await previews_up_to(300, wire)
    assert sent == sorted(set(sent))
    assert sent[-1] == 300
    # What fits the sockets' buffers was on its way before there was a newer one.
    assert len(sent) < 50
    faults.off("hang")


@pytest.mark.settings(listener_timeout=20)
async def test_a_preview_that_became_stale_behind_what_a_slow_listener_reads_is_not_sent(
    server: Server, client: Client, dial: Dial, faults: Faults
) -> None:
    job = await held(server, client, faults)
    for _ in range(20):
        server.dispatcher.said(Narration("x" * 100_000, job.id))
    server.dispatcher.said(Preview(job.id, 0, 1, b"jpeg"))
    wire = await dial(server, receive_buffer=4096)
    await wire.send(request("GET", f"/v1/jobs/{job.id}/stream", version="HTTP/1.0"))
    # It has everything to send, and has begun.
    assert b"event: narration" in await wire.until(b"event: narration")
    server.dispatcher.said(Preview(job.id, 0, 2, b"jpeg"))
    assert await previews_up_to(2, wire) == [2]
    faults.off("hang")


async def test_a_page_that_listens_to_everything_is_counted_while_it_does(server: Server, client: Client) -> None:
    assert not server.watcher.watched("any")
    async with client.http.stream("GET", "/v1/events"), client.http.stream("GET", "/v1/events") as answer:
        await anext(answer.aiter_raw())
        await eventually(lambda: server.watcher._everywhere == 2)
        assert server.watcher.watched("any")
        assert server.watcher.total == 0
    await eventually(lambda: not server.watcher.watched("any"))
    assert server.watcher._everywhere == 0
