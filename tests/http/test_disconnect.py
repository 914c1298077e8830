"""Leaving: when the last listener has gone and none returns, the job stops and the engine is free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import (
    events,
    forwards,
    heard,
    listening,
    raw_stream,
    running,
    steps,
    without_heartbeats,
    works,
)
from tests.http.wire import Wire, request

pytestmark = pytest.mark.faults({"slow": "0.02"})

LONG = 150
"""Steps that take three seconds: far longer than the grace period."""


async def listen(server: Server, dial: Dial, job_id: str) -> Wire:
    """Listen on a raw connection until the first step, having read all there is."""
    wire = await dial(server)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    await wire.until(b"event: progress")
    return wire


async def test_the_last_listener_leaving_stops_the_engine_within_grace_and_a_step(
    client: Client, faults: Faults
) -> None:
    job_id = await client.submit(steps=LONG)
    async with listening(client, job_id) as told:
        await heard(told, "progress")
    left = time.time()
    view = await client.ended(job_id)
    assert view["state"] == "cancelled"
    assert 0.25 < view["finished_at"] - left < 1
    terminal = events(await raw_stream(client, job_id))[-1]
    assert terminal.name == "cancelled"
    # The engine does one job at a time: had the cancelled one gone on, its steps would be in this count.
    faults.off("slow")
    await client.ended(await client.submit(steps=5))
    stopped = await forwards(client) - 5
    assert terminal.data["step"] <= stopped <= terminal.data["step"] + 2
    assert stopped < LONG / 2


async def test_a_listener_who_returns_within_grace_finds_the_job_running_and_misses_nothing(client: Client) -> None:
    job_id = await client.submit(steps=30)
    seen = 0
    for _ in range(3):
        async with listening(client, job_id) as told:
            await heard(told, "progress")
            seen = int((await anext(told)).id)
    rest = await raw_stream(client, job_id, headers={"Last-Event-ID": str(seen)})
    assert events(rest)[0].id == seen + 1
    whole = await raw_stream(client, job_id)
    assert steps(whole) == list(range(1, 31))
    assert events(whole)[-1].name == "complete"
    assert without_heartbeats(whole).endswith(without_heartbeats(rest).partition(b"\n\n")[2])
    assert await forwards(client) == 30


async def test_leaving_again_after_a_return_starts_the_grace_anew(client: Client) -> None:
    job_id = await client.submit(steps=LONG)
    for _ in range(2):
        async with listening(client, job_id) as told:
            await heard(told, "progress")
    left = time.time()
    view = await client.ended(job_id)
    assert view["state"] == "cancelled"
    assert view["finished_at"] - left > 0.25


async def test_one_of_two_listeners_leaving_changes_nothing_for_the_other(client: Client) -> None:
    job_id = await client.submit(steps=30)
    stays = asyncio.ensure_future(raw_stream(client, job_id))
    async with listening(client, job_id) as told:
        await heard(told, "progress")
    raw = await stays
    assert steps(raw) == list(range(1, 31))
    assert events(raw)[-1].name == "complete"


async def test_the_job_stops_when_the_last_of_many_has_left(server: Server, client: Client, dial: Dial) -> None:
    job_id = await client.submit(steps=LONG)
    wires = [await listen(server, dial, job_id) for _ in range(5)]
    for wire in wires[1:]:
        wire.close()
    await eventually(lambda: server.watcher.listeners(job_id) == 1)
    await wires[0].until(b"event: progress")
    assert (await client.job(job_id))["state"] == "running"
    wires[0].close()
    assert (await client.ended(job_id))["state"] == "cancelled"


async def test_the_listener_of_a_queued_job_leaving_ends_that_job_only(client: Client) -> None:
    runs = await client.submit(steps=30)
    waits, behind = await client.submit(steps=LONG), await client.submit(steps=2)
    await running(client, runs)
    async with listening(client, waits) as told:
        await heard(told, "queued")
    view = await client.ended(waits)
    assert (view["state"], view["attempt"], view["started_at"]) == ("cancelled", 0, None)
    assert (await client.job(runs))["state"] == "running"
    assert [(await client.ended(job_id))["state"] for job_id in (runs, behind)] == ["completed", "completed"]
    assert await forwards(client) == 32


async def test_a_job_that_asked_to_be_finished_is_finished_without_listeners(client: Client) -> None:
    job_id = await client.submit(steps=30, on_disconnect="finish")
    async with listening(client, job_id) as told:
        await heard(told, "progress")
    view = await client.ended(job_id)
    assert view["state"] == "completed"
    assert view["run_s"] > 0.4
    assert steps(await raw_stream(client, job_id)) == list(range(1, 31))


async def test_a_job_nobody_ever_listened_to_runs_to_its_end(client: Client) -> None:
    job_id = await client.submit(steps=30)
    view = await client.ended(job_id)
    assert view["state"] == "completed"
    assert steps(await raw_stream(client, job_id)) == list(range(1, 31))


async def test_looking_at_a_job_is_not_listening_to_it(server: Server, client: Client) -> None:
    job_id = await client.submit(steps=30)
    await running(client, job_id)
    for path in ("", "/status", "/image"):
        await client.http.get(f"/v1/jobs/{job_id}{path}")
    assert server.watcher.total == 0
    assert (await client.ended(job_id))["state"] == "completed"


@pytest.mark.settings(disconnect_grace=0.0)
async def test_without_grace_the_job_stops_at_once(client: Client) -> None:
    job_id = await client.submit(steps=LONG)
    async with listening(client, job_id) as told:
        await heard(told, "progress")
    left = time.time()
    view = await client.ended(job_id)
    assert view["state"] == "cancelled"
    assert view["finished_at"] - left < 0.5


@pytest.mark.settings(heartbeat=10.0)
@pytest.mark.faults({})
@pytest.mark.parametrize("leave", [Wire.close, Wire.reset, Wire.half_close], ids=["fin", "rst", "half-close"])
async def test_a_listener_who_leaves_is_noticed_at_once(
    server: Server, client: Client, dial: Dial, faults: Faults, leave: Callable[[Wire], None]
) -> None:
    faults.on("hang")
    job_id = await client.submit(steps=2, on_disconnect="finish")
    await running(client, job_id)
    times = []
    for _ in range(5):
        wire = await dial(server)
        await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
        await wire.until(b"event: started")
        await eventually(lambda: server.watcher.listeners(job_id) == 1)
        start = time.perf_counter()
        leave(wire)
        await eventually(lambda: server.watcher.listeners(job_id) == 0)
        times.append(time.perf_counter() - start)
    # No heartbeat comes so soon: it is the connection itself that tells.
    assert min(times) < 0.05
    assert max(times) < 1
    faults.off("hang")


@pytest.mark.settings(heartbeat=0.2)
@pytest.mark.faults({})
@pytest.mark.parametrize("leave", [Wire.close, Wire.reset], ids=["fin", "rst"])
async def test_a_listener_who_sent_stray_bytes_before_leaving_is_noticed_with_the_heartbeats(
    server: Server, client: Client, dial: Dial, faults: Faults, leave: Callable[[Wire], None]
) -> None:
    faults.on("hang")
    job_id = await client.submit(steps=2, on_disconnect="finish")
    await running(client, job_id)
    for stray in (b"x", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"y" * 100_000):
        wire = await dial(server)
        await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
        await wire.until(b"event: started")
        await wire.send(stray)
        # Still served while it is there.
        await wire.until(b": hb\n\n")
        start = time.perf_counter()
        leave(wire)
        await eventually(lambda: server.watcher.listeners(job_id) == 0)
        assert time.perf_counter() - start < 1.5
    faults.off("hang")
    await works(client)


@pytest.mark.settings(heartbeat=0.2)
async def test_the_job_of_a_listener_who_sent_stray_bytes_and_left_is_cancelled(
    server: Server, client: Client, dial: Dial
) -> None:
    job_id = await client.submit(steps=LONG)
    wire = await listen(server, dial, job_id)
    await wire.send(b"hello?")
    await wire.until(b"event: progress")
    wire.close()
    assert (await client.ended(job_id))["state"] == "cancelled"


async def test_a_listener_who_leaves_before_the_first_byte_counts_as_gone(
    server: Server, client: Client, dial: Dial
) -> None:
    # On a busy machine an engine takes longer to start than the grace period lasts.
    await client.ready()
    job_id = await client.submit(steps=LONG)
    wire = await dial(server)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    wire.close()
    # Whether the server saw a listener at all is a matter of chance; that none is left is not.
    await running(client, job_id)
    await eventually(lambda: server.watcher.total == 0)
    await client.http.delete(f"/v1/jobs/{job_id}")
    await works(client)


async def test_a_hundred_listeners_leaving_at_once_are_all_noticed(server: Server, client: Client, dial: Dial) -> None:
    job_id = await client.submit(steps=LONG)
    wires = [await dial(server) for _ in range(100)]
    for wire in wires:
        await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    await eventually(lambda: server.watcher.listeners(job_id) == 100)
    for place, wire in enumerate(wires):
        (wire.close, wire.reset, wire.half_close)[place % 3]()
    await eventually(lambda: server.watcher.listeners(job_id) == 0, timeout=2)
    assert (await client.ended(job_id))["state"] == "cancelled"
    await works(client)


async def test_listeners_that_join_and_leave_a_finished_job_cancel_nothing(client: Client) -> None:
    done = await client.submit(steps=1)
    await client.ended(done)
    other = await client.submit(steps=30)
    for _ in range(3):
        async with listening(client, done) as told:
            await heard(told, "queued")
    assert (await client.ended(other))["state"] == "completed"
    assert (await client.job(done))["state"] == "completed"
