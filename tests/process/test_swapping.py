"""Several models behind a whole worker, with the fake pipeline: what clients are told, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually
from tests.process.conftest import StartWorker

Connect = Callable[[Server], Client]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A folder with two models that the fake pipeline takes for real."""
    folder = tmp_path / "models"
    for name in ("large", "small"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    return folder


@pytest.fixture
def server(make_server: MakeServer, models_dir: Path) -> Server:
    """A worker with room for one model."""
    return make_server(
        disconnect_grace=0.3,
        heartbeat=0.5,
        models_dir=str(models_dir),
        max_models=1,
        step_timeout=1.0,
        cancel_timeout=0.5,
    )


@pytest.fixture
def hasty(make_server: MakeServer, models_dir: Path) -> Server:
    """A worker that does not wait long for a model."""
    return make_server(models_dir=str(models_dir), load_timeout=1.0)


@pytest.fixture
def client(server: Server, connect: Connect) -> Client:
    """A client of it."""
    return connect(server)


async def narrated(client: Client, job_id: str) -> str:
    """All that a job was told."""
    events = await client.events(job_id)
    return "\n".join(json.loads(event.data)["text"] for event in events if event.event == "narration")


async def ask(client: Client, operation: str, model: str) -> dict[str, Any]:
    """What came of an operation on a model."""
    answer = await client.http.post("/v1/jobs", json={"operation": operation, "model": model})
    assert answer.status_code == 200, answer.text
    return await client.ended(answer.json()["job_id"])


async def loaded(client: Client) -> list[str]:
    """The models that are loaded."""
    answer = await client.http.get("/v1/capabilities")
    return [each["name"] for each in answer.json()["model_details"] if each["loaded"]]


async def test_a_job_that_names_a_model_swaps_it_in_and_is_told(client: Client) -> None:
    await client.ready()
    assert await loaded(client) == ["fake"]
    job_id = await client.submit(model="large", steps=2)
    assert "loading model large; fake is unloaded to make room" in await narrated(client, job_id)
    assert (await client.job(job_id))["state"] == "completed"
    assert await loaded(client) == ["large"]
    assert (await client.ended(await client.submit(steps=2)))["state"] == "completed"
    assert await loaded(client) == ["fake"]


async def test_loading_takes_longer_than_a_step_may_and_kills_nobody(
    client: Client, server: Server, faults: Faults
) -> None:
    await client.ready()
    faults.on("slow-start", "2")
    waiting = await client.submit(model="large", steps=1)
    await eventually(lambda: server.worker.loading)
    ready = await client.http.get("/ready")
    assert (ready.status_code, ready.json()["detail"]) == (200, "loading model large")
    gone = await client.submit(steps=1)
    await client.http.delete(f"/v1/jobs/{gone}")
    await client.http.delete(f"/v1/jobs/{waiting}")
    # Longer than the engine may hold on to a cancelled job, too.
    await eventually(lambda: not server.worker.loading and not server.worker.in_flight)
    assert server.worker.starts == 1
    assert (await client.ended(await client.submit(model="large", steps=1)))["state"] == "completed"


async def test_a_model_that_fails_harms_nobody_else(client: Client, server: Server, faults: Faults) -> None:
    await client.ready()
    faults.on("model-failed", "large")
    error = (await client.ended(await client.submit(model="large")))["error"]
    assert error["code"] == "model_failed"
    assert (await client.ended(await client.submit(model="small", steps=1)))["state"] == "completed"
    assert (await client.ended(await client.submit(steps=1)))["state"] == "completed"
    assert (await ask(client, "model_load", "large"))["error"]["code"] == "model_failed"
    faults.off("model-failed")
    assert (await ask(client, "model_load", "large"))["result"]["loaded"] is True
    assert server.worker.starts == 1


async def test_loading_and_letting_go_are_jobs(client: Client, faults: Faults) -> None:
    view = await ask(client, "model_load", "small")
    assert (view["state"], view["result"]["loaded"]) == ("completed", True)
    assert await loaded(client) == ["small"]
    view = await ask(client, "model_unload", "small")
    assert (view["state"], view["result"]["loaded"]) == ("completed", False)
    assert await loaded(client) == []
    assert (await ask(client, "model_get", "small"))["result"]["family"] == "fake"
    assert (await client.ended(await client.submit(steps=1)))["state"] == "completed"


async def test_loading_can_be_cancelled_while_it_waits_for_a_model_in_use(client: Client, faults: Faults) -> None:
    await client.ready()
    faults.on("slow", "0.05")
    busy = await client.submit(steps=150)
    async with client.stream(busy):
        answer = await client.http.post("/v1/jobs", json={"operation": "model_load", "model": "large"})
        async with client.stream(answer.json()["job_id"]) as source:
            async for event in source:
                if event.event == "narration":
                    assert "waiting for the jobs of fake" in event.data
                    break
            await client.http.delete(f"/v1/jobs/{answer.json()['job_id']}")
        assert (await client.ended(answer.json()["job_id"]))["state"] == "cancelled"
        assert await loaded(client) == ["fake"]
        assert (await client.job(busy))["state"] == "running"


async def test_after_its_death_an_engine_begins_with_the_default_model(client: Client, server: Server) -> None:
    await client.ended(await client.submit(model="large", steps=1))
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    await eventually(lambda: server.worker.starts == 2)
    await client.ready()
    assert await loaded(client) == ["fake"]
    assert (await client.ended(await client.submit(model="large", steps=1)))["state"] == "completed"


async def test_an_engine_that_dies_while_it_loads_costs_that_job_its_attempts_and_no_other_job(
    client: Client, server: Server, faults: Faults
) -> None:
    await client.ready()
    faults.on("slow-start", "0.5")
    job_id = await client.submit(model="large", steps=1)
    await eventually(lambda: server.worker.loading)
    other = await client.submit(steps=1)
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    assert (await client.ended(other))["state"] == "completed"
    assert (await client.ended(job_id))["attempt"] == 2


async def test_an_engine_whose_load_never_ends_is_replaced_and_its_job_begins_again(
    hasty: Server, connect: Connect, faults: Faults
) -> None:
    client = connect(hasty)
    await client.ready()
    faults.on("slow-start", "60")
    job_id = await client.submit(model="large", steps=1)
    await eventually(lambda: hasty.worker.loading)
    faults.off("slow-start")
    view = await client.ended(job_id)
    assert (view["state"], view["attempt"]) == ("completed", 2)
    assert hasty.worker.deaths["stalled"] == 1


async def test_a_load_with_which_the_front_dies_is_not_tried_again(
    start_worker: StartWorker, models_dir: Path, faults: Faults, tmp_path: Path
) -> None:
    settings = {"models_dir": models_dir, "state_dir": tmp_path / "state"}
    worker, client = start_worker(**settings)
    await client.ready()
    faults.on("slow-start", "60")
    answer = await client.http.post("/v1/jobs", json={"operation": "model_load", "model": "large"})
    async with client.stream(answer.json()["job_id"]) as source:
        async for event in source:
            if event.event == "narration" and "loading model large" in event.data:
                break
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.wait()
    faults.off("slow-start")
    _, client = start_worker(**settings)
    error = (await client.ended(answer.json()["job_id"]))["error"]
    assert error["code"] == "interrupted"
    await client.ready()
    assert await loaded(client) == ["fake"]


async def test_choosing_a_model_in_automatic1111s_dialect_loads_it_once_and_progress_says_so(
    client: Client, server: Server, faults: Faults
) -> None:
    async def job_count() -> int:
        count: int = (await client.http.get("/sdapi/v1/progress")).json()["state"]["job_count"]
        return count

    await client.ready()
    faults.on("slow-start", "1")
    for _ in range(2):
        answer = await client.http.post("/sdapi/v1/options", json={"sd_model_checkpoint": "large"})
        assert answer.status_code == 200, answer.text
    assert await job_count() == 1
    # It stops pictures, of which there are none.
    await client.http.post("/sdapi/v1/interrupt")
    await eventually(lambda: server.registry.live() == [])
    assert (await loaded(client), await job_count()) == (["large"], 0)
    assert server.registry.counts()["completed"] == 1


async def test_a_model_that_is_gone_when_its_jobs_turn_comes_fails_that_job(
    client: Client, server: Server, models_dir: Path, faults: Faults
) -> None:
    faults.on("slow-start", "1")
    job_id = await client.submit(model="large")
    for path in (models_dir / "large" / "model_index.json", models_dir / "large"):
        path.unlink() if path.is_file() else path.rmdir()
    await server.catalogue.refresh()
    error = (await client.ended(job_id))["error"]
    assert error["code"] == "model_failed"
    assert "removed while the job waited" in error["message"]
