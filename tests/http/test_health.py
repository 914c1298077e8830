"""`/health`, `/ready` and `/v1/capabilities`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbee_sd.messages import SCHEDULERS, Curve
from rbee_sd.operations.table import OPERATIONS
from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually
from tests.http.views import error_of, running, works


@pytest.mark.faults({"slow-start": "0.5"})
async def test_health_answers_while_the_model_loads_and_ready_says_why_not(client: Client) -> None:
    before = time.time()
    answer = await client.http.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"status", "timestamp"}
    assert body["status"] == "healthy"
    assert before - 1 < body["timestamp"] < time.time() + 1
    answer = await client.http.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert answer.json()["reason"] == "model loading"
    assert int(answer.headers["retry-after"]) > 0
    await client.ready()
    assert (await client.http.get("/ready")).json()["ready"] is True


async def test_health_and_ready_answer_head_too(client: Client) -> None:
    await client.ready()
    for path in ("/health", "/ready"):
        answer = await client.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_ready_tells_that_the_engine_is_gone_and_then_that_it_is_back(client: Client, faults: Faults) -> None:
    await client.ready()
    faults.on("slow-start", "0.3")
    faults.on("crash", "once")
    crashes = await client.submit()

    async def not_ready() -> str:
        answer = await client.http.get("/ready")
        return str(answer.json()["reason"] or "")

    assert await eventually(not_ready) == "engine restarting"
    assert (await client.http.get("/health")).status_code == 200
    view = await client.ended(crashes)
    assert (view["state"], view["attempt"]) == ("completed", 2)
    await client.ready()
    await works(client)


@pytest.mark.faults({"model-failed": ""})
async def test_a_model_that_cannot_be_loaded_is_told_and_the_front_lives(client: Client, faults: Faults) -> None:
    waits = await client.submit()
    view = await client.ended(waits)
    assert (view["state"], view["error"]["code"]) == ("failed", "model_failed")
    answer = await client.http.get("/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert (await client.http.get("/health")).status_code == 200
    assert str(faults.folder) not in answer.text


async def test_health_answers_while_the_engine_hangs(client: Client, faults: Faults) -> None:
    faults.on("hang")
    await running(client, await client.submit())
    for _ in range(20):
        assert (await client.http.get("/health", timeout=1)).status_code == 200
    faults.off("hang")


@pytest.fixture
def client_with_loras(make_server: MakeServer, connect: Callable[[Server], Client], tmp_path: Path) -> Client:
    """A client of a worker with two LoRAs."""
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("watercolour", "pixel art"):
        (folder / f"{name}.safetensors").touch()
    return connect(make_server(lora_dir=str(folder)))


async def test_capabilities_name_what_input_images_and_loras_may_be(client_with_loras: Client) -> None:
    client = client_with_loras
    offer = (await client.http.get("/v1/capabilities")).json()
    assert offer["operations"] == list(OPERATIONS)
    assert offer["loras"] == ["pixel art", "watercolour"]
    assert offer["strengths"] == {"image_transform": 0.8, "image_inpaint": 1.0}
    limits = offer["limits"]
    assert (limits["max_strength"], limits["max_guidance_scale"]) == (1.0, 50.0)
    assert (limits["max_input_side"], limits["max_input_pixels"]) == (8192, 33_554_432)
    assert limits["input_formats"] == ["png", "jpeg", "webp"]
    assert (limits["max_loras"], limits["max_lora_scale"]) == (8, 4.0)
    loras = [{"name": name, "scale": limits["max_lora_scale"]} for name in offer["loras"]]
    assert (await client.ended(await client.submit(loras=loras, steps=1)))["request"]["loras"] == loras


async def test_capabilities_tell_what_sharing_a_forward_costs(server: Server, client: Client) -> None:
    await client.ready()

    async def batching() -> Any:
        return (await client.http.get("/v1/capabilities")).json()["batching"]

    assert server.worker.model is not None
    known = (await batching())["shapes"]
    server.worker._said(Curve(520, 520, (2, 4), (10.0, 14.5), 16, "fake"))
    assert await batching() == {
        "jobs": server.worker.model.capacity,
        "shapes": [
            *known,
            {"width": 520, "height": 520, "rows": [2, 4], "ms": [10.0, 14.5], "cap": 16, "model": "fake"},
        ],
    }


@pytest.mark.faults({"slow-start": "0.5"})
async def test_capabilities_are_told_while_the_model_loads(client: Client) -> None:
    answer = await client.http.get("/v1/capabilities")
    assert answer.status_code == 200
    assert answer.json()["batching"] == {"jobs": None, "shapes": []}


@pytest.mark.settings(max_side=512, max_steps=30, max_count=2, queue_size=7)
async def test_capabilities_offer_what_is_accepted(client: Client) -> None:
    await client.ready()
    answer = await client.http.get("/v1/capabilities")
    assert answer.status_code == 200
    offer = answer.json()
    assert offer["models"] == ["fake"]
    (details,) = offer["model_details"]
    assert (details["name"], details["default"], details["loaded"], details["kind"]) == ("fake", True, True, "hub")
    assert details["defaults"] == offer["defaults"]
    assert details["negative_prompt"] is True
    assert set(offer["schedulers"]) == set(SCHEDULERS)
    assert {"image_generation", "status"} <= set(offer["operations"])
    assert offer["defaults"] == {"width": 64, "height": 64, "steps": 20, "guidance_scale": 7.5}
    limits = offer["limits"]
    assert (limits["max_side"], limits["max_steps"], limits["max_count"]) == (512, 30, 2)
    for field, most in (("width", "max_side"), ("height", "max_side"), ("steps", "max_steps"), ("count", "max_count")):
        for value, status in ((limits[most], 200), (limits[most] + limits["multiple_of"], 400)):
            body = {"prompt": "x", "steps": 1, field: value}
            assert (await client.http.post("/v1/jobs", json=body)).status_code == status, (field, value)
    for scheduler in offer["schedulers"]:
        body = {"prompt": "x", "steps": 1, "scheduler": scheduler}
        answer = await client.http.post("/v1/jobs", json=body)
        assert answer.status_code == 200, scheduler
        await client.ended(answer.json()["job_id"])
    error_of(await client.http.post("/v1/jobs", json={"prompt": "x" * (limits["max_prompt"] + 1)}), 400)


async def test_the_job_that_asks_for_the_status_is_not_among_those_it_counts(client: Client) -> None:
    await client.ready()
    for _ in range(3):
        job_id = (await client.http.post("/v1/jobs", json={"operation": "status"})).json()["job_id"]
        counts = (await client.ended(job_id))["result"]["jobs"]
        assert (counts["queued"], counts["running"]) == (0, 0)
