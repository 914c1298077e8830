"""AUTOMATIC1111's dialect over sockets: whose jobs are meant, how refusals look, what becomes of a request."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import httpx2
import pytest

from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.routes import SDAPI
from rbee_sd.jobs.job import Job
from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually, known
from tests.http.conftest import Dial
from tests.http.wire import Answer, Wire, request
from tests.pictures import picture, text

SLOW = pytest.mark.faults({"slow": "0.02"})
LONG = 150
ALICE, BOB = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}


async def get(client: Client, path: str, **options: Any) -> Any:
    """What a GET answers."""
    answer = await client.http.get(f"/sdapi/v1/{path}", **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def post(client: Client, path: str, body: dict[str, Any] | None = None, **options: Any) -> Any:
    """What a POST answers."""
    answer = await client.http.post(f"/sdapi/v1/{path}", json=body, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def drawn(client: Client, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `txt2img` answers, and what its `info` says."""
    body = await post(client, "txt2img", {"prompt": "a red circle", "steps": 2, **fields})
    assert set(body) == {"images", "parameters", "info"}
    return body, json.loads(body["info"])


def asked(server: Server, info: dict[str, Any]) -> dict[str, Any]:
    """The request of ours that was made of one."""
    return known(server, info["job_id"]).order.request


def error_of(answer: httpx2.Response | Answer, status: int, code: str) -> str:
    """The text of an error, which is of this dialect's shape and gives nothing away."""
    seen = answer.status_code if isinstance(answer, httpx2.Response) else answer.status
    body = answer.json()
    assert (seen, body["error"]) == (status, code), body
    assert answer.headers["content-type"] == "application/json"
    assert set(body) == {"error", "detail", "body", "errors"}
    assert body["detail"] == body["errors"] != ""
    assert not re.search(r"Traceback|\.py\b|site-packages", body["detail"])
    detail: str = body["detail"]
    return detail


def running_of(server: Server, owner: dict[str, str]) -> Job | None:
    """A job of this caller that runs."""
    jobs = server.registry.live()
    return next((job for job in jobs if job.order.owner == owner["X-Forwarded-For"] and job.step), None)


async def begun(server: Server, client: Client, owner: dict[str, str], **fields: Any) -> tuple[Any, Job]:
    """A request of this caller, under way, and its job."""
    sent = asyncio.create_task(post(client, "txt2img", {"prompt": "a", "steps": LONG, **fields}, headers=owner))
    return sent, await eventually(lambda: running_of(server, owner))


# Whose jobs are meant.


@pytest.mark.faults({"slow": "0.02", "capacity": "2"})
async def test_progress_and_interrupt_mean_the_callers_jobs_and_nobody_elses(server: Server, client: Client) -> None:
    hers, her_job = await begun(server, client, ALICE)
    his, his_job = await begun(server, client, BOB)
    for owner, job in ((ALICE, her_job), (BOB, his_job)):
        told = await get(client, "progress", headers=owner)
        assert (told["state"]["job"], told["state"]["job_count"]) == (job.id, 1)
        assert told["state"]["sampling_steps"] == LONG
        assert 0 < told["progress"] < 1
    stranger = await get(client, "progress")
    assert (stranger["progress"], stranger["state"]["job_count"], stranger["current_image"]) == (0, 0, None)
    assert await post(client, "interrupt") == {}
    assert await post(client, "interrupt", headers=ALICE) == {}
    assert (await hers)["images"] == []
    assert (her_job.state, his_job.state) == ("cancelled", "running")
    assert (await get(client, "progress", headers=ALICE))["state"]["job_count"] == 0
    assert await post(client, "skip", headers=BOB) == {}
    assert (await his)["images"] == []


@SLOW
async def test_a_job_that_came_by_our_own_api_is_none_of_this_dialects(server: Server, client: Client) -> None:
    job_id = await client.submit(steps=40)
    await eventually(lambda: known(server, job_id).step)
    assert (await get(client, "progress"))["state"]["job_count"] == 0
    await post(client, "interrupt")
    assert (await client.ended(job_id))["state"] == "completed"


@SLOW
async def test_of_several_jobs_the_oldest_is_the_current_one(server: Server, client: Client) -> None:
    first, running = await begun(server, client, ALICE)
    second = asyncio.create_task(post(client, "txt2img", {"prompt": "b", "steps": 2, "seed": 9}, headers=ALICE))
    await eventually(lambda: len(server.registry.queue) == 1)
    told = await get(client, "progress", headers=ALICE)
    assert (told["state"]["job"], told["state"]["job_count"]) == (running.id, 2)
    await post(client, "interrupt", headers=ALICE)
    assert (await first)["images"] == []
    assert len((await second)["images"]) == 1


@pytest.mark.settings(disconnect_grace=60.0)
@pytest.mark.faults({"slow": "0.02", "capacity": "2"})
async def test_interrupt_means_the_job_whose_client_has_gone_before_one_that_is_waited_for(
    server: Server, client: Client, dial: Dial
) -> None:
    waiting, older = await begun(server, client, ALICE)
    wire = await sent_by(await dial(server), ALICE, steps=LONG)
    left = await eventually(
        lambda: next((job for job in server.registry.live() if job is not older and job.step), None)
    )
    wire.close()
    await eventually(lambda: server.watcher.listeners(left.id) == 0)
    await post(client, "interrupt", headers=ALICE)
    assert (left.state, older.state) == ("cancelled", "running")
    await post(client, "interrupt", headers=ALICE)
    assert (await waiting)["images"] == []


async def sent_by(wire: Wire, owner: dict[str, str], **fields: Any) -> Wire:
    """Send a `txt2img` on a raw connection."""
    body = json.dumps({"prompt": "a red circle", **fields}).encode()
    headers = [f"{name}: {value}" for name, value in owner.items()]
    await wire.send(request("POST", "/sdapi/v1/txt2img", "Content-Type: application/json", *headers, body=body))
    return wire


@SLOW
async def test_closing_the_connection_cancels_the_job(server: Server, client: Client, dial: Dial) -> None:
    wire = await sent_by(await dial(server), ALICE, steps=LONG)
    job = await eventually(lambda: running_of(server, ALICE))
    wire.close()
    await eventually(lambda: job.state == "cancelled")
    assert (await get(client, "progress", headers=ALICE))["state"]["job_count"] == 0


@SLOW
async def test_a_caller_who_asks_for_the_progress_sees_the_picture_come(server: Server, client: Client) -> None:
    request, _ = await begun(server, client, ALICE)

    async def preview() -> Any:
        return (await get(client, "progress", headers=ALICE))["current_image"]

    image = base64.b64decode(await eventually(preview))
    assert image.startswith(b"\xff\xd8")
    told = await get(client, "progress", params={"skip_current_image": "true"}, headers=ALICE)
    assert told["current_image"] is None
    await post(client, "interrupt", headers=ALICE)
    await request


@pytest.mark.faults({"slow-start": "0.5"})
async def test_while_the_model_loads_there_is_something_to_wait_for(client: Client, server: Server) -> None:
    assert await post(client, "options", {"sd_model_checkpoint": "fake"}) == {}
    told = await get(client, "progress")
    assert (told["progress"], told["state"]["job_count"]) == (0, 1)
    await client.ready()
    await eventually(lambda: server.registry.live() == [])
    told = await get(client, "progress")
    assert (told["progress"], told["state"]["job_count"]) == (0, 0)


# Refusals.


async def test_refusals_are_of_the_dialects_shape(client: Client, dial: Dial, server: Server) -> None:
    http = client.http
    txt2img = "/sdapi/v1/txt2img"
    assert "AUTOMATIC1111" in error_of(await http.get("/sdapi/v1/interrogate"), 404, "not_found")
    answer = await http.get(txt2img)
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST, OPTIONS"
    error_of(await http.post(txt2img, content=b"prompt=x", headers={"Content-Type": "text/plain"}), 415, "not_json")
    error_of(await http.post(txt2img, content=b"{"), 422, "invalid_json")
    error_of(await http.post(txt2img, json=["prompt"]), 422, "invalid_json")
    error_of(await http.get("/sdapi/v1/options", headers={"Host": "evil.example"}), 403, "host_not_allowed")
    large = f"Content-Length: {server.settings.max_body + 1}"
    wire = await dial(server)
    await wire.send(request("POST", txt2img, "Content-Type: application/json", large))
    error_of(await wire.answer(), 413, "body_too_large")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"steps": 10_000}, "steps: this worker takes at most 150"),
        ({"steps": "many"}, "steps: Input should be a valid integer"),
        ({"cfg_scale": 51}, "cfg_scale: Input should be less than or equal to 50"),
        ({"batch_size": 3, "n_iter": 3}, "batch_size x n_iter: this worker takes at most 8"),
        (
            {"width": 10, "height": 8192},
            "width: Input should be greater than or equal to 64; height: this worker takes",
        ),
        ({"seed": "many"}, "seed: Input should be a valid integer"),
        ({"seed": -2}, "seed: Input should be greater than or equal to 0"),
        ({"prompt": "x" + "<lora:q>" * 100_000}, "prompt: String should have at most"),
        ({"clip_skip": "1" + "0" * 30}, "clip_skip: Input should be less than or equal to"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": 10**18 * 100}},
            "override_settings.CLIP_stop_at_last_layers: ",
        ),
        ({"enable_hr": True}, "enable_hr: this worker makes no second pass"),
        ({"script_name": "X/Y/Z plot"}, "script_name: there is no script 'X/Y/Z plot' here"),
        (
            {"alwayson_scripts": {"ADetailer": {"args": [True]}}},
            "alwayson_scripts: there is no script 'ADetailer' here",
        ),
    ],
)
async def test_a_wrong_value_is_named_as_the_client_named_it(
    client: Client, fields: dict[str, Any], named: str
) -> None:
    answer = await client.http.post("/sdapi/v1/txt2img", json={"prompt": "a red circle", **fields})
    assert error_of(answer, 422, "invalid_request").startswith(named)


@pytest.mark.settings(queue_size=1)
@pytest.mark.faults({"hang": ""})
async def test_a_full_queue_is_503_with_the_time_to_try_again(server: Server, client: Client, faults: Faults) -> None:
    await client.ready()
    first = await client.submit(steps=1)
    await eventually(lambda: known(server, first).total)
    await client.submit(steps=1)
    answer = await client.http.post("/sdapi/v1/txt2img", json={"prompt": "a red circle"})
    error_of(answer, 503, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1
    faults.off("hang")


@pytest.mark.settings(client_rate=0.1)
async def test_too_many_requests_are_429(client: Client) -> None:
    assert (await client.http.get("/sdapi/v1/options")).status_code == 200
    error_of(await client.http.get("/sdapi/v1/options"), 429, "too_many_requests")


@pytest.mark.faults({"fail": "once"})
async def test_a_job_that_fails_is_500(client: Client) -> None:
    answer = await client.http.post("/sdapi/v1/txt2img", json={"prompt": "a red circle", "steps": 2})
    error_of(answer, 500, "generation_failed")


@SLOW
@pytest.mark.settings(drain_timeout=0.0)
async def test_a_worker_that_leaves_says_so(server: Server, client: Client) -> None:
    sent = asyncio.create_task(client.http.post("/sdapi/v1/txt2img", json={"prompt": "a", "steps": LONG}))
    await eventually(lambda: server.registry.counts()["running"])
    await server.drain()
    error_of(await sent, 503, "draining")


@pytest.mark.parametrize("authorization", ["", "Basic ", "Basic Og==", "Basic dXNlcjpwYXNz", "Bearer x"])
async def test_without_keys_whatever_a_client_sends_as_its_own_is_taken(
    server: Server, dial: Dial, authorization: str
) -> None:
    wire = await dial(server)
    answer = await wire.exchange(request("GET", "/sdapi/v1/options", f"Authorization: {authorization}"))
    assert answer.json()["sd_model_checkpoint"] == "fake"


@pytest.fixture
def guarded(make_server: MakeServer) -> Server:
    """A worker that wants a key."""
    return make_server(api_key="a key: with a colon")


async def test_with_keys_the_key_is_the_password_of_any_user(guarded: Server, dial: Dial) -> None:
    wire = await dial(guarded)
    right = base64.b64encode(b"anybody:a key: with a colon").decode()
    answer = await wire.exchange(request("GET", "/sdapi/v1/options", f"Authorization: Basic {right}"))
    assert answer.status == 200
    for authorization in ("", "Basic ", "Basic Og==", "Basic !", "Basic dXNlcjpwYXNz"):
        wire = await dial(guarded)
        answer = await wire.exchange(request("GET", "/sdapi/v1/options", f"Authorization: {authorization}"))
        error_of(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == 'Basic realm="rbee-sd"'


@pytest.mark.parametrize(("path", "handler"), SDAPI)
async def test_every_route_of_the_dialect_is_behind_the_door(
    guarded: Server, dial: Dial, path: str, handler: type[Any]
) -> None:
    for method in ("GET", "POST"):
        wire = await dial(guarded)
        error_of(await wire.exchange(request(method, path)), 401, "invalid_api_key")
        wire = await dial(guarded)
        error_of(await wire.exchange(request(method, path, "Host: evil.example")), 403, "host_not_allowed")
    assert issubclass(handler, SdapiHandler)


# What becomes of a request.


async def test_what_a_client_leaves_out_is_what_the_model_wants(server: Server, client: Client) -> None:
    body = await post(client, "txt2img", {"prompt": None, "steps": None, "sampler_name": None, "override_settings": {}})
    info = json.loads(body["info"])
    assert asked(server, info) == {"operation": "image_generation", "prompt": " ", "negative_prompt": ""} | {
        "count": 1,
        "loras": [],
        "preview": True,
    }
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (64, 64, 20, 7.5)


async def test_json_is_taken_without_its_type_and_words_for_numbers(server: Server, client: Client) -> None:
    body = b'{"prompt": "a red circle", "steps": "2", "seed": "7", "url": "http://127.0.0.1:1/", "unknown": {"a": [1]}}'
    wire_headers = {"Content-Length": str(len(body))}
    answer = await client.http.request("POST", "/sdapi/v1/txt2img", content=body, headers=wire_headers)
    assert answer.status_code == 200
    assert "content-type" not in answer.request.headers
    assert asked(server, json.loads(answer.json()["info"]))["seed"] == 7


@pytest.mark.parametrize(
    ("fields", "scheduler", "name", "warned"),
    [
        ({"sampler_name": "Euler a"}, "euler_a", "Euler a", False),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, "dpmpp_2m_karras", "DPM++ 2M", False),
        ({"sampler_name": "DPM++ 2M Karras"}, "dpmpp_2m_karras", "DPM++ 2M", False),
        ({"sampler_name": "DPM++ 2M", "scheduler": "automatic"}, "dpmpp_2m_karras", "DPM++ 2M", False),
        ({"sampler_name": "DPM++ 2M", "scheduler": "uniform"}, "dpmpp_2m", "DPM++ 2M", False),
        ({"sampler_index": "PLMS"}, "pndm", "PLMS", False),
        ({"sampler_name": "k_euler_ancestral"}, "euler_a", "Euler a", False),
        ({"sampler_name": "Euler", "scheduler": "Beta"}, "euler", "Euler", True),
        ({"sampler_name": "DPM adaptive"}, None, "Euler", True),
        ({"sampler_name": "Automatic", "scheduler": "Karras"}, None, "Euler", False),
        ({}, None, "Euler", False),
    ],
)
async def test_samplers_go_by_the_names_that_are_known(
    server: Server, client: Client, fields: dict[str, Any], scheduler: str | None, name: str, warned: bool
) -> None:
    _, info = await drawn(client, **fields)
    assert asked(server, info).get("scheduler") == scheduler
    assert info["sampler_name"] == name
    assert bool(info["warnings"]) is warned


async def test_what_is_left_out_of_a_picture_is_said_in_info_and_in_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    _, info = await drawn(
        client,
        width=127,
        sampler_name="Restart",
        prompt="a red circle <lora:nowhere:1>",
        restore_faces=True,
        styles=["photo"],
        override_settings={"CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic"},
    )
    assert info["width"] == 120
    assert info["prompt"] == "a red circle <lora:nowhere:1>"
    assert "nowhere" not in info["infotexts"][0]
    said = " / ".join(info["warnings"])
    for word in ("Restart", "nowhere", "restore_faces", "styles", "clip_skip", "the width 127 is rounded down to 120"):
        assert word in said
        assert word in caplog.text
    assert "sd_vae" not in said


async def test_the_images_need_not_be_sent(client: Client) -> None:
    body, info = await drawn(client, send_images=False, batch_size=2)
    assert body["images"] == []
    assert len(info["infotexts"]) == 2
    assert (await client.http.get(f"/v1/jobs/{info['job_id']}/images/1")).status_code == 200


async def test_the_chosen_model_is_the_callers(client: Client, server: Server) -> None:
    await post(client, "options", {"sd_model_checkpoint": "fake.safetensors [0123456789]", "samples_format": "jpg"})
    _, info = await drawn(client)
    assert asked(server, info)["model"] == info["sd_model_name"] == "fake"
    _, info = await drawn(client, override_settings={"sd_model_checkpoint": "fake"})
    assert asked(server, info)["model"] == "fake"
    for path, body in (
        ("options", {"sd_model_checkpoint": "another"}),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "another"}}),
    ):
        error = error_of(await client.http.post(f"/sdapi/v1/{path}", json=body), 404, "model_not_found")
        assert "there is fake" in error


async def test_an_image_is_changed_and_its_masked_part_painted_anew(server: Server, client: Client) -> None:
    image, mask = text(picture("PNG", (96, 64))), "data:image/png;base64," + text(picture("PNG", (96, 64), mode="L"))
    answer = await client.http.post("/sdapi/v1/img2img", json={"prompt": "a red circle", "steps": 4})
    error_of(answer, 404, "image_not_found")
    body = await post(client, "img2img", {"prompt": "a", "steps": 4, "init_images": [image], "resize_mode": 1})
    made = asked(server, json.loads(body["info"]))
    assert (made["operation"], made["strength"], made["fit"]) == ("image_transform", 0.75, "crop")
    assert body["parameters"]["init_images"] is None
    fields = {"init_images": [image], "mask": mask, "denoising_strength": 0.5, "inpainting_mask_invert": 1}
    fields |= {"include_init_images": True, "width": 100, "height": 64}
    body = await post(client, "img2img", {"prompt": "a", "steps": 4, **fields})
    info = json.loads(body["info"])
    made = asked(server, info)
    assert (made["operation"], made["mask_means"], made["mask_blur"]) == ("image_inpaint", "black", 4.0)
    assert (info["width"], info["height"], info["denoising_strength"]) == (96, 64, 0.5)
    assert body["parameters"]["mask"] == mask


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"init_images": ["http://127.0.0.1:1/a.png"]}, "init_images: not an image in base64"),
        ({"init_images": ["AAAA", "AAAA"]}, "init_images: send one image"),
        ({"denoising_strength": 0}, "denoising_strength: Input should be greater than 0"),
        ({"mask": "AAAA"}, "mask: not a PNG, JPEG or WebP file"),
        ({"resize_mode": 4}, "resize_mode: Input should be less than or equal to 3"),
    ],
)
async def test_a_wrong_image_is_named_as_the_client_named_it(
    client: Client, fields: dict[str, Any], named: str
) -> None:
    body = {"prompt": "a", "init_images": [text(picture("PNG", (64, 64)))], **fields}
    answer = await client.http.post("/sdapi/v1/img2img", json=body)
    assert error_of(answer, 422, "invalid_request").startswith(named)


async def test_png_info_refuses_what_is_no_picture(client: Client) -> None:
    answer = await client.http.post("/sdapi/v1/png-info", json={"image": "AAAA"})
    assert error_of(answer, 422, "invalid_request") == "image: not a PNG, JPEG or WebP file"
    answer = await client.http.post("/sdapi/v1/png-info", json={})
    assert error_of(answer, 422, "invalid_request") == "image: this field is required"


async def test_a_picture_that_was_deleted_is_410(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(server.images, "open", gone)
    answer = await client.http.post("/sdapi/v1/txt2img", json={"prompt": "a red circle", "steps": 2})
    error_of(answer, 410, "image_gone")
