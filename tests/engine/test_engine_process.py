"""The real engine process with the demo model behind a real server: what a client sees of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rbee_sd.server import Server
from tests.conftest import Client, MakeServer, eventually
from tests.engine import tiny
from tests.engine.bench import pixels

Connect = Callable[[Server], Client]

REAL: dict[str, Any] = {"fake_pipeline": "", "device": "cpu", "threads": 1, "log_level": "warning"}
LOADING = 60.0
"""Seconds that an engine may take to import its libraries and load the demo, on a busy machine."""


@pytest.fixture
def demo(make_server: MakeServer, connect: Connect) -> Client:
    """A client of a worker with the demo model."""
    return connect(make_server(model="demo", **REAL))


@pytest.fixture
def broken(make_server: MakeServer, connect: Connect, folder: Path) -> Client:
    """A client of a worker whose model is not one."""
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    return connect(make_server(model=str(folder), **REAL))


@pytest.fixture
def two(make_server: MakeServer, connect: Connect, tmp_path: Path) -> Client:
    """A client of a worker with two models, of which one may be loaded."""
    tiny.write("sdxl", tmp_path / "models" / "other")
    return connect(make_server(model="demo", models_dir=str(tmp_path / "models"), max_models=1, **REAL))


def fields(event: httpx2.ServerSentEvent) -> dict[str, Any]:
    """An event's data, decoded."""
    data: dict[str, Any] = json.loads(event.data)
    return data


async def ready(client: Client, code: int = 200) -> httpx2.Response:
    """The answer of `/ready` once the engine has loaded its model, or failed to."""

    async def check() -> httpx2.Response | None:
        answer = await client.http.get("/ready")
        return answer if answer.status_code == code and answer.json().get("reason") != "model loading" else None

    answer: httpx2.Response = await eventually(check, LOADING)
    return answer


async def forwards(client: Client) -> int:
    """The denoiser's calls, as the operation `status` tells them."""
    answer = await client.http.post("/v1/jobs", json={"operation": "status"})
    view = await client.ended(answer.json()["job_id"])
    count: int = view["result"]["engine"]["forwards"]
    return count


async def test_a_job_streams_its_steps_and_its_picture_and_a_cancelled_one_stops_the_denoiser(
    demo: Client,
) -> None:
    client = demo
    await ready(client)

    job_id = await client.submit("a red circle on a blue background", steps=7, seed=42)
    *events, done = await client.events(job_id)
    assert done.data == "[DONE]"
    steps = [fields(event)["step"] for event in events if event.event == "progress"]
    assert steps == list(range(1, 8))
    assert events[-1].event == "complete"
    streamed = base64.b64decode(fields(events[-1])["image_base64"])
    stored = await client.http.get(f"/v1/jobs/{job_id}/images/0")
    assert stored.headers["Content-Type"] == "image/png"
    assert streamed == stored.content
    assert pixels(streamed).shape == (128, 128, 3)
    assert await forwards(client) == 7

    gone = await client.submit("a red circle", steps=150)
    async with client.stream(gone) as source:
        async for event in source:
            if event.event == "progress":
                break
        await client.http.delete(f"/v1/jobs/{gone}")
    assert (await client.ended(gone))["state"] == "cancelled"
    await client.ended(await client.submit("a red circle", steps=2))
    first = await forwards(client)
    assert 7 < first < 7 + 150
    # Had the cancelled job gone on, its calls would be among these.
    await client.ended(await client.submit("a red circle", steps=3))
    assert await forwards(client) == first + 3


async def test_a_model_that_cannot_be_loaded_fails_its_jobs_and_the_front_lives_on(
    broken: Client, folder: Path
) -> None:
    client = broken
    waiting = await client.submit()
    answer = await ready(client, code=503)
    assert answer.json()["reason"] == "model failed"
    assert str(folder) not in answer.text
    error = (await client.ended(waiting))["error"]
    assert error["code"] == "model_failed"
    assert "some-model" in error["message"]
    assert "/" not in error["message"]
    assert (await client.ended(await client.submit()))["error"]["code"] == "model_failed"
    assert (await client.http.get("/health")).status_code == 200


async def test_a_job_of_another_model_is_painted_by_that_and_the_default_comes_back(two: Client) -> None:
    client = two
    await ready(client)
    before = await forwards(client)
    for wanted, family in (({"model": "other"}, "stable-diffusion-xl"), ({}, "stable-diffusion")):
        job_id = await client.submit(steps=2, width=64, height=64, **wanted)
        told = [fields(event)["text"] for event in await client.events(job_id) if event.event == "narration"]
        assert any(text.startswith("loading model") and "unloaded to make room" in text for text in told), told
        image = (await client.http.get(f"/v1/jobs/{job_id}/image")).content
        assert pixels(image).shape == (64, 64, 3)
        details = (await client.http.get("/v1/capabilities")).json()["model_details"]
        (there,) = [each for each in details if each["loaded"]]
        assert (there["name"], there["family"]) == (wanted.get("model", "demo"), family)
    # Those of models that have gone are counted too.
    assert await forwards(client) >= before + 4
