"""How pictures were made, as AUTOMATIC1111's clients want it in `info`: told from the pictures themselves.

Front process, IOLoop thread; files are read on the thread that owns them. Its text is the one in the file, word for
word, so that what a client saves beside a picture and what others read in it agree.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson

from rbee_sd import __version__
from rbee_sd.http.sdapi.requests import Txt2Img
from rbee_sd.jobs.images import ImageFile, ImageFiles
from rbee_sd.jobs.job import Job
from rbee_sd.operations import png_header
from rbee_sd.parameters.picture import Parameters, parameters_in
from rbee_sd.samplers import SAMPLERS

HEAD = 1024 * 1024
"""Bytes at the beginning of a picture that hold its texts; the pixels follow."""
PIXELS = b"IDAT"
END = b"\0\0\0\0IEND\xae\x42\x60\x82"


async def described(images: ImageFiles, files: Sequence[ImageFile]) -> list[Parameters]:
    """What each of a job's pictures says of how it was made. Raises `OSError` when one is gone."""
    found = []
    for file in files:
        async with await images.open(file) as image:
            found.append(parameters_in(_without_pixels(await image.read(HEAD))))
    return found


def info_of(job: Job, request: Txt2Img, pictures: Sequence[Parameters], notes: Sequence[str]) -> str:
    """The value of `info`: JSON, as text. Without pictures it tells what was asked for."""
    # What was asked for, what the model made of it, and what the first picture says of itself.
    made = job.order.request | job.settled | (pictures[0].fields if pictures else {})
    count = len(pictures)
    first = job.order.seed or 0
    sampler, _ = SAMPLERS.get(made.get("scheduler", ""), (made.get("scheduler"), ""))
    info: dict[str, Any] = {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * count,
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * count,
        "seed": first,
        "all_seeds": [first + number for number in range(count)],
        "subseed": first,
        "all_subseeds": [first + number for number in range(count)],
        "subseed_strength": 0,
        "width": made.get("width"),
        "height": made.get("height"),
        "sampler_name": sampler,
        "cfg_scale": made.get("guidance_scale"),
        "steps": made.get("steps"),
        "batch_size": count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": made.get("model"),
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": made.get("strength"),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [picture.text for picture in pictures],
        "styles": [],
        "job_timestamp": timestamp(job),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"rbee-sd {__version__}",
        # Ours.
        "job_id": job.id,
        "warnings": list(notes),
    }
    return orjson.dumps(info).decode()


def timestamp(job: Job) -> str:
    """When a job was made, as the original writes it."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(job.created_at))


def _without_pixels(head: bytes) -> bytes:
    """A PNG's beginning as a whole file of its own."""
    for name, start, _ in png_header.chunks(head):
        if name == PIXELS:
            # In front of what a chunk holds are its length and its name, of four bytes each.
            return head[: start - 8] + END
    return head
