"""The engine dies, in every way that can be arranged; the front lives on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx2
import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually, known


async def status(client: Client) -> dict[str, object]:
    """The worker's status, by the operation of that name."""
    answer = await client.http.post("/v1/jobs", json={"operation": "status"})
    view = await client.ended(answer.json()["job_id"])
    result: dict[str, object] = view["result"]
    return result


async def assert_well(client: Client) -> None:
    """After every case: healthy within a second, ready in the end, and one good job completes."""
    assert (await client.http.get("/health", timeout=1)).status_code == 200
    await client.ready()
    job = await client.ended(await client.submit(steps=2))
    assert job["state"] == "completed"


@pytest.mark.parametrize("fault", ["crash", "segv", "garbage", "half-message", "huge-frame"])
async def test_a_job_whose_engine_dies_begins_again_and_its_stream_stays_open(
    client: Client, faults: Faults, fault: str
) -> None:
    await client.ready()
    undisturbed = await client.submit(steps=3, seed=7)
    picture = (await client.events(undisturbed))[-2].json()["image_base64"]  # type: ignore[index]
    faults.on(fault, "once")
    faults.on("slow", "0.1")
    struck = await client.submit(steps=3, seed=7)
    waiting = [await client.submit(steps=2, seed=n) for n in range(3)]
    events = await client.events(struck)
    kinds = [event.event for event in events]
    assert kinds[-2:] == ["complete", "message"]
    assert kinds.count("started") <= 2
    assert [event.id for event in events[:-1]] == [str(number) for number in range(1, len(events))]
    texts = [event.json()["text"] for event in events if event.event == "narration"]  # type: ignore[index]
    assert any("the job begins again" in text for text in texts)
    # The same seed, the same image.
    assert events[-2].json()["image_base64"] == picture  # type: ignore[index]
    assert (await client.job(struck))["attempt"] == 2
    faults.off("slow")
    for job_id in waiting:
        assert (await client.ended(job_id))["state"] == "completed"
    assert (await status(client))["engine"]["starts"] == 2  # type: ignore[index]
    await assert_well(client)


async def test_a_job_that_kills_the_engine_each_time_fails_after_two_and_the_next_one_runs(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("hang")
    poison = await client.submit(steps=3)
    waiting = await client.submit(steps=2)
    for attempt in (1, 2):
        await eventually(lambda attempt=attempt: known(server, poison).attempt == attempt)  # type: ignore[misc]
        await eventually(lambda: known(server, poison).total is not None)
        if attempt == 2:
            faults.off("hang")
        os.kill(server.worker.pid or 0, signal.SIGKILL)
    events = await client.events(poison)
    assert events[-2].json()["code"] == "engine_crashed"  # type: ignore[index]
    assert (await client.ended(waiting))["state"] == "completed"
    await assert_well(client)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
async def test_an_idle_engine_that_is_killed_is_replaced_and_ready_says_so_within_a_second(
    server: Server, client: Client, faults: Faults, number: signal.Signals
) -> None:
    await client.ready()
    faults.on("slow-start", "0.5")
    first = server.worker.pid
    assert first is not None
    os.kill(first, number)

    async def unready() -> httpx2.Response | None:
        answer = await client.http.get("/ready")
        return answer if answer.status_code == 503 else None

    answer = await eventually(unready, timeout=1)
    assert answer.json()["reason"] == "engine restarting"
    assert answer.headers["Retry-After"]
    await assert_well(client)
    assert server.worker.pid != first


async def test_an_engine_killed_while_it_loads_is_replaced_and_the_waiting_job_runs(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("slow-start", "30")
    first = server.worker.pid or 0
    os.kill(first, signal.SIGKILL)
    job_id = await client.submit(steps=2)
    loading = await eventually(lambda: server.worker.pid != first and server.worker.pid)
    faults.off("slow-start")
    os.kill(loading, signal.SIGKILL)
    assert (await client.ended(job_id))["state"] == "completed"


async def test_a_job_cancelled_while_the_model_loads_never_reaches_the_engine(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("slow-start", "30")
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    await eventually(lambda: not server.worker.in_flight and server.worker.health == "engine restarting")
    job_id = await client.submit(steps=2)
    assert (await client.http.delete(f"/v1/jobs/{job_id}")).json()["state"] == "cancelled"
    assert [event.event for event in await client.events(job_id)][-2:] == ["cancelled", "message"]
    faults.off("slow-start")
    await eventually(lambda: server.worker.pid)
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    await assert_well(client)
    assert (await client.job(job_id))["attempt"] == 0


async def test_listeners_of_waiting_jobs_are_told_of_the_restart_and_their_streams_stay_open(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("hang")
    running = await client.submit(steps=2)
    waiting = await client.submit(steps=2)
    await eventually(lambda: known(server, running).log.last >= 2)
    async with client.stream(waiting) as source:
        os.kill(server.worker.pid or 0, signal.SIGKILL)
        faults.off("hang")
        events = [event async for event in source if event.data]
    texts = [event.json()["text"] for event in events if event.event == "narration"]  # type: ignore[index]
    assert any("SIGKILL" in text for text in texts)
    assert "loading model fake" in texts
    assert events[-2].event == "complete"


async def test_an_engine_that_dies_on_every_start_is_given_up_for_a_while_and_jobs_are_kept(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("crash-on-start")
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    job_id = await client.submit(steps=2)

    async def exhausted() -> bool:
        reason: str = (await client.http.get("/ready")).json()["reason"]
        return reason == "engine keeps failing"

    await eventually(exhausted, timeout=30)
    assert (await client.job(job_id))["state"] == "queued"
    assert "another is started in 300 s" in (await client.http.get("/ready")).json()["detail"]
    assert (await client.http.get("/health")).status_code == 200


async def test_an_engine_that_does_jobs_between_its_deaths_is_never_given_up(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    for _ in range(7):
        faults.on("crash", "once")
        job = await client.ended(await client.submit(steps=2))
        assert (job["state"], job["attempt"]) == ("completed", 2)
    assert server.worker.starts == 8
    assert not server.engine_given_up


@pytest.fixture
def modelless(faults: Faults, make_server: MakeServer, connect: Callable[[Server], Client]) -> Client:
    """A client of a worker whose model cannot be loaded."""
    faults.on("slow-start", "0.3")
    faults.on("model-failed")
    return connect(make_server())


async def test_a_model_that_cannot_be_loaded_fails_jobs_at_once_and_ready_says_why(modelless: Client) -> None:
    early = await modelless.ended(await modelless.submit())
    assert early["error"]["code"] == "model_failed"
    late = await modelless.ended(await modelless.submit())
    assert late["error"]["code"] == "model_failed"
    answer = await modelless.http.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reason": "model failed", "detail": "the model cannot be loaded"}
    assert (await status(modelless))["engine"]["starts"] == 1  # type: ignore[index]


async def test_a_stopped_engine_whose_job_times_out_is_replaced(server: Server, client: Client, faults: Faults) -> None:
    server.worker._cancel_timeout = 0.3
    await client.ready()
    faults.on("slow", "0.05")
    job_id = await client.submit(steps=100, timeout=1)
    await eventually(lambda: known(server, job_id).step >= 1)
    stopped = server.worker.pid or 0
    os.kill(stopped, signal.SIGSTOP)
    job = await client.ended(job_id)
    assert job["state"] == "failed"
    assert job["error"]["code"] == "timeout"
    faults.off("slow")
    await eventually(lambda: server.worker.pid not in (None, stopped))
    await assert_well(client)


@pytest.mark.parametrize("stopped", [True, False])
async def test_an_engine_whose_step_never_ends_is_replaced_and_its_job_begins_again(
    impatient: Server, faults: Faults, stopped: bool
) -> None:
    client = Client(impatient.url)
    await client.ready()
    first = impatient.worker.pid or 0
    if not stopped:
        faults.on("hang")
    else:
        faults.on("slow", "0.05")
    job_id = await client.submit(steps=20)
    await eventually(lambda: known(impatient, job_id).total is not None)
    if stopped:
        os.kill(first, signal.SIGSTOP)
    assert (await client.http.get("/health", timeout=1)).status_code == 200
    await eventually(lambda: impatient.worker.pid != first)
    assert (await client.http.get("/ready")).status_code == 503
    faults.off("hang")
    events = await client.events(job_id)
    texts = [event.json()["text"] for event in events if event.event == "narration"]  # type: ignore[index]
    assert any("did not finish a step within 1 s" in text for text in texts)
    assert events[-2].event == "complete"
    await assert_well(client)
    await client.http.aclose()


@pytest.fixture
def impatient(make_server: MakeServer) -> Server:
    """A worker that waits a second for a step."""
    return make_server(step_timeout=1.0)


async def test_out_of_memory_fails_only_its_own_job_and_the_engine_lives(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    pid = server.worker.pid
    faults.on("oom", "once")
    job = await client.ended(await client.submit(steps=2))
    assert job["error"]["code"] == "out_of_memory"
    await assert_well(client)
    assert server.worker.pid == pid


async def test_an_engine_whose_device_is_lost_fails_its_job_and_is_replaced(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    first = server.worker.pid
    faults.on("device-lost", "once")
    job = await client.ended(await client.submit(steps=2))
    assert job["error"]["code"] == "generation_failed"
    assert "started anew" in job["error"]["message"]
    await eventually(lambda: server.worker.pid not in (None, first))
    await assert_well(client)


async def test_a_model_that_loads_at_a_later_try_makes_the_worker_well_again(
    server: Server, client: Client, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee_sd.worker.worker.WINDOW", 0.2)
    await client.ready()
    faults.on("model-failed", "once")
    faults.on("slow-start", "0.3")
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    waiting = await client.submit(steps=2)
    assert (await client.ended(waiting))["error"]["code"] == "model_failed"
    await assert_well(client)


async def test_an_engine_that_cannot_be_spawned_is_tried_again(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.ready()

    def no_process(*_: object) -> None:
        raise BlockingIOError("no process to be had")

    with monkeypatch.context() as patch:
        patch.setattr("rbee_sd.worker.worker.EngineProcess", no_process)
        os.kill(server.worker.pid or 0, signal.SIGKILL)
        await eventually(lambda: "could not be started" in server.worker.detail)
    await assert_well(client)
