"""The ways in which a model can be run: every setting paints the same picture; and whose step is next."""

from __future__ import annotations

import itertools
import os
import threading
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from rbee_sd.engine.calls import Stage
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.encoder import Encoder
from rbee_sd.engine.loading import load
from rbee_sd.engine.pipeline import ModelError
from rbee_sd.messages import TRANSFORM, Curve, Failed, Finished, Generate, Progress
from tests.engine import tiny
from tests.engine.bench import (
    DEADLINE,
    Bench,
    alone,
    before_each_forward,
    config,
    difference,
    draw,
    picture,
    work,
)
from tests.engine.test_families import assert_as_alone, engine_over, inputs_of, run_staggered, watched_rows

ALIKE = 3
"""Of 255: how far the same picture may be from one that another kernel has made."""


def crowd(model: Diffusion) -> list[Generate]:
    """Jobs of several kinds."""
    return [
        work("a", seed=1, steps=4),
        work("b", seed=2, steps=6, scheduler="euler_a", guidance_scale=3.0),
        work("c", seed=3, steps=5, guidance_scale=1.0),
        work("d", seed=4, steps=5, operation=TRANSFORM, inputs=inputs_of(TRANSFORM)),
        work("e", seed=5, steps=3, width=96),
    ]


@pytest.mark.parametrize(
    "setting",
    [
        {"channels_last": False},
        {"channels_last": True},
        {"attention": "plain"},
        {"attention": "sdpa"},
        {"max_rows": 1},
        {"prompt_cache": 0},
        {"max_rows": 0, "measured_rows": 4},
    ],
    ids=str,
)
def test_every_setting_paints_the_same_in_company_as_alone(model: Diffusion, setting: dict[str, Any]) -> None:
    loaded = load(config("demo", **setting))
    works = crowd(loaded)
    with engine_over(loaded) as bench:
        run_staggered(bench, works)
        assert_as_alone(bench, *works)
        assert difference(bench.picture("a"), picture(model, seed=1, steps=4)) <= ALIKE


def test_settings_reach_the_parts() -> None:
    plain = load(config("demo", channels_last=False, attention="plain"))
    other = load(config("demo", channels_last=True, attention="sdpa"))
    for loaded, kind, strides in ((plain, AttnProcessor, (144, 9, 3, 1)), (other, AttnProcessor2_0, (36, 1, 12, 4))):
        assert {type(each) for each in loaded.pipe.unet.attn_processors.values()} == {kind}
        assert loaded.pipe.unet.conv_in.weight.stride()[1:] == strides[1:] or strides[0] != 36


@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_settings_for_unets_do_not_hurt_transformers(tmp_path: Path, kind: str) -> None:
    folder = tiny.write(kind, tmp_path / kind)
    expected = picture(load(config(folder, channels_last=False)))
    assert difference(picture(load(config(folder, attention="plain"))), expected) <= ALIKE


def test_with_one_row_every_call_is_alone_and_gives_the_bytes_it_gives_alone() -> None:
    loaded = load(config("demo", max_rows=1))
    works = crowd(loaded)[:3]
    with engine_over(loaded) as bench, watched_rows(loaded) as rows:
        bench.run(*works)
    assert set(rows) == {1, 2}
    assert len(rows) == 4 + 6 + 5
    for each in works:
        assert list(bench.heard(Finished, each.job_id)[0].images) == alone(loaded, each)


def test_a_large_picture_is_decoded_in_tiles_and_a_small_one_as_ever(classic: Path) -> None:
    model, tiled = load(config(classic)), load(config(classic, vae_tiling=0.03))
    small = {"width": 128, "height": 128, "steps": 1}
    large = {"width": 256, "height": 192, "steps": 1}
    decoded: list[int] = []
    with before_each_forward(tiled.pipe.vae.decoder, lambda: decoded.append(1)):
        assert difference(picture(tiled, **small), picture(model, **small)) == 0
        assert len(decoded) == 1
        first = picture(tiled, **large)
        assert len(decoded) > 2
    assert first.shape == (192, 256, 3)
    assert np.abs(first.astype(int) - picture(model, **large)).mean() < 20
    assert difference(picture(tiled, **small), picture(model, **small)) == 0


def test_the_demos_kind_of_vae_reads_and_paints_in_tiles_too(model: Diffusion) -> None:
    tiled = load(config("demo", vae_tiling=0.03))
    wide: dict[str, Any] = {"operation": TRANSFORM, "inputs": inputs_of(TRANSFORM), "width": 640, "height": 64}
    decoded: list[int] = []
    with before_each_forward(tiled.pipe.vae.decoder, lambda: decoded.append(1)):
        first = picture(tiled, **wide, strength=0.5)
    assert len(decoded) == 2
    assert np.abs(first.astype(int) - picture(model, **wide, strength=0.5)).mean() < 20


def test_whether_an_image_is_read_in_tiles_does_not_depend_on_who_was_there_before(classic: Path) -> None:
    tiled = load(config(classic, vae_tiling=0.07))
    image = inputs_of(TRANSFORM)
    small: dict[str, Any] = {"operation": TRANSFORM, "inputs": image, "width": 256, "height": 256, "strength": 0.1}
    small |= {"steps": 10}
    before = draw(tiled, **small)
    draw(tiled, width=512, height=256, steps=1)
    assert draw(tiled, **small) == before


def test_prompts_are_encoded_once_for_as_many_as_are_kept(model: Diffusion) -> None:
    for kept, expected in ((0, 8), (1, 8), (64, 4)):
        loaded = load(config("demo", prompt_cache=kept))
        encoded: list[int] = []
        with before_each_forward(loaded.pipe.text_encoder, partial(encoded.append, 1)):
            for prompt in ("red", "blue", "red", "blue"):
                draw(loaded, prompt=prompt, steps=1)
        assert len(encoded) == expected, kept


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "flux", "inpainting"])
def test_half_precision_works_in_company(tmp_path: Path, kind: str) -> None:
    loaded = load(config(tiny.write(kind, tmp_path / kind), dtype="bfloat16"))
    operation = loaded.describe().operations[0]
    works = [work(f"job{n}", seed=n, steps=3 + n, operation=operation, inputs=inputs_of(operation)) for n in range(3)]
    with engine_over(loaded) as bench:
        bench.run(*works)
        for each in works:
            (solo,) = alone(loaded, each)
            made = bench.picture(each.job_id).astype(int)
            assert made.std() > 1
            assert np.abs(made - picture_of(solo)).mean() < 2


def picture_of(png: bytes) -> Any:
    """Its pixels."""
    from tests.engine.bench import pixels

    return pixels(png)


# Whose step is next.


def test_a_more_urgent_job_takes_the_rows_and_the_other_goes_on_where_it_stood() -> None:
    loaded = load(config("demo", max_rows=2))
    slow = work("slow", steps=8, scheduler="dpmpp_2m")
    urgent = work("urgent", steps=4, seed=2, priority=1)
    with engine_over(loaded) as bench:
        bench.engine.submit(slow)
        bench.step(3)
        bench.engine.submit(urgent)
        bench.run()
        order = [said.job_id for said in bench.heard(Progress)]
        assert order == ["slow"] * 3 + ["urgent"] * 4 + ["slow"] * 5
        assert_as_alone(bench, slow, urgent)


def test_pictures_of_two_sizes_take_turns(bench: Bench) -> None:
    works = [work("wide", steps=6, width=96), work("small", steps=6, seed=2)]
    bench.run(*works)
    order = [said.job_id for said in bench.heard(Progress)]
    assert all(first != second for first, second in itertools.pairwise(order))
    assert_as_alone(bench, *works)


def test_owners_take_turns_and_a_newcomer_is_seen_to_begin() -> None:
    loaded = load(config("demo", max_rows=2))
    greedy = [work(f"greedy{n}", owner="greedy", steps=3, seed=n) for n in range(3)]
    with engine_over(loaded) as bench:
        for each in greedy:
            bench.engine.submit(each)
        # Every other forward is a newcomer's.
        bench.step(5)
        assert {said.job_id for said in bench.heard(Progress)} == {"greedy0", "greedy1", "greedy2"}
        bench.engine.submit(work("modest", owner="modest", steps=2, seed=9))
        bench.step(1)
        assert bench.heard(Progress)[-1].job_id == "modest"
        bench.run()
        ends = [said.job_id for said in bench.heard(Finished)]
        assert ends.index("modest") < ends.index("greedy1")
        assert_as_alone(bench, *greedy, work("modest", owner="modest", steps=2, seed=9))


# Measuring.


def test_a_new_size_is_measured_behind_its_forwards_and_told_once(tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    loaded = load(config("demo", max_rows=0, measured_rows=4, curves=str(file)))
    with engine_over(loaded) as bench:
        # As many rounds at least as there are numbers of rows to be measured, in several passes.
        bench.run(work("a", steps=20), work("b", steps=20, seed=2))
        (curve,) = bench.heard(Curve)
        assert (curve.width, curve.height) == (64, 64)
        assert curve.rows[0] == 1
        assert curve.cap in curve.rows
        bench.said.clear()
        bench.run(work("c", steps=6))
        assert not bench.heard(Curve)
    again = load(config("demo", max_rows=0, measured_rows=4, curves=str(file)))
    with engine_over(again) as bench:
        bench.run(work("a", steps=6))
        assert not bench.heard(Curve)


def test_a_size_that_was_measured_for_as_long_as_jobs_can_wait_is_not_measured_on_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"max_rows": 0, "measured_rows": 32, "curves": str(tmp_path / "curves.json")}
    monkeypatch.setattr("rbee_sd.engine.denoiser.LATE_BUDGET", 1e-9)
    first = load(config("demo", **changes))
    first.denoiser._loading = False
    assert first.knee(first.first_call(work()), 32) is not None
    again = load(config("demo", **changes))
    again.denoiser._loading = False
    assert again.denoiser.settled(again.first_call(work()))
    # While it is loaded there is more time.
    third = load(config("demo", **changes))
    assert not third.denoiser.settled(third.first_call(work()))


def test_what_was_measured_on_another_processor_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"max_rows": 0, "measured_rows": 1, "curves": str(tmp_path / "curves.json")}
    load(config("demo", **changes)).warm_up()
    here = load(config("demo", **changes))
    assert here.denoiser.settled(here.first_call(work(width=128, height=128)))
    monkeypatch.setattr("rbee_sd.engine.denoiser.device_name", lambda _: "cpu another")
    there = load(config("demo", **changes))
    assert not there.denoiser.settled(there.first_call(work(width=128, height=128)))


def test_what_is_known_of_sizes_does_not_grow_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee_sd.engine.shapes.KEPT", 3)
    loaded = load(config("demo", max_rows=0))
    for width in range(64, 128, 8):
        loaded.denoiser.cap(loaded.first_call(work(width=width)))
    assert len(loaded.denoiser._shapes) == 3


def test_measuring_is_not_counted_and_changes_no_picture(model: Diffusion) -> None:
    loaded = load(config("demo", max_rows=0, measured_rows=8))
    assert difference(picture(loaded, steps=6), picture(model, steps=6)) == 0
    assert loaded.forwards == 6


def test_memory_that_ends_while_measuring_ends_the_measuring() -> None:
    loaded = load(config("demo", max_rows=0, measured_rows=16))

    def look(_: Any, __: Any, named: dict[str, Any]) -> None:
        if len(named["sample"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = loaded.denoiser.module.register_forward_pre_hook(look, with_kwargs=True)
    curve = loaded.warm_up()
    handle.remove()
    assert set(curve.rows) <= {1, 2, 4}
    assert curve.cap <= 4


def test_memory_for_nothing_at_all_ends_the_measuring_too() -> None:
    loaded = load(config("demo", max_rows=0))

    def look(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with before_each_forward(loaded.denoiser.module, look):
        assert loaded.warm_up().cap == 1


# The encoding thread.


def test_a_result_may_be_looked_for_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder()
    done: list[int] = []
    ring, ringing, may_ring = os.write, threading.Event(), threading.Event()

    def write(file: int, text: bytes) -> int:
        ringing.set()
        assert may_ring.wait(DEADLINE)
        return ring(file, text)

    monkeypatch.setattr("rbee_sd.engine.encoder.os.write", write)
    encoder.submit(lambda: 1, done.append, lambda _: None)
    try:
        assert ringing.wait(DEADLINE)
        encoder.deliver()
        may_ring.set()
        while not done:
            assert wait([encoder.wakeup], DEADLINE)
            encoder.deliver()
    finally:
        may_ring.set()
        encoder.close()
    assert done == [1]


def test_a_stage_is_done_between_forwards_not_within(bench: Bench) -> None:
    bench.engine.submit(work("a", steps=3))
    bench.engine.submit(work("b", steps=6, seed=2))
    bench.step(3)
    assert isinstance(bench.engine._tasks["a"].strands[0].wants, Stage)
    assert len(bench.heard(Progress, "b")) == 3
    bench.step()
    assert bench.engine._tasks["a"].strands[0].done
    assert len(bench.heard(Progress, "b")) == 4


def test_a_job_that_fails_in_a_size_that_is_still_measured_harms_nobody() -> None:
    loaded = load(config("demo", max_rows=0, measured_rows=8))

    def poisoned(_: Any, __: Any, named: dict[str, Any]) -> None:
        if len(named["sample"]) % 2:
            raise RuntimeError("odd")

    handle = loaded.denoiser.module.register_forward_pre_hook(poisoned, with_kwargs=True)
    try:
        with engine_over(loaded) as bench:
            bench.run(work("bad", guidance_scale=1.0, steps=4), *(work(f"good{n}", seed=n, steps=8) for n in range(3)))
            assert [said.job_id for said in bench.heard(Failed)] == ["bad"]
            assert len(bench.heard(Finished)) == 3
    finally:
        handle.remove()


def test_a_size_is_not_measured_for_a_job_that_is_alone_in_it() -> None:
    loaded = load(config("demo", max_rows=0, measured_rows=8))
    forwards: list[int] = []
    with engine_over(loaded) as bench, before_each_forward(loaded.denoiser.module, lambda: forwards.append(1)):
        bench.run(work("a", steps=6))
    assert len(forwards) == 6


def test_rows_that_were_too_many_are_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(config("demo", max_rows=16))
    call = loaded.first_call(work())
    loaded.denoiser.shrink(call, 8)
    assert loaded.denoiser.cap(call) == 4
    monkeypatch.setattr("rbee_sd.engine.denoiser.FORGIVEN", -1.0)
    assert loaded.denoiser.cap(call) == 16


def test_a_picture_larger_than_the_worker_makes_is_refused_also_when_the_front_was_misled() -> None:
    with engine_over(load(config("demo", max_side=96))) as bench:
        bench.run(work("large", width=104), work("good", width=96))
        assert [said.code for said in bench.heard(Failed)] == ["invalid_input"]
        assert len(bench.heard(Finished)) == 1


def test_a_taesd_for_another_kind_of_model_is_refused_at_the_start(tmp_path: Path) -> None:
    AutoencoderTiny(latent_channels=16).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="another kind"):
        load(config("demo", taesd=str(tmp_path)))
