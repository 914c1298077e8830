"""The VAE when there is not enough memory for a picture: once more in tiles, for that picture alone."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL

from rbee_sd.engine.calls import Stage
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.strand import Strand
from rbee_sd.engine.vae import VaeStandIn
from rbee_sd.messages import TRANSFORM, Failed, Finished
from tests.engine.bench import Bench, alone, config, difference, draw, picture, pixels, work
from tests.engine.test_families import inputs_of

LARGE: dict[str, Any] = {"width": 256, "height": 192, "steps": 1}
"""More than a tile of the classic model has."""


@contextmanager
def memory_for_tiles(part: torch.nn.Module, most: int) -> Iterator[list[bool]]:
    """No memory for more than `most` latents, or pixels, at once; yields whether each attempt was one too many."""
    attempts: list[bool] = []

    def look(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        attempts.append(arguments[0].shape[-1] * arguments[0].shape[-2] > most)
        if attempts[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = part.register_forward_pre_hook(look)
    try:
        yield attempts
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def loaded(classic: Path) -> Diffusion:
    return load(config(classic))


def test_a_picture_too_large_to_be_decoded_at_once_is_decoded_in_tiles(loaded: Diffusion, classic: Path) -> None:
    tiled = load(config(classic, vae_tiling=0.03))
    with memory_for_tiles(loaded.pipe.vae.decoder, 16 * 16) as attempts:
        made = draw(loaded, **LARGE)
    assert len(attempts) > 2
    assert attempts == [True] + [False] * (len(attempts) - 1)
    assert made == draw(tiled, **LARGE)


def test_an_image_too_large_to_be_encoded_at_once_is_encoded_in_tiles(loaded: Diffusion) -> None:
    changes = {**LARGE, "operation": TRANSFORM, "inputs": inputs_of(TRANSFORM), "steps": 4, "strength": 0.5}
    with memory_for_tiles(loaded.pipe.vae.encoder, 128 * 128) as attempts:
        made = picture(loaded, **changes)
    assert len(attempts) > 2
    assert attempts == [True] + [False] * (len(attempts) - 1)
    assert np.abs(made.astype(int) - picture(loaded, **changes)).mean() < 20


def test_other_jobs_and_later_ones_are_decoded_as_ever(loaded: Diffusion) -> None:
    small, large = work("small", steps=1), work("large", **LARGE)
    expected = alone(loaded, small), alone(loaded, large)
    bench = Bench(loaded)
    with memory_for_tiles(loaded.pipe.vae.decoder, 16 * 16):
        bench.run(large, small)
    assert difference(bench.picture("small"), pixels(expected[0][0])) <= 2
    assert bench.heard(Finished, "large")
    bench.engine.close()
    assert alone(loaded, large) == expected[1]


def test_what_does_not_fit_in_tiles_either_fails_once_and_says_so(loaded: Diffusion) -> None:
    bench = Bench(loaded)
    with memory_for_tiles(loaded.pipe.vae.decoder, 0) as attempts:
        bench.run(work("large", **LARGE))
    (failed,) = bench.heard(Failed, "large")
    assert failed.code == "out_of_memory"
    assert attempts == [True, True]
    bench.run(work("next", steps=1))
    assert bench.heard(Finished, "next")
    bench.engine.close()


def test_a_vae_that_knows_no_tiles_is_not_asked_again() -> None:
    vae = AsymmetricAutoencoderKL(norm_num_groups=32)
    stand_in = VaeStandIn(vae, 8, tiling=0.0)
    strand = Strand(0, lambda: stand_in.decode(torch.zeros(1, 4, 8, 8)), priority=0, owner="", place=0)
    strand.wake()
    assert isinstance(strand.wants, Stage)
    strand.fail(error := torch.OutOfMemoryError("CUDA out of memory"))
    assert strand.done
    assert strand.error is error


@pytest.mark.usefixtures("_no_collector")
def test_the_memory_of_the_first_attempt_is_free_before_the_second(
    loaded: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    held: list[bool] = []

    def run_out(*_: Any) -> None:
        if not alive:
            work_of_a_decoder = torch.empty(8)
            alive.append(weakref.ref(work_of_a_decoder))
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("rbee_sd.engine.vae.release", lambda _: held.append(alive[0]() is not None))
    handle = loaded.pipe.vae.decoder.register_forward_pre_hook(run_out)
    draw(loaded, **LARGE)
    handle.remove()
    assert held == [False]
