"""What an unfinished picture looks like: latents to small RGB pixels, and how often that may be done.

Runs on the engine's main thread; the JPEG is made in the encoding thread. Without weights of its own it fits one
linear map from a latent's channels to a colour, for the VAE at hand: exact enough to watch, a few small operations.
With a TAESD (diffusers' AutoencoderTiny) it decodes with that.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as functional

from rbee_sd.engine.device import Stopwatch, to_host

SHARE = 0.02
"""Of the time that steps take, previews may take this much."""
INTERVAL = 0.1
"""Seconds between two previews of a job, at least."""
SAMPLE_SIDE = 256


class Previews:
    """Makes previews of one model. `scale` turns the VAE's latents into the pipeline's: (latents - shift) * factor."""

    def __init__(self, vae: Any, tiny: Any | None) -> None:
        self._tiny = tiny
        self._weights: Any = None if tiny is not None else _fit(vae)
        self._cost = 0.0
        self._free = 0.0
        self._last: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._timed: deque[Stopwatch] = deque()

    def due(self, job_id: str) -> bool:
        """Whether a job that wants a preview may have it now; to be asked once in each of its steps.

        After each one all wait until it was no more than its share. Then it is the turn of who has waited longest.
        """
        self._learn()
        now = time.monotonic()
        before, self._asked[job_id] = self._asked.get(job_id, -math.inf), now
        # Who has not asked since this one did is not there any more.
        rivals = [self._last.get(each, -math.inf) for each, asked in self._asked.items() if asked >= before]
        last = self._last.get(job_id, -math.inf)
        return now >= self._free and now - last >= INTERVAL and last <= min(rivals)

    def make(self, job_id: str, latents: torch.Tensor) -> Callable[[], npt.NDArray[Any]]:
        """(1, channels, h, w) to (H, W, 3) bytes; what is returned waits for them, in any thread."""
        stopwatch = Stopwatch(latents.device)
        if self._tiny is not None:
            picture = self._tiny.decode(latents.to(self._tiny.dtype), return_dict=False)[0][0]
        else:
            picture = self._linear(latents[0].float())
        pixels = to_host((picture.float() * 127.5 + 127.5).clamp(0, 255).byte().permute(1, 2, 0).contiguous())
        stopwatch.stop()
        self._timed.append(stopwatch)
        self._learn()
        self._last[job_id] = time.monotonic()
        self._free = self._last[job_id] + self._cost / SHARE
        return pixels

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        self._last.pop(job_id, None)
        self._asked.pop(job_id, None)

    def _learn(self) -> None:
        while self._timed and (took := self._timed[0].seconds()) is not None:
            self._timed.popleft()
            # Half of the news at a time: one slow moment of the machine is no reason to stop.
            self._cost += (took - self._cost) / (2 if self._cost else 1)

    def _linear(self, latents: torch.Tensor) -> Any:
        # Noise at the start is many times as strong as the picture that will be left.
        calm = latents / latents.std().clamp(min=1.0)
        weights = self._weights
        return torch.einsum("ck,chw->khw", weights[:-1], calm) + weights[-1][:, None, None]


def scaled(vae: Any, latents: torch.Tensor) -> Any:
    """The VAE's own latents as the pipelines see them."""
    config = vae.config
    if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
        mean = torch.tensor(config.latents_mean, device=latents.device).view(1, -1, 1, 1)
        deviation = torch.tensor(config.latents_std, device=latents.device).view(1, -1, 1, 1)
        return (latents - mean) * config.scaling_factor / deviation
    return (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor


def _fit(vae: Any) -> Any:
    """(channels + 1, 3): weights and, last, what is added; least squares over a picture of soft random colours."""
    chance = torch.Generator("cpu").manual_seed(0)
    coarse = torch.rand(1, 3, 16, 16, generator=chance) * 2 - 1
    picture = functional.interpolate(coarse, size=(SAMPLE_SIDE, SAMPLE_SIDE), mode="bicubic").clamp(-1, 1)
    encoded = vae.encode(picture.to(vae.device, vae.dtype))
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    latents = scaled(vae, latents.float())
    colours = functional.interpolate(picture, size=latents.shape[-2:], mode="area")[0].flatten(1).T
    points = latents[0].flatten(1).T.cpu()
    inputs = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    return torch.linalg.lstsq(inputs, colours).solution.to(vae.device)
