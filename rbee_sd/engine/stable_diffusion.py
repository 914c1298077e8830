"""Stable Diffusion 1.x and 2.x through diffusers' own, unmodified pipeline.

Runs on the engine's main thread; every forward of the denoiser blocks it.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from rbee_sd.engine.pipeline import DeviceLostError, GenerationError, Report
from rbee_sd.engine.progress import StepCounter
from rbee_sd.engine.schedulers import make_scheduler
from rbee_sd.messages import Generate, Ready

STEPS = 20
GUIDANCE_SCALE = 7.5


class StableDiffusion:
    """A loaded model: makes images one job at a time."""

    def __init__(self, name: str, pipe: StableDiffusionPipeline, device: torch.device) -> None:
        self._name = name
        self._pipe = pipe
        self._device = device
        self.forwards = 0
        pipe.set_progress_bar_config(disable=True)
        pipe.unet.register_forward_pre_hook(self._count)
        side = pipe.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        self._height, self._width = height * pipe.vae_scale_factor, width * pipe.vae_scale_factor

    def describe(self) -> Ready:
        """See `Pipeline`."""
        dtype = str(self._pipe.unet.dtype).removeprefix("torch.")
        return Ready(
            model=self._name,
            family="stable-diffusion",
            device=str(self._device),
            dtype=dtype,
            capacity=1,
            width=self._width,
            height=self._height,
            steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
        )

    def generate(self, work: Generate, report: Report) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """See `Pipeline`."""
        steps = work.steps or STEPS
        width, height = work.width or self._width, work.height or self._height
        guidance_scale = GUIDANCE_SCALE if work.guidance_scale is None else work.guidance_scale
        # A copy of its own, so that no job sees another's scheduler or guidance; the weights are shared.
        pipe = copy.copy(self._pipe)
        scheduler, pipe.scheduler = make_scheduler(work.scheduler, self._pipe.scheduler, steps)
        report.started(steps, width, height, guidance_scale, scheduler)
        report.narrate(f"painting {steps} steps at {width} x {height} with {scheduler} on {self._device}")
        counter: StepCounter | None = None

        def on_step_end(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal counter
            counter = counter or StepCounter(steps, pipe.num_timesteps)
            for step in counter.after(index + 1):
                report.step(step)
            if index + 1 == pipe.num_timesteps:
                report.narrate("decoding the picture")
            return {}

        output = None
        try:
            output = pipe(
                prompt=work.prompt,
                negative_prompt=work.negative_prompt,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                width=width,
                height=height,
                num_images_per_prompt=work.count,
                generator=[_generator(work.seed + n) for n in range(work.count)],
                callback_on_step_end=on_step_end,
            )
        except RuntimeError as error:
            if not _out_of_memory(error):
                self._check_device()
                raise
        if output is None:
            # Not within the `except`: there the traceback still holds the tensors that are to be freed.
            self._release()
            text = f"{work.count} x {width} x {height} is too much for this device; ask for fewer or smaller images"
            raise GenerationError("out_of_memory", text)
        flagged = output.nsfw_content_detected or []
        return tuple(_png(image) for image in output.images), tuple(n for n, flag in enumerate(flagged) if flag)

    def _check_device(self) -> None:
        """Raise `DeviceLostError` if the device is of no use any more: CUDA fails every call after some errors."""
        if self._device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            raise DeviceLostError from error

    def _count(self, *_: Any) -> None:
        self.forwards += 1

    def _release(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    # On CPU and MPS it has no class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def _generator(seed: int) -> torch.Generator:
    # Always on the CPU: the same seed gives the same noise on every device.
    return torch.Generator("cpu").manual_seed(seed % 2**64)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # Level 1 is about half the time of the default for a few percent of size.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
