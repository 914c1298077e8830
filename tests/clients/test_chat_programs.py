"""What Open WebUI, SillyTavern and LibreChat send for a picture, in their order and with their headers.

Taken from their sources of 2026 (SillyTavern's browser part: 2024): the fields, the blank credentials, and what each
of them reads in the answers.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually
from tests.http.wire import Answer, Wire, request

PNG = b"\x89PNG\r\n\x1a\n"
BLANK = "Authorization: Basic Og=="


async def exchange(server: Server, method: str, path: str, body: Any = None, *headers: str) -> Answer:
    """One request on a connection of its own, as node's fetch makes it, and its answer."""
    wire = await Wire.to(server)
    try:
        kind = () if body is None else ("Content-Type: application/json",)
        data = b"" if body is None else json.dumps(body).encode()
        return await wire.exchange(request(method, f"/sdapi/v1/{path}", *kind, *headers, body=data))
    finally:
        wire.close()


async def fetched(server: Server, method: str, path: str, body: Any = None, *headers: str) -> Any:
    """The JSON of an answer that is 200."""
    answer = await exchange(server, method, path, body, *headers)
    assert answer.status == 200, answer.body
    return answer.json()


@pytest.mark.parametrize("blank", ["authorization: ", "authorization: Basic "])
async def test_open_webui_picks_a_model_and_gets_its_pictures(server: Server, blank: str) -> None:
    # The administrator saves the settings: the address is tried, the models are listed, one is chosen.
    options = await fetched(server, "GET", "options", None, blank)
    models = await fetched(server, "GET", "sd-models", None, blank)
    choices = [{"id": model["title"], "name": model["model_name"]} for model in models]
    assert choices == [{"id": "fake", "name": "fake"}]
    options["sd_model_checkpoint"] = choices[0]["id"]
    await fetched(server, "POST", "options", options, blank)
    # Somebody asks for pictures.
    assert (await fetched(server, "GET", "options", None, blank))["sd_model_checkpoint"] == "fake"
    body = {"prompt": "a red circle", "batch_size": 2, "width": 512, "height": 512, "steps": 4, "negative_prompt": ""}
    params = {"cfg_scale": 5.5, "sampler_name": "Euler a", "scheduler": "Karras"}
    answer = await fetched(server, "POST", "txt2img", {**body, **params}, blank)
    assert [base64.b64decode(image, validate=True)[:8] for image in answer["images"]] == [PNG, PNG]
    assert isinstance(answer["info"], str)


SILLY_TAVERN = {
    # Its browser part adds the address and the password of the server to what its server passes on.
    "url": "http://127.0.0.1:8600",
    "auth": "",
    "prompt": "a red circle",
    "negative_prompt": "blurry",
    "sampler_name": "DPM++ 2M",
    "scheduler": "karras",
    "steps": 4,
    "cfg_scale": 7,
    "width": 512,
    "height": 768,
    "seed": None,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "clip_skip": 1,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
    "override_settings_restore_afterwards": True,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}


async def test_sillytavern_connects_picks_a_model_and_gets_its_picture(server: Server, client: Client) -> None:
    assert "forge_preset" not in await fetched(server, "GET", "options", None, BLANK)
    paths = ("upscalers", "latent-upscale-modes", "samplers", "schedulers", "sd-models", "sd-vae")
    lists = await asyncio.gather(*(fetched(server, "GET", path, None, BLANK) for path in paths))
    upscalers, modes, samplers, schedulers, models, vaes = lists
    names = [each["name"] for each in upscalers]
    names[1:1] = [each["name"] for each in modes]
    assert names == ["None"]
    assert "DPM++ 2M" in [each["name"] for each in samplers]
    assert "karras" in [each["name"] for each in schedulers]
    assert [each["model_name"] for each in vaes] == []
    assert (await exchange(server, "GET", "sd-modules", None, BLANK)).status == 404
    await fetched(server, "POST", "options", {"sd_model_checkpoint": models[0]["title"]}, BLANK)

    async def idle() -> bool:
        progress = await fetched(server, "GET", "progress", None, BLANK)
        return bool(progress["progress"] == 0 and progress["state"]["job_count"] == 0)

    await eventually(idle)
    assert (await client.http.get("/ready")).status_code == 200
    await fetched(server, "GET", "options", None, BLANK)
    answer = await fetched(server, "POST", "txt2img", SILLY_TAVERN, BLANK)
    assert base64.b64decode(answer["images"][0], validate=True).startswith(PNG)
    info = json.loads(answer["info"])
    assert (info["width"], info["height"], info["sampler_name"], info["warnings"]) == (512, 768, "DPM++ 2M", [])


@pytest.fixture
def patient(make_server: MakeServer) -> Server:
    """A worker that would go on for a minute with what nobody waits for."""
    return make_server(disconnect_grace=60.0)


async def test_sillytavern_stops_and_its_picture_is_no_longer_worked_on(patient: Server, faults: Faults) -> None:
    server = patient
    faults.on("slow", "0.02")
    wire = await Wire.to(server)
    body = json.dumps(SILLY_TAVERN | {"steps": 150}).encode()
    await wire.send(request("POST", "/sdapi/v1/txt2img", "Content-Type: application/json", BLANK, body=body))
    (job,) = await eventually(lambda: [job for job in server.registry.live() if job.step])
    # It hangs up, and says so on another connection, without a body.
    wire.close()
    assert await fetched(server, "POST", "interrupt", None, BLANK) == {}
    await eventually(lambda: job.state == "cancelled")
    assert await fetched(server, "POST", "interrupt", None, BLANK) == {}
    faults.off("slow")
    assert len((await fetched(server, "POST", "txt2img", SILLY_TAVERN, BLANK))["images"]) == 1


async def test_librechat_gets_a_picture_and_the_line_that_says_how_it_was_made(server: Server) -> None:
    body = {"prompt": "a red circle", "negative_prompt": "blurry", "cfg_scale": 4.5, "steps": 22}
    answer = await fetched(server, "POST", "txt2img", {**body, "width": 1024, "height": 1024})
    image = answer["images"][0].split(",", 1)[0]
    assert base64.b64decode(image, validate=True).startswith(PNG)
    info = json.loads(answer["info"])
    assert (info["width"], info["height"], type(info["seed"])) == (1024, 1024, int)
    line = info["infotexts"][0].split("\n").pop()
    assert line.startswith("Steps: 22, Sampler: Euler, CFG scale: 4.5, Seed: ")
