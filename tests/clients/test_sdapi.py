"""The package `webuiapi`, as it is, against live workers: AUTOMATIC1111's dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from PIL import Image
from webuiapi import WebUIApi

from rbee_sd.server import Server
from tests.conftest import Faults, MakeServer, eventually

T = TypeVar("T")

KEY = "rbee_0123456789"


class Api:
    """A `WebUIApi` whose calls block a thread, as its user's would, and not the worker's loop."""

    def __init__(self, server: Server, **options: Any) -> None:
        self._make = lambda: WebUIApi(baseurl=f"{server.url}/sdapi/v1", **options)
        self.api: WebUIApi | None = None

    async def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call one of its methods."""
        if self.api is None:
            self.api = await asyncio.to_thread(self._make)
        return await asyncio.to_thread(getattr(self.api, name), *arguments, **options)

    def close(self) -> None:
        """Close its connections."""
        if self.api is not None:
            self.api.session.close()


Connect = Callable[..., Api]


@pytest.fixture
def webui() -> Iterator[Connect]:
    """Clients of servers, closed with the test."""
    clients: list[Api] = []

    def make(server: Server, **options: Any) -> Api:
        clients.append(Api(server, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def api(server: Server, webui: Connect) -> Api:
    """A client of `server`."""
    return webui(server)


async def test_everything_that_it_asks_for_at_any_time_is_answered(api: Api) -> None:
    assert [model["title"] for model in await api("get_sd_models")] == ["fake"]
    assert await api("util_get_model_names") == ["fake"]
    assert await api("util_get_current_model") == "fake"
    samplers = await api("util_get_sampler_names")
    assert {"Euler", "Euler a", "DPM++ 2M", "DPM++ SDE", "DDIM", "UniPC", "LMS", "Heun", "LCM", "PLMS"} == set(samplers)
    assert await api("util_get_scheduler_names") == ["automatic", "karras", "uniform"]
    assert (await api("get_upscalers"))[0]["name"] == "None"
    for name in ("latent_upscale_modes", "sd_vae", "hypernetworks", "face_restorers", "realesrgan_models", "loras"):
        assert await api(f"get_{name}") == []
    assert await api("get_prompt_styles") == []
    assert await api("get_scripts") == {"txt2img": [], "img2img": []}
    assert await api("get_embeddings") == {"loaded": {}, "skipped": {}}
    assert (await api("get_cmd_flags"))["api"] is True
    assert (await api("get_memory"))["ram"]["total"] > 0
    assert await api("refresh_checkpoints") == {}
    assert await api("interrupt") == {}
    assert await api("skip") == {}
    assert await api("custom_post", "refresh-loras", baseurl=True)
    await api("util_wait_for_ready", check_interval=0.05)


async def test_txt2img_makes_the_picture_with_its_settings(api: Api, server: Server) -> None:
    result = await api(
        "txt2img", prompt="a red circle", negative_prompt="blurry", seed=7, width=128, height=64, steps=5
    )
    assert result.image.size == (128, 64)
    assert result.info["seed"] == 7
    assert result.info["all_seeds"] == [7]
    assert (result.info["width"], result.info["height"]) == (128, 64)
    assert result.info["sampler_name"] == "Euler a"
    assert result.info["warnings"] == []
    assert result.info["infotexts"] == [result.image.text["parameters"]]
    assert result.parameters["prompt"] == "a red circle"
    order = server.registry.find(result.info["job_id"])
    assert order is not None
    assert order.order.request["scheduler"] == "euler_a"
    assert order.order.request["guidance_scale"] == 7.0


async def test_batches_are_counted_together_and_have_seeds_in_a_row(api: Api) -> None:
    result = await api("txt2img", prompt="a red circle", batch_size=2, n_iter=2, seed=3, steps=2)
    assert len(result.images) == len(result.info["infotexts"]) == 4
    assert result.info["all_seeds"] == [3, 4, 5, 6]
    assert [image.getpixel((0, 0))[0] for image in result.images] == [3, 4, 5, 6]


async def test_what_it_saves_it_can_read_back(api: Api) -> None:
    made = await api("txt2img", prompt="a red circle, blue: sky", negative_prompt="blurry", seed=7, steps=5)
    read = await api("png_info", made.image)
    assert read.info == made.info["infotexts"][0]
    parameters = read.parameters
    assert parameters["Prompt"] == "a red circle, blue: sky"
    assert parameters["Negative prompt"] == "blurry"
    assert (parameters["Steps"], parameters["Seed"], parameters["Sampler"]) == ("5", "7", "Euler a")
    assert (parameters["Size-1"], parameters["Size-2"]) == ("512", "512")
    assert (await api("png_info", Image.new("RGB", (64, 64)))).info == ""


async def test_setting_the_model_waits_for_it(api: Api) -> None:
    await api("util_set_model", "fak")
    await api("util_wait_for_ready", check_interval=0.05)
    assert await api("util_get_current_model") == "fake"


async def test_a_wrong_value_is_said_so(api: Api) -> None:
    with pytest.raises(RuntimeError) as error:
        await api("txt2img", prompt="a red circle", width=10_000)
    status, text = error.value.args
    assert status == 422
    assert json.loads(text)["detail"] == "width: this worker takes at most 2048"


@pytest.fixture
def guarded(make_server: MakeServer) -> Server:
    """A worker that wants a key."""
    return make_server(api_key=KEY)


async def test_with_keys_the_password_is_the_key(guarded: Server, webui: Connect) -> None:
    api = webui(guarded, username="anybody", password=KEY)
    assert (await api("txt2img", prompt="a red circle", steps=2)).image.size == (512, 512)
    stranger = webui(guarded, username="anybody", password="wrong")
    with pytest.raises(RuntimeError) as error:
        await stranger("txt2img", prompt="a red circle")
    assert error.value.args[0] == 401


@pytest.fixture
def artist(make_server: MakeServer) -> Server:
    """A worker with the model that comes with the project."""
    return make_server(fake_pipeline="", model="demo")


async def test_a_real_model_draws_what_is_asked_for(artist: Server, webui: Connect) -> None:
    api = webui(artist)
    wanted = {"width": 128, "height": 128, "seed": 42, "sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    made = await api("txt2img", prompt="a large red circle on a blue background", **wanted)
    red, _, blue = made.image.getpixel((64, 64))
    assert red > blue + 64
    red, _, blue = made.image.getpixel((4, 4))
    assert blue > red + 64
    text = made.info["infotexts"][0]
    assert text == made.image.text["parameters"]
    assert "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 42, Size: 128x128" in text
    read = await api("png_info", made.image)
    assert read.info == text
    assert json.loads(read.json["items"]["rbee-sd"])["scheduler"] == "dpmpp_2m_karras"
    # What a mask leaves out is kept to the last pixel, of the rest a part is painted anew.
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    prompt, change = "a green square on a yellow background", {"denoising_strength": 1.0, "mask_blur": 0}
    changed = await api("img2img", images=[made.image], mask_image=mask, prompt=prompt, **change, **wanted)
    kept, painted = (0, 0, 64, 128), (64, 0, 128, 128)
    assert changed.image.crop(kept).tobytes() == made.image.crop(kept).tobytes()
    assert changed.image.crop(painted).tobytes() != made.image.crop(painted).tobytes()
    assert changed.info["denoising_strength"] == 1
    assert "inpaint_full_res is ignored by this worker" in changed.info["warnings"]
    # The same settings make the same picture.
    again = await api("txt2img", prompt=read.parameters["Prompt"], **wanted)
    assert again.image.tobytes() == made.image.tobytes()


async def test_interrupting_ends_the_request_without_pictures(server: Server, api: Api, faults: Faults) -> None:
    faults.on("slow", "0.05")
    request = asyncio.create_task(api("txt2img", prompt="a red circle", steps=150, seed=5))
    await eventually(lambda: server.registry.counts()["running"] == 1)

    async def in_the_midst() -> dict[str, Any] | None:
        told: dict[str, Any] = await api("get_progress")
        return told if told["state"]["sampling_step"] and told["current_image"] else None

    told = await eventually(in_the_midst)
    assert 0 < told["progress"] < 1
    assert told["eta_relative"] > 0
    assert told["state"]["job_count"] == 1
    assert told["state"]["sampling_steps"] == 150
    assert await api("interrupt") == {}
    result = await request
    assert result.images == []
    assert result.info["seed"] == 5
    assert result.info["infotexts"] == []
    assert "interrupted" in result.info["warnings"][-1]
    idle = await api("get_progress")
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
