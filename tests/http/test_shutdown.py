"""Leaving in good order: draining, stopping, and what clients see of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from rbee_sd.server import Server
from rbee_sd.settings import Settings
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import TERMINAL, error_of, events, frames, heard, listening, raw_stream, running, steps
from tests.http.wire import request, submission

pytestmark = pytest.mark.settings(drain_timeout=10.0)


@pytest.mark.faults({"slow": "0.02"})
async def test_draining_lets_accepted_jobs_finish_and_then_says_goodbye(server: Server, client: Client) -> None:
    runs, waits = await client.submit(steps=20), await client.submit(steps=3)
    told = asyncio.gather(raw_stream(client, runs), raw_stream(client, waits))
    await running(client, runs)
    await server.drain()
    await server.stop()
    first, second = await told
    assert (steps(first), steps(second)) == (list(range(1, 21)), [1, 2, 3])
    for raw in (first, second):
        assert [frame.name for frame in frames(raw)][-2:] == ["complete", "done"]


@pytest.mark.faults({"slow": "0.02"})
async def test_a_draining_worker_refuses_new_jobs_and_says_so(server: Server, client: Client, dial: Dial) -> None:
    # A connection from before; others may be refused altogether.
    wire = await dial(server)
    assert (await wire.exchange(request("GET", "/health"))).status == 200
    job_id = await client.submit(steps=25)
    await running(client, job_id)
    draining = asyncio.ensure_future(server.drain())
    await eventually(lambda: server.registry.draining)
    answer = await wire.exchange(submission(b'{"prompt":"x"}'))
    error_of(answer, 503, "draining")
    assert int(answer.headers["retry-after"]) > 0
    answer = await wire.exchange(request("GET", "/ready"))
    assert (answer.status, answer.json()["ready"], answer.json()["reason"]) == (503, False, "draining")
    assert (await wire.exchange(request("GET", "/health"))).status == 200
    assert (await wire.exchange(request("GET", f"/v1/jobs/{job_id}"))).json()["state"] == "running"
    await draining
    assert (await wire.exchange(request("GET", f"/v1/jobs/{job_id}"))).json()["state"] == "completed"


@pytest.mark.faults({"slow": "0.02"})
async def test_a_draining_worker_answers_those_who_come_now(server: Server, client: Client, dial: Dial) -> None:
    job_id = await client.submit(steps=25)
    await running(client, job_id)
    draining = asyncio.ensure_future(server.drain())
    await eventually(lambda: server.registry.draining)
    answer = await (await dial(server)).exchange(request("GET", "/ready"))
    assert (answer.status, answer.json()["reason"]) == (503, "draining")
    error_of(await (await dial(server)).exchange(submission(b'{"prompt":"x"}')), 503, "draining")
    await draining


@pytest.mark.settings(drain_timeout=10.0, disconnect_grace=5.0)
@pytest.mark.faults({"slow": "0.02"})
async def test_a_listener_can_come_back_to_its_job_while_the_worker_drains(
    server: Server, client: Client, dial: Dial
) -> None:
    job_id = await client.submit(steps=25)
    async with listening(client, job_id) as told:
        await heard(told, "progress")
    draining = asyncio.ensure_future(server.drain())
    await eventually(lambda: server.registry.draining)
    wire = await dial(server)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream", version="HTTP/1.0"))
    _, _, raw = (await wire.rest()).partition(b"\r\n\r\n")
    assert steps(raw) == list(range(1, 26))
    await draining


@pytest.mark.settings(drain_timeout=0.2)
@pytest.mark.faults({"slow": "0.05"})
async def test_what_is_not_done_in_time_waits_for_the_next_start_and_its_listeners_are_told(
    server: Server, client: Client
) -> None:
    jobs = [await client.submit(steps=150) for _ in range(2)]
    told = asyncio.gather(*(raw_stream(client, job_id) for job_id in jobs))
    await running(client, jobs[0])
    start = time.monotonic()
    await server.drain()
    await server.stop()
    assert time.monotonic() - start < 3
    for raw in await told:
        last = events(raw)[-1]
        assert last.name == "narration"
        assert "goes on when it is started again" in last.data["text"]
        # Not done: whoever listened comes back.
        assert b"[DONE]" not in raw
        assert not [event for event in events(raw) if event.name in TERMINAL]
    assert server.worker.pid is None


async def test_an_idle_worker_stops_at_once(server: Server, client: Client) -> None:
    await client.ready()
    start = time.monotonic()
    await server.drain()
    await server.stop()
    assert time.monotonic() - start < 2
    assert server.worker.pid is None


@pytest.mark.faults({"slow-start": "0.3"})
async def test_stopping_while_the_model_loads_leaves_no_engine_behind(server: Server, client: Client) -> None:
    await eventually(lambda: server.worker.pid is not None)
    await server.drain()
    await server.stop()
    await nothing_is_started(server)


async def test_stopping_as_the_engine_gets_ready_leaves_no_engine_behind(server: Server) -> None:
    await eventually(lambda: server.worker.pid is not None)
    # The loop stands still meanwhile: that the engine is ready is heard only while the worker stops.
    time.sleep(0.5)  # noqa: ASYNC251
    await server.drain()
    await server.stop()
    await nothing_is_started(server)


async def nothing_is_started(server: Server) -> None:
    """Fails if the engine is there or comes back within the next turns of the loop."""
    for _ in range(10):
        await asyncio.sleep(0.01)
        assert server.worker.pid is None
    assert server.worker.starts == 1


@pytest.mark.settings(drain_timeout=0.0)
async def test_a_page_on_the_feed_is_let_go(server: Server, client: Client, dial: Dial) -> None:
    wire = await dial(server)
    await wire.send(request("GET", "/v1/events", version="HTTP/1.0"))
    await wire.until(b"retry: ")
    await client.ready()
    await server.drain()
    await server.stop()
    assert b"HTTP/1.1 5" not in await wire.rest()


@pytest.mark.settings(drain_timeout=0.0, listener_timeout=30.0)
async def test_a_listener_that_does_not_read_does_not_hold_the_worker_back(
    server: Server, client: Client, dial: Dial, faults: Faults
) -> None:
    faults.on("spam", "once")
    job_id = await client.submit(steps=1, on_disconnect="finish")
    await client.ended(job_id)
    wire = await dial(server, receive_buffer=2048)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    await eventually(lambda: server.watcher.total == 1)
    start = time.monotonic()
    await server.drain()
    await server.stop()
    assert time.monotonic() - start < 4


@pytest.mark.settings(drain_timeout=0.0)
async def test_stopping_twice_is_stopping_once(server: Server, client: Client) -> None:
    await client.ready()
    for _ in range(2):
        await server.drain()
        await server.stop()
    assert server.worker.starts == 1


async def test_a_worker_that_is_stopped_before_its_engine_was_started_starts_none(tmp_path: Path) -> None:
    server = Server(Settings(port=0, state_dir=str(tmp_path / "state"), drain_timeout=0, fake_pipeline=str(tmp_path)))
    await server.start()
    await server.drain()
    await server.stop()
    await asyncio.sleep(0)
    assert (server.worker.starts, server.worker.pid) == (0, None)
