"""The package `openai`, as it is, against live workers: images, edits, variations, streams, models."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Protocol

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image
from tornado.ioloop import IOLoop

from rbee_sd.engine.training.scoring import look
from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually
from tests.documented import wrong
from tests.http.views import forwards, works
from tests.pictures import picture

LONG = 150
IMAGE = picture("PNG", (64, 64))
MASK = picture("PNG", (64, 64), mode="RGBA")


class Sdk(Protocol):
    """The package in one of its two forms: `await sdk(lambda client: client.models.list())`."""

    def __call__(self, call: Callable[[Any], Any], **options: Any) -> Awaitable[Any]:
        """Do something with a client that has these options, and wait for it."""


class AsyncSdk:
    """The form for asyncio."""

    def __init__(self, url: str) -> None:
        self.client = AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)

    async def __call__(self, call: Callable[[Any], Any], **options: Any) -> Any:
        """See `Sdk`."""
        result = await call(self.client.with_options(**options))
        return [each async for each in result] if isinstance(result, openai.AsyncStream) else result


class SyncSdk:
    """The other, which blocks a thread, as it would its user's."""

    def __init__(self, url: str) -> None:
        self.client = OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)

    async def __call__(self, call: Callable[[Any], Any], **options: Any) -> Any:
        """See `Sdk`."""

        def whole() -> Any:
            result = call(self.client.with_options(**options))
            return list(result) if isinstance(result, openai.Stream) else result

        return await asyncio.to_thread(whole)


@pytest.fixture(params=[AsyncSdk, SyncSdk], ids=["async", "sync"])
def sdk(request: pytest.FixtureRequest, server: Server, io_loop: IOLoop) -> Iterator[Sdk]:
    """The package, in each of its forms, against `server`."""
    made = request.param(server.url)
    yield made
    if isinstance(made, AsyncSdk):
        io_loop.run_sync(made.client.close)
    else:
        made.client.close()


@pytest.fixture
def client_of(io_loop: IOLoop) -> Iterator[Callable[..., AsyncOpenAI]]:
    """Clients for asyncio, closed with the test: `client_of(url, max_retries=2)`."""
    made: list[AsyncOpenAI] = []

    def make(url: str, **options: Any) -> AsyncOpenAI:
        made.append(AsyncOpenAI(base_url=f"{url}/v1", **{"api_key": "any", "max_retries": 0, **options}))
        return made[-1]

    yield make
    for each in made:
        io_loop.run_sync(each.close)


def generated(client: Any, **fields: Any) -> Any:
    """Ask for images."""
    return client.images.generate(**fields)


def edited(client: Any, **fields: Any) -> Any:
    """Ask for a changed image."""
    return client.images.edit(**fields)


def opened(image: Any) -> Image.Image:
    """An image of an answer or of an event."""
    with Image.open(io.BytesIO(base64.b64decode(image.b64_json, validate=True))) as file:
        file.load()
        return file


async def only_job(client: Client) -> dict[str, Any]:
    """The one job that was made, as it is now."""
    (job,) = (await client.http.get("/v1/jobs")).json()["jobs"]
    found: dict[str, Any] = job
    return found


# Images.


async def test_images_come_in_base64_with_what_they_are(sdk: Sdk, client: Client) -> None:
    answer = await sdk(
        lambda openai: openai.images.generate(prompt="a red circle", n=3, size="72x64", extra_body={"seed": 7})
    )
    assert [opened(image).size for image in answer.data] == [(72, 64)] * 3
    assert [opened(image).getpixel((0, 0)) for image in answer.data] == [(7, 0, 0), (8, 0, 0), (9, 0, 0)]
    assert [image.seed for image in answer.data] == [7, 8, 9]
    assert (answer.size, answer.output_format, answer.background, answer.quality) == ("72x64", "png", "opaque", "auto")
    assert answer.usage.total_tokens == 0
    job = await client.job(answer.job_id)
    assert answer.created == int(job["finished_at"])
    assert answer._request_id.startswith("req_")


async def test_fields_of_our_own_go_into_the_extra_body(sdk: Sdk, client: Client) -> None:
    ours = {
        "seed": 3,
        "steps": 4,
        "negative_prompt": "blurry",
        "guidance_scale": 2.5,
        "scheduler": "ddim",
        "loras": [],
        "priority": 5,
        "exclusive": True,
        "timeout": 60.0,
        "on_disconnect": "finish",
    }
    answer = await sdk(lambda openai: openai.images.generate(prompt="a red circle", extra_body=ours))
    job = await client.job(answer.job_id)
    assert (
        job["request"]
        == {"operation": "image_generation", "prompt": "a red circle", "format": "png", "count": 1} | ours
    )
    assert (job["state"], job["total"]) == ("completed", 4)


async def test_everything_that_can_be_left_to_the_model_may_be_auto_or_null(sdk: Sdk) -> None:
    answer = await sdk(
        lambda openai: openai.images.generate(
            prompt="a red circle",
            model="gpt-image-1",
            n=None,
            size="auto",
            quality="auto",
            background="auto",
            moderation="auto",
            output_format="png",
            output_compression=100,
            style="vivid",
            user="somebody",
            safety_identifier="somebody else",
            response_format=None,
        )
    )
    assert [opened(image).size for image in answer.data] == [(64, 64)]


async def test_quality_is_a_number_of_steps_unless_they_are_named(sdk: Sdk, client: Client) -> None:
    await client.ready()
    totals = {}
    for quality in ("low", "medium", "standard", "auto", "high", "hd", "xhigh", "max"):
        answer = await sdk(partial(generated, prompt="a", quality=quality))
        totals[quality] = (await client.job(answer.job_id))["total"]
        assert answer.quality == quality
    # The model wants 20.
    assert list(totals.values()) == [10, 20, 20, 20, 30, 30, 40, 60]
    answer = await sdk(lambda openai: openai.images.generate(prompt="a", quality="max", extra_body={"steps": 2}))
    assert (await client.job(answer.job_id))["total"] == 2


@pytest.mark.parametrize(("kind", "compression"), [("jpeg", 0), ("jpeg", 100), ("webp", 50), ("png", 100)])
async def test_images_can_be_of_another_format(sdk: Sdk, client: Client, kind: Any, compression: int) -> None:
    answer = await sdk(
        lambda openai: openai.images.generate(prompt="a", output_format=kind, output_compression=compression)
    )
    assert (opened(answer.data[0]).format, answer.output_format) == (kind.upper(), kind)
    asked = (await client.job(answer.job_id))["request"]
    assert asked.get("quality") == (None if kind == "png" else max(1, compression))


async def test_images_can_be_addresses_below_the_one_that_was_called(sdk: Sdk, server: Server) -> None:
    answer = await sdk(lambda openai: openai.images.generate(prompt="a", n=2, response_format="url"))
    assert [image.b64_json for image in answer.data] == [None, None]
    for number, image in enumerate(answer.data):
        assert image.url == f"{server.url}/v1/jobs/{answer.job_id}/images/{number}"
        async with httpx2.AsyncClient() as http:
            fetched = await http.get(image.url)
        assert fetched.headers["content-type"] == "image/png"


async def test_behind_a_proxy_addresses_are_those_of_the_proxy(client: Client) -> None:
    headers = {"Host": "localhost:8443", "X-Forwarded-Proto": "https"}
    body = {"prompt": "a", "response_format": "url"}
    answer = await client.http.post("/v1/images/generations", json=body, headers=headers)
    assert answer.json()["data"][0]["url"].startswith("https://localhost:8443/v1/jobs/job_")


# Edits and variations.


async def test_the_transparent_part_of_a_mask_is_painted_anew(sdk: Sdk, client: Client) -> None:
    answer = await sdk(
        lambda openai: openai.images.edit(
            image=IMAGE, mask=MASK, prompt="a blue star", n=2, extra_body={"steps": 4, "strength": 0.5, "seed": 1}
        )
    )
    assert len(answer.data) == 2
    job = await client.job(answer.job_id)
    assert job["request"] == {
        "operation": "image_inpaint",
        "prompt": "a blue star",
        "count": 2,
        "steps": 4,
        "strength": 0.5,
        "seed": 1,
        "format": "png",
        "mask_means": "alpha",
        "image": f"png, 64 x 64, {len(IMAGE)} bytes",
        "mask": f"png, 64 x 64, {len(MASK)} bytes",
    }
    assert job["total"] == 2


async def test_files_may_be_named_listed_and_called_anything(sdk: Sdk) -> None:
    images: tuple[Any, ...] = (IMAGE, [IMAGE], ("photo.txt", IMAGE, "text/plain"), io.BytesIO(IMAGE))
    for image in images:
        answer = await sdk(partial(edited, image=image, prompt="a", size="72x64", input_fidelity="high"))
        assert answer.size == "72x64"


async def test_without_a_mask_the_image_says_itself_what_is_painted_anew(sdk: Sdk, client: Client) -> None:
    answer = await sdk(lambda openai: openai.images.edit(image=MASK, prompt="a", extra_body={"steps": 5}))
    asked = (await client.job(answer.job_id))["request"]
    assert (asked["operation"], asked["mask_means"]) == ("image_inpaint", "alpha")
    assert "mask" not in asked


async def test_several_images_at_once_are_refused_rather_than_left_out(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError, match="one image at a time") as refused:
        await sdk(lambda openai: openai.images.edit(image=[IMAGE, IMAGE], prompt="a"))
    assert refused.value.param == "image"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_variation_needs_no_prompt(sdk: Sdk, client: Client) -> None:
    answer = await sdk(
        lambda openai: openai.images.create_variation(image=IMAGE, n=2, extra_body={"strength": 0.5, "steps": 4})
    )
    assert len(answer.data) == 2
    job = await client.job(answer.job_id)
    assert (job["operation"], job["total"]) == ("image_transform", 2)


# Streams.


async def test_a_stream_tells_of_the_picture_on_the_way_and_of_each_when_it_is_done(
    sdk: Sdk, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("slow", "0.02")
    events = await sdk(
        lambda openai: openai.images.generate(
            prompt="a", n=2, stream=True, partial_images=3, extra_body={"seed": 5, "steps": 20}
        )
    )
    *on_the_way, first, second = events
    assert {event.type for event in on_the_way} == {"image_generation.partial_image"}
    for index in (0, 1):
        numbers = [event.partial_image_index for event in on_the_way if event.index == index]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) <= 3
    assert {opened(event).format for event in on_the_way} == {"JPEG"}
    assert [(event.type, event.index, event.seed) for event in (first, second)] == [
        ("image_generation.completed", 0, 5),
        ("image_generation.completed", 1, 6),
    ]
    assert opened(second).getpixel((0, 0)) == (6, 0, 0)
    assert (second.size, second.output_format, second.background) == ("64x64", "png", "opaque")
    assert second.usage.total_tokens == 0


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_partial_images_are_spread_over_the_steps(sdk: Sdk, client: Client, faults: Faults, count: int) -> None:
    await client.ready()
    faults.on("slow", "0.02")
    began = time.monotonic()
    events = await sdk(
        lambda openai: openai.images.generate(prompt="a", stream=True, partial_images=count, extra_body={"steps": 40})
    )
    took = time.monotonic() - began
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image"] * count + ["completed"]
    assert [event.partial_image_index for event in events[:-1]] == list(range(count))
    assert took > 0.8


async def test_a_stream_without_partial_images_is_one_event_for_each_image(sdk: Sdk) -> None:
    events = await sdk(lambda openai: openai.images.generate(prompt="a", stream=True, extra_body={"steps": 2}))
    assert [event.type for event in events] == ["image_generation.completed"]


async def test_an_edit_can_be_streamed_too(sdk: Sdk) -> None:
    events = await sdk(
        lambda openai: openai.images.edit(image=IMAGE, mask=MASK, prompt="a", stream=True, partial_images=1)
    )
    assert [event.type for event in events][-1] == "image_edit.completed"
    assert {event.type for event in events[:-1]} <= {"image_edit.partial_image"}


async def test_a_silent_stream_has_comments_that_the_package_does_not_see(sdk: Sdk, faults: Faults) -> None:
    faults.on("hang")
    task = asyncio.ensure_future(sdk(lambda openai: openai.images.generate(prompt="a", stream=True)))
    # Two heartbeats.
    await asyncio.wait([task], timeout=1.2)
    assert not task.done()
    faults.off("hang")
    assert [event.type for event in await task] == ["image_generation.completed"]


async def test_a_job_that_fails_in_a_stream_is_an_error_with_its_code(sdk: Sdk, faults: Faults, client: Client) -> None:
    faults.on("oom", "once")
    with pytest.raises(openai.APIError, match="not enough memory") as failed:
        await sdk(lambda openai: openai.images.generate(prompt="a", stream=True))
    assert (failed.value.code, failed.value.type) == ("out_of_memory", "server_error")
    await works(client)


# Leaving.


async def test_closing_a_stream_cancels_its_job(
    server: Server, client: Client, faults: Faults, client_of: Callable[..., AsyncOpenAI]
) -> None:
    faults.on("slow", "0.02")
    stream = await client_of(server.url).images.generate(
        prompt="a", stream=True, partial_images=3, extra_body={"steps": LONG}
    )
    await anext(aiter(stream))
    await stream.close()
    view = await client.ended((await only_job(client))["job_id"])
    assert view["state"] == "cancelled"
    faults.off("slow")
    await works(client)
    assert await forwards(client) < LONG


async def test_closing_a_stream_from_a_thread_cancels_its_job(server: Server, client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")

    def look_and_leave() -> None:
        with OpenAI(base_url=f"{server.url}/v1", api_key="any") as sdk:
            stream = sdk.images.generate(prompt="a", stream=True, partial_images=3, extra_body={"steps": LONG})
            next(iter(stream))
            stream.close()

    await asyncio.to_thread(look_and_leave)
    assert (await client.ended((await only_job(client))["job_id"]))["state"] == "cancelled"


async def test_cancelling_a_call_that_waits_cancels_its_job(
    server: Server, client: Client, faults: Faults, client_of: Callable[..., AsyncOpenAI]
) -> None:
    await client.ready()
    faults.on("slow", "0.02")
    call = asyncio.ensure_future(client_of(server.url).images.generate(prompt="a", extra_body={"steps": LONG}))
    await eventually(lambda: server.registry.counts()["running"] == 1)
    call.cancel()
    await eventually(lambda: server.watcher.total == 0, 1.0)
    assert (await client.ended((await only_job(client))["job_id"]))["state"] == "cancelled"


async def test_another_listener_keeps_the_job_of_a_closed_stream_alive(
    server: Server, client: Client, faults: Faults, client_of: Callable[..., AsyncOpenAI]
) -> None:
    faults.on("slow", "0.02")
    stream = await client_of(server.url).images.generate(prompt="a", stream=True, extra_body={"steps": 50})
    (job,) = await eventually(server.registry.live)
    events = asyncio.ensure_future(client.events(job.id))
    await eventually(lambda: server.watcher.listeners(job.id) == 2)
    await stream.close()
    assert (await events)[-2].event == "complete"


# What goes over the wire.


async def test_answers_and_events_are_as_the_document_says(client: Client, faults: Faults) -> None:
    await client.ready()
    body: dict[str, Any] = {"prompt": "a", "n": 2, "steps": 10}
    for more in ({}, {"response_format": "url"}):
        answer = await client.http.post("/v1/images/generations", json=body | more)
        assert wrong("Images", answer.json()) == []
    assert wrong("ModelList", (await client.http.get("/v1/models")).json()) == []
    assert wrong("Model", (await client.http.get("/v1/models/fake")).json()) == []
    assert wrong("OpenAIError", (await client.http.post("/v1/images/generations", json={})).json()) == []
    faults.on("slow", "0.02")
    seen = set()
    for partial_images in (3, 0):
        stream = body | {"stream": True, "partial_images": partial_images}
        async with client.http.stream("POST", "/v1/images/generations", json=stream) as told:
            assert told.headers["content-type"] == "text/event-stream"
            raw = (await told.aread()).decode()
        *events, done, rest = [block for block in raw.split("\n\n") if not block.startswith(":")]
        assert (done, rest) == ("data: [DONE]", "")
        for event in events:
            name, data = event.removeprefix("event: ").split("\ndata: ")
            value = json.loads(data)
            assert value["type"] == name
            schema = {"partial_image": "PartialImage", "completed": "CompletedImage", "error": "StreamError"}
            assert wrong(schema[name.rpartition(".")[2]], value) == []
            seen.add(name)
        faults.on("oom", "once")
    assert seen == {"image_generation.partial_image", "image_generation.completed", "error"}


# Models.


@pytest.fixture
def renamed(make_server: MakeServer) -> Server:
    """A worker whose model has another name."""
    return make_server(model_aliases=("org/model=fake", "gone=nothing"))


async def test_models_are_listed_and_found_by_every_name_that_a_request_may_give(
    renamed: Server, client_of: Callable[..., AsyncOpenAI]
) -> None:
    sdk = client_of(renamed.url)
    assert [model.id async for model in sdk.models.list()] == ["fake", "org/model"]
    for name in ("fake", "org/model", "gpt-image-1", "gpt-image-2-mini", "dall-e-3"):
        found = await sdk.models.retrieve(name)
        assert (found.id, found.object) == (name, "model")
        answer = await sdk.images.generate(prompt="a", model=name, extra_body={"steps": 1})
        assert len(answer.data or []) == 1
    for name in ("other", "gpt-4", "gone", "../fake"):
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.models.retrieve(name)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.images.generate(prompt="a", model=name)
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


# The real thing.

REAL: dict[str, Any] = {"model": "demo", "fake_pipeline": "", "device": "cpu", "threads": 1, "log_level": "warning"}


@pytest.fixture
def demo(make_server: MakeServer) -> Server:
    """A worker with the demo model."""
    return make_server(**REAL)


async def test_the_demo_model_draws_what_the_package_asks_for_and_changes_only_what_a_mask_names(
    demo: Server, client_of: Callable[..., AsyncOpenAI]
) -> None:
    sdk = client_of(demo.url, timeout=120)
    answer = await sdk.images.generate(prompt="a large red circle on a white background", extra_body={"seed": 1})
    assert answer.data
    drawn = opened(answer.data[0])
    sight = look(drawn.convert("RGB"))
    assert (sight.background, sight.things[0].colour, sight.things[0].shape) == ("white", "red", "circle")
    # The right half is to be painted anew.
    mask = Image.new("RGBA", drawn.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (drawn.width // 2, 0, *drawn.size))
    file = io.BytesIO()
    mask.save(file, "PNG")
    changed = await sdk.images.edit(
        image=base64.b64decode(answer.data[0].b64_json or ""), mask=file.getvalue(), prompt="a blue star", size="auto"
    )
    assert changed.data
    after = opened(changed.data[0])
    left, right = (0, 0, drawn.width // 2, drawn.height), (drawn.width // 2, 0, *drawn.size)
    assert after.crop(left).tobytes() == drawn.crop(left).tobytes()
    assert after.crop(right).tobytes() != drawn.crop(right).tobytes()
