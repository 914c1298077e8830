"""`engine.diffusion` on the demo model: what a job's fields do to its pictures, and what is told on the way."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.training.parts import GUIDANCE
from rbee_sd.messages import Narration, Progress, Started
from tests.engine.bench import TOLERANCE, Bench, before_each_forward, difference, draw, picture, pixels, work


def test_open_values_are_settled_by_the_model(bench: Bench) -> None:
    bench.run(work("a", steps=None, width=None, height=None))
    assert bench.heard(Started) == [Started("a", 20, 128, 128, GUIDANCE, "euler")]
    assert [each.step for each in bench.heard(Progress)] == list(range(1, 21))


def test_given_values_are_kept_as_they_are(bench: Bench) -> None:
    bench.run(work("a", steps=2, width=72, height=48, guidance_scale=0.0, scheduler="dpmpp_2m_karras"))
    assert bench.heard(Started) == [Started("a", 2, 72, 48, 0.0, "dpmpp_2m_karras")]


def test_started_is_told_before_the_first_forward_and_sentences_hold_no_prompt(bench: Bench) -> None:
    forwards: list[bool] = []
    with before_each_forward(bench.model.denoiser.module, lambda: forwards.append(bool(bench.heard(Started)))):
        bench.run(work("a", prompt="zanzibar"))
    assert forwards == [True] * 3
    sentences = [each.text for each in bench.heard(Narration)]
    assert sentences
    assert not [text for text in sentences if "zanzibar" in text or "/" in text]


def test_images_are_png_files_in_rgb(model: Diffusion) -> None:
    with Image.open(io.BytesIO(draw(model)[0])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "lcm"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_picture(model: Diffusion, scheduler: str) -> None:
    # The prompt leaves open where it is, how large, and what is behind it.
    first = draw(model, prompt="a star", seed=7, scheduler=scheduler)
    assert draw(model, prompt="a star", seed=7, scheduler=scheduler) == first
    other = picture(model, prompt="a star", seed=8, scheduler=scheduler)
    apart = float(np.abs(pixels(first[0]).astype(int) - other).mean())
    assert apart > 10


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "euler", "euler_a", "lcm"])
def test_each_of_several_images_is_the_one_its_own_seed_gives_alone(model: Diffusion, scheduler: str) -> None:
    together = draw(model, seed=40, count=3, scheduler=scheduler)
    assert len(together) == 3
    for number, png in enumerate(together):
        alone = picture(model, seed=40 + number, scheduler=scheduler)
        assert difference(pixels(png), alone) <= TOLERANCE


def test_seeds_go_round_after_the_largest(model: Diffusion) -> None:
    _, second = draw(model, seed=2**64 - 1, count=2)
    assert difference(pixels(second), picture(model, seed=0)) <= TOLERANCE


@pytest.mark.parametrize("width, height", [(64, 64), (96, 40), (40, 96), (136, 72), (8, 8)])
def test_the_picture_has_the_size_that_was_asked_for(model: Diffusion, width: int, height: int) -> None:
    assert picture(model, width=width, height=height).shape == (height, width, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a large green heart on a white background"},
        {"negative_prompt": "a blue background"},
        {"guidance_scale": 2.0},
        {"scheduler": "euler_a"},
        {"steps": 4},
    ],
)
def test_every_field_changes_the_picture(model: Diffusion, change: dict[str, Any]) -> None:
    assert difference(picture(model), picture(model, **change)) > TOLERANCE


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guidance_of_one_or_less_is_none_takes_one_row_and_ignores_the_negative_prompt(
    model: Diffusion, scale: float
) -> None:
    rows: list[int] = []
    unet = model.denoiser.module
    handle = unet.register_forward_pre_hook(lambda _, __, named: rows.append(len(named["sample"])), with_kwargs=True)
    try:
        plain = picture(model, guidance_scale=scale)
        assert rows == [1, 1, 1]
        picture(model, guidance_scale=1.1)
        assert rows[3:] == [2, 2, 2]
    finally:
        handle.remove()
    assert difference(plain, picture(model, guidance_scale=1.0, negative_prompt="blurry")) == 0


def test_forwards_counts_the_denoisers_calls(model: Diffusion) -> None:
    before = model.forwards
    draw(model, steps=5, count=2)
    assert model.forwards == before + 5
    draw(model, steps=5, scheduler="heun")
    assert model.forwards == before + 5 + 9


@pytest.mark.parametrize(
    "prompt", ["", " ", "red " * 1000, "🔴👩‍🚀 دائرة حمراء 蓝色 \x00\u200b", "(((a:1.5) [b] <lora:x:1>"]
)
def test_any_text_is_a_prompt(model: Diffusion, prompt: str) -> None:
    assert picture(model, prompt=prompt, negative_prompt=prompt, steps=1).shape == (64, 64, 3)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Whatever any library logs; diffusers and transformers keep theirs from the root logger."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collect()
    loggers = [logging.getLogger(name) for name in (None, "diffusers", "transformers")]
    for each in loggers:
        each.addHandler(handler)
    yield messages
    for each in loggers:
        each.removeHandler(handler)


def test_a_prompt_that_is_cut_is_not_logged(model: Diffusion, logged: list[str]) -> None:
    draw(model, prompt="zanzibar " * 200, negative_prompt="timbuktu " * 200, steps=1)
    assert not [text for text in logged if "zanzibar" in text or "timbuktu" in text]


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "euler_a", "lcm"])
def test_a_job_leaves_the_global_random_numbers_alone(model: Diffusion, scheduler: str) -> None:
    before = torch.get_rng_state()
    draw(model, scheduler=scheduler, count=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_job_leaves_the_models_own_scheduler_alone(model: Diffusion) -> None:
    own = model.pipe.scheduler
    before = (own.num_inference_steps, own.timesteps.clone(), dict(own.config))
    draw(model, steps=5, scheduler="pndm")
    draw(model, steps=5)
    assert model.pipe.scheduler is own
    assert own.num_inference_steps == before[0]
    assert torch.equal(own.timesteps, before[1])
    assert dict(own.config) == before[2]
