"""What a setting brings: the model as the worker loads it beside the same with one setting changed."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from rbee_sd.engine.bench.published import opened
from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.denoiser import resized
from rbee_sd.engine.device import synchronize
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.messages import Generate

CHANGES: dict[str, dict[str, Any]] = {
    "channels_last = false": {"channels_last": False},
    'attention = "plain"': {"attention": "plain"},
    'dtype = "bfloat16"': {"dtype": "bfloat16"},
    "compile = true": {"compiler": "inductor"},
}


def measure(
    model: Diffusion, config: EngineConfig, rows: tuple[int, ...], rounds: int, done: Callable[[], None]
) -> dict[str, dict[str, float] | str]:
    """For each change, how many times as long forwards of so many rows, and the decoding of a picture, take.

    A word instead, the kind of error, where the device lacks a number format or the machine a compiler.
    """
    found: dict[str, dict[str, float] | str] = {}
    for name, change in CHANGES.items():
        try:
            found[name] = _ratios(model, _as_served(replace(config, max_rows=max(rows), **change)), rows, rounds)
        except Exception as error:
            found[name] = type(error).__name__
        # Before the next is loaded: two of a large model may be all that fits.
        gc.collect()
        done()
    return found


def _as_served(config: EngineConfig) -> Diffusion:
    """A model as the worker has it: what is to be compiled is compiled by then."""
    model = opened(config)
    model.warm_up()
    return model


def _ratios(model: Diffusion, changed: Diffusion, rows: tuple[int, ...], rounds: int) -> dict[str, float]:
    ratios = {}
    for each in rows:
        ratios[f"forward of {each} rows"] = _ratio(_forward(model, each), _forward(changed, each), rounds)
    ratios["decoding a picture"] = _ratio(_decoding(model), _decoding(changed), rounds)
    return ratios


def _ratio(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> float:
    for _ in range(3):
        # The first ones take longer.
        first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, taken in zip((first, second), times, strict=True):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
    return statistics.median(times[1]) / statistics.median(times[0])


def _forward(model: Diffusion, rows: int) -> Callable[[], Any]:
    call = resized(model.first_call(Generate("", "", "", 0)), range(rows))

    def work() -> None:
        model.denoiser.forward([call])
        synchronize(model.denoiser.device)

    return work


def _decoding(model: Diffusion) -> Callable[[], Any]:
    vae, ready = model.pipe.vae, model.describe()
    scale = int(model.pipe.vae_scale_factor)
    shape = (1, vae.config.latent_channels, ready.height // scale, ready.width // scale)
    latents = torch.zeros(shape, device=vae.device, dtype=vae.dtype)

    def work() -> None:
        vae.decode(latents, return_dict=False)
        synchronize(model.denoiser.device)

    return work
