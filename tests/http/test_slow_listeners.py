"""Listeners that do not read: dropped in time, counted as gone, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import events, raw_stream, running, works
from tests.http.wire import request

LITTLE = 2048
"""Bytes of receive buffer of a client that does not read."""

pytestmark = pytest.mark.settings(listener_timeout=0.5, disconnect_grace=0.3, heartbeat=0.2)


async def test_a_listener_that_does_not_read_is_dropped_and_its_job_cancelled(
    server: Server, client: Client, dial: Dial, faults: Faults
) -> None:
    faults.on("spam")
    job_id = await client.submit(steps=150)
    wire = await dial(server, receive_buffer=LITTLE)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    await eventually(lambda: server.watcher.listeners(job_id) == 1)
    start = time.monotonic()
    await eventually(lambda: server.watcher.listeners(job_id) == 0)
    assert time.monotonic() - start < 5
    view = await client.ended(job_id)
    assert view["state"] == "cancelled"
    assert view["step"] < 150
    faults.off("spam")
    await works(client)


# Here the client that reads lives in the worker's own loop: on a busy machine neither may get a turn for a while.
@pytest.mark.settings(listener_timeout=3.0, disconnect_grace=0.3, heartbeat=0.2)
async def test_a_listener_that_does_not_read_delays_no_other(
    server: Server, client: Client, dial: Dial, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    faults.on("spam")
    job_id = await client.submit(steps=2)
    await client.ready()
    slow = [await dial(server, receive_buffer=LITTLE) for _ in range(2)]
    for wire in slow:
        await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    raw = await what_a_client_gets_that_reads(server, dial, job_id)
    told = events(raw)
    assert len(told) > 20_000
    assert told[-1].name == "complete"
    assert [event.id for event in told] == list(range(1, len(told) + 1))
    delays = []
    for _ in range(20):
        start = time.perf_counter()
        assert (await client.http.get("/health")).status_code == 200
        delays.append(time.perf_counter() - start)
    assert min(delays) < 0.05
    await eventually(lambda: server.watcher.listeners(job_id) == 0)
    assert caplog.text.count("does not read") == len(slow)
    assert (await client.job(job_id))["state"] == "completed"


async def test_a_listener_that_does_not_read_is_dropped_also_where_little_is_sent(
    server: Server, client: Client, dial: Dial, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    # Less than the kernel takes: every write succeeds.
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=150)
    held = await what_a_client_gets_that_does_not_read(server, dial, job_id, caplog)
    assert b"event: progress" in held
    assert caplog.text.count("does not read") == 1


async def test_a_dropped_listener_can_come_back_and_has_lost_nothing(
    server: Server, client: Client, dial: Dial, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await long_story(client, faults)
    cut = await what_a_client_gets_that_does_not_read(server, dial, job_id, caplog)
    whole = await what_a_client_gets_that_reads(server, dial, job_id)
    assert len(cut) < len(whole)
    assert whole.startswith(cut)
    seen = int(cut[: cut.rindex(b"\n\n")].rpartition(b"\nid: ")[2].partition(b"\n")[0])
    rest = await raw_stream(client, job_id, headers={"Last-Event-ID": str(seen)})
    assert whole.endswith(rest.partition(b"\n\n")[2])
    assert rest.startswith(b"retry: 1000\n\nid: %d\n" % (seen + 1))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_little_is_held_for_a_listener_that_does_not_read(
    server: Server, client: Client, dial: Dial, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await long_story(client, faults)
    held = await what_a_client_gets_that_does_not_read(server, dial, job_id, caplog)
    # In the process and in the kernel together: what was sent and not read must lie somewhere.
    assert len(held) <= 256 * 1024 + 2 * LITTLE


async def long_story(client: Client, faults: Faults) -> str:
    """A finished job whose events are more than any kernel buffers."""
    faults.on("spam")
    job_id = await client.submit(steps=2, on_disconnect="finish")
    await client.ended(job_id)
    faults.off("spam")
    return job_id


async def what_a_client_gets_that_reads(server: Server, dial: Dial, job_id: str) -> bytes:
    """Listen to the end. Not with httpx2: it takes so long over a chunk that, on a busy machine, it counts as slow."""
    wire = await dial(server)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream", version="HTTP/1.0"))
    return (await wire.rest()).partition(b"\r\n\r\n")[2]


async def what_a_client_gets_that_does_not_read(
    server: Server, dial: Dial, job_id: str, caplog: pytest.LogCaptureFixture
) -> bytes:
    """Listen without reading until dropped; returns what of the stream was under way by then."""
    wire = await dial(server, receive_buffer=LITTLE)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream", version="HTTP/1.0"))
    await eventually(lambda: "does not read" in caplog.text)
    await eventually(lambda: server.watcher.total == 0)
    return (await wire.rest()).partition(b"\r\n\r\n")[2]


async def test_a_page_that_does_not_read_the_feed_is_dropped(
    server: Server, client: Client, dial: Dial, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    faults.on("spam")
    wire = await dial(server, receive_buffer=LITTLE)
    await wire.send(request("GET", "/v1/events"))
    await wire.until(b"retry: ")
    job_id = await client.submit(steps=8)
    await eventually(lambda: "does not read" in caplog.text)
    await client.http.delete(f"/v1/jobs/{job_id}")
    faults.off("spam")
    await works(client)


async def test_a_slow_but_steady_reader_is_kept(server: Server, client: Client, dial: Dial, faults: Faults) -> None:
    faults.on("spam", "once")
    job_id = await client.submit(steps=1, on_disconnect="finish")
    await client.ended(job_id)
    whole = await what_a_client_gets_that_reads(server, dial, job_id)
    wire = await dial(server, receive_buffer=LITTLE)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream", version="HTTP/1.0"))
    raw = b""
    while more := await wire.receive():
        raw += more
        # Read a few hundred kilobytes a second, longer than the patience for one that reads nothing.
        if len(raw) % 7 == 0:
            await asyncio.sleep(0.001)
    assert raw.partition(b"\r\n\r\n")[2] == whole


async def test_a_listener_that_vanishes_while_much_is_on_its_way_counts_as_gone(
    server: Server, client: Client, dial: Dial, faults: Faults
) -> None:
    faults.on("spam")
    job_id = await client.submit(steps=150)
    await running(client, job_id)
    for leave in ("close", "reset"):
        wire = await dial(server, receive_buffer=LITTLE)
        await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
        await wire.until(b"event: ")
        getattr(wire, leave)()
        await eventually(lambda: server.watcher.listeners(job_id) == 0, timeout=2)
    assert (await client.ended(job_id))["state"] == "cancelled"
    faults.off("spam")
    await works(client)


async def test_downloads_whose_client_vanishes_harm_nothing(
    server: Server, client: Client, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await client.submit(steps=1, width=2048, height=2048)
    await client.ended(job_id)
    for leave in ("close", "reset"):
        wire = await dial(server, receive_buffer=LITTLE)
        await wire.send(request("GET", f"/v1/jobs/{job_id}/image") * 50)
        await wire.until(b"\r\n\r\n")
        getattr(wire, leave)()
    await works(client)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
