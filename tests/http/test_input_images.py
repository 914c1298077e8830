"""Input images over the wire: jobs made of them; every kind of bad one refused with its field, and nothing stored."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

import httpx2
import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults
from tests.http.views import error_of, running, works, wrong_fields
from tests.pictures import animation, chunk, picture, png, text

IMAGE = picture("PNG", (100, 64))
MASK = picture("PNG", (100, 64), mode="L")
BAD_IMAGES: dict[str, Any] = {
    "nothing": "",
    "no text": 7,
    "null": None,
    "no base64": "a picture of a cat",
    "no image": "aGVsbG8=",
    "an address": "http://127.0.0.1:1/x.png",
    "a secure address": "https://example.org/x.png",
    "a file": "file:///etc/passwd",
    "a path": "/etc/passwd",
    "a relative path": "../x",
    "a data URL of text": "data:text/plain;base64,aGVsbG8=",
    "81 megapixels": text(png(size=(9000, 9000), depth=1)),
    "20,000 x 20,000": text(png(size=(20_000, 20_000), depth=1)),
    "a bomb of text": text(png(chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * 50_000_000)))),
    "an animated PNG": text(animation("PNG")),
    "an animated WebP": text(animation("WEBP")),
    "a GIF": text(picture("GIF")),
    "an SVG": text(b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"></svg>'),
    "a truncated PNG": text(IMAGE[: len(IMAGE) // 2]),
    "a truncated JPEG": text(picture("JPEG")[:-2]),
    "a truncated WebP": text(picture("WEBP")[:-4]),
}


async def submit(client: Client, operation: str = "image_transform", **fields: Any) -> httpx2.Response:
    """Submit a good request with these fields changed; `...` leaves one out."""
    good = {"operation": operation, "prompt": "a red circle", "image": text(IMAGE), "steps": 3}
    if operation == "image_inpaint":
        good["mask"] = text(MASK)
    sent = {name: value for name, value in (good | fields).items() if value is not ...}
    return await client.http.post("/v1/jobs", json=sent)


async def stored(client: Client) -> list[dict[str, Any]]:
    """All jobs there are."""
    jobs: list[dict[str, Any]] = (await client.http.get("/v1/jobs")).json()["jobs"]
    return jobs


@pytest.mark.parametrize("operation", ["image_transform", "image_inpaint"])
async def test_a_job_on_an_image_runs_and_shows_what_its_images_are(client: Client, operation: str) -> None:
    answer = await submit(client, operation, strength=0.5, on_disconnect="finish", exclusive=True)
    assert answer.status_code == 200, answer.text
    view = await client.ended(answer.json()["job_id"])
    assert (view["state"], view["operation"], view["request"]["operation"]) == ("completed", operation, operation)
    assert view["request"]["image"] == f"png, 100 x 64, {len(IMAGE)} bytes"
    assert view["request"].get("mask") in (None, f"png, 100 x 64, {len(MASK)} bytes")
    assert (view["request"]["strength"], view["request"]["exclusive"]) == (0.5, True)
    (listed,) = await stored(client)
    assert listed["request"] == view["request"]


async def test_images_come_in_all_formats_as_data_urls_and_under_older_names(client: Client) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        url = f"data:image/{kind.lower()};base64,{text(picture(kind))}"
        for name in ("image", "input_image", "init_image"):
            sent: dict[str, Any] = {"image": ..., name: url}
            answer = await submit(client, **sent)
            assert answer.status_code == 200, answer.text
            request = (await client.job(answer.json()["job_id"]))["request"]
            assert request["image"].startswith(f"{kind.lower()}, 96 x 64, ")
            assert name == "image" or name not in request
    answer = await submit(client, "image_inpaint", mask=..., mask_image=text(MASK))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("field", ["image", "mask"])
async def test_a_bad_image_is_refused_with_its_field_and_nothing_is_stored(client: Client, field: str) -> None:
    for name, value in BAD_IMAGES.items():
        began = time.perf_counter()
        changed: dict[str, Any] = {field: value}
        answer = await submit(client, "image_inpaint", **changed)
        assert wrong_fields(error_of(answer, 400, "invalid_request")) == {field}, name
        assert len(answer.content) < 2000, name
        assert time.perf_counter() - began < 1, name
    assert await stored(client) == []
    await works(client)


async def test_an_address_for_an_image_is_not_asked(client: Client) -> None:
    asked = []

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    listener = await asyncio.start_server(ask, "127.0.0.1", 0)
    address = listener.sockets[0].getsockname()
    for name in ("image", "mask"):
        url: dict[str, Any] = {name: f"http://127.0.0.1:{address[1]}/x.png"}
        assert wrong_fields(error_of(await submit(client, "image_inpaint", **url), 400)) == {name}
    await works(client)
    listener.close()
    assert asked == []


async def test_what_does_not_fit_together_is_refused_with_its_field(client: Client) -> None:
    small, wide = text(picture("PNG", (32, 64))), text(picture("PNG", (4096, 64)))
    for operation, fields, wrong in (
        ("image_inpaint", {"mask": text(picture("PNG", (64, 100)))}, {"mask"}),
        ("image_inpaint", {"mask": ...}, {"mask"}),
        ("image_transform", {"mask": text(MASK)}, {"mask"}),
        ("image_transform", {"image": ...}, {"image"}),
        ("image_transform", {"init_image": text(IMAGE)}, {"init_image"}),
        ("image_transform", {"image": small}, {"image"}),
        ("image_transform", {"image": wide}, {"image"}),
        ("image_transform", {"steps": 3, "strength": 0.3}, {"strength"}),
        ("image_transform", {"strength": 0}, {"strength"}),
        ("image_transform", {"strength": 1.5, "image": "x", "steps": 0}, {"strength", "image", "steps"}),
        ("image_generation", {}, {"image"}),
        ("image_generation", {"image": ..., "strength": 0.5}, {"strength"}),
    ):
        changed: dict[str, Any] = fields
        error = error_of(await submit(client, operation, **changed), 400, "invalid_request")
        assert wrong_fields(error) == wrong, (operation, list(fields))
    assert await stored(client) == []
    assert (await submit(client, image=small, width=64, height=64)).status_code == 200


async def test_a_strange_lora_is_answered_like_an_unknown_one(client: Client) -> None:
    strange = ("../x", "/etc/passwd", "..\\x", "%2e%2e", "", ".", "~", "x" * 300, "fake", "x.safetensors", "a\0b")
    unknown = error_of(await submit(client, loras=[{"name": "no-such-lora"}]), 400)
    assert wrong_fields(unknown) == {"loras.0.name"}
    for name in strange:
        error = error_of(await submit(client, loras=[{"name": name}]), 400)
        assert {**error, "request_id": "", "errors": []} == {**unknown, "request_id": "", "errors": []}, name
    assert await stored(client) == []


async def test_health_is_answered_while_large_images_come_in(server: Server, client: Client) -> None:
    # No image, but as long as one may be: what is measured is the reading.
    large = text(bytes(server.settings.max_body // 4 * 3 - 3000))
    slowest = 0.0

    async def knock() -> None:
        nonlocal slowest
        while True:
            began = time.perf_counter()
            await client.http.get("/health")
            slowest = max(slowest, time.perf_counter() - began)

    knocking = asyncio.create_task(knock())
    for _ in range(3):
        error_of(await submit(client, image=large), 400, "invalid_request")
    knocking.cancel()
    assert 0 < slowest < 1
    error_of(await submit(client, image=large + "A" * 10_000), 413, "body_too_large")
    await works(client)


async def test_32_mib_of_tiny_values_are_refused_at_once(client: Client) -> None:
    for body in (b'{"prompt": [%s1]}' % (b"[]," * 11_000_000), b'{%s"b": 1}' % (b'"a":1,' * 5_500_000)):
        began = time.perf_counter()
        answer = await client.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        error_of(answer, 400, "invalid_json")
        assert time.perf_counter() - began < 2
    await works(client)


async def test_a_repeat_with_an_image_under_one_key_is_one_job(client: Client, faults: Faults) -> None:
    faults.on("hang")
    await running(client, await client.submit())
    body = {"operation": "image_transform", "prompt": "x", "image": text(IMAGE)}
    answers = [
        await client.http.post("/v1/jobs", json=sent, headers={"Idempotency-Key": "k"})
        for sent in (body, body, body | {"image": text(MASK)})
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert answers[0].json()["job_id"] == answers[1].json()["job_id"]
    faults.off("hang")


async def test_no_image_is_written_to_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await client.ended((await submit(client)).json()["job_id"])
    error_of(await submit(client, image=text(IMAGE[:-1])), 400)
    assert "image_transform" in caplog.text
    assert text(IMAGE)[:40] not in caplog.text
