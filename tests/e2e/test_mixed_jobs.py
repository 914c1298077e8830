"""Eight jobs of all kinds at once on a live worker: each ends as it should, and as it would have alone."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rbee_sd.client import AsyncClient
from tests.e2e.conftest import LiveWorker, serving

TOLERANCE = 2
SCHEDULERS = ("euler", "dpmpp_2m_karras", "euler_a", "unipc")
STOPPED = (1, 6)
POISONED = 4


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveWorker]:
    """A worker that has a LoRA which cannot be used."""
    home = tmp_path_factory.mktemp("mixed")
    loras = home / "loras"
    loras.mkdir()
    (loras / "poison.safetensors").write_bytes(b"no weights at all")
    with serving(home, "--lora-dir", str(loras), "--max-rows", "16") as worker:
        yield worker


def picture(*, white: tuple[int, int, int, int] | None = None) -> bytes:
    """A PNG file: a gradient, or a mask that is white in this box."""
    image = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    if white is not None:
        image = Image.new("L", (128, 128))
        image.paste(255, white)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def order(number: int) -> dict[str, Any]:
    """What job `number` asks for: three operations, four schedulers, steps, guidance and strengths of all kinds."""
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"operation": "image_transform", "image": picture(), "strength": 0.6},
        {"operation": "image_inpaint", "image": picture(), "mask": picture(white=(0, 0, 64, 128)), "strength": 0.9},
    )
    return {
        "prompt": f"a {('red', 'green', 'blue', 'white')[number % 4]} star",
        "seed": number,
        # Those that are to be stopped are still at it when they are.
        "steps": 150 if number in STOPPED else 12 + 3 * number,
        "scheduler": SCHEDULERS[number % 4],
        "guidance_scale": 1.5 + number,
        **kinds[number % 3],
        **({"loras": [{"name": "poison"}]} if number == POISONED else {}),
    }


async def done(client: AsyncClient, number: int) -> tuple[str, str, bytes]:
    """How job `number` ended, its error's code, and its image. Stops it after three steps if it is to be stopped."""
    job = await client.submit(**order(number))
    name = code = ""
    async for event in client.stream(job.job_id):
        name = event.name
        if event.name == "progress" and event.data["step"] == 3 and number in STOPPED:
            await client.cancel(job.job_id)
        if event.name == "error":
            code = event.data["code"]
    return name, code, await client.image(job.job_id) if name == "complete" else b""


def pixels(file: bytes) -> Any:
    """An image file as numbers."""
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


async def test_eight_jobs_of_all_kinds_end_as_they_should_and_paint_what_they_paint_alone(worker: LiveWorker) -> None:
    async with AsyncClient(worker.url) as client:
        before = (await client.result("status"))["engine"]
        ended = await asyncio.gather(*(done(client, number) for number in range(8)))
        after = (await client.result("status"))["engine"]
        # With guidance a job has two rows: they did share.
        assert after["rows"] - before["rows"] > 3 * (after["forwards"] - before["forwards"])
        for number, (name, code, image) in enumerate(ended):
            if number == POISONED:
                assert (name, code) == ("error", "lora_failed")
            elif number in STOPPED:
                assert name == "cancelled"
            else:
                assert name == "complete"
                _, _, alone = await done(client, number)
                assert np.abs(pixels(image) - pixels(alone)).max() <= TOLERANCE
