"""Every family of models, every operation and every scheduler: a picture made in company is the one made alone."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.families import FAMILIES
from rbee_sd.engine.loading import load
from rbee_sd.engine.schedulers import Schedulers, draw_from
from rbee_sd.messages import INPAINT, TEXT, TRANSFORM, Finished, Generate, Progress, Started
from tests.engine import tiny
from tests.engine.bench import SIDE, TOLERANCE, Bench, alone, config, difference, pixels, work

PROMPTS = ("a red circle", "a large green heart on a white background", "blue", "")

OPERATIONS = {
    "sd1": (TEXT, TRANSFORM, INPAINT),
    "sd2": (TEXT, TRANSFORM, INPAINT),
    "lcm": (TEXT, TRANSFORM, INPAINT),
    "sdxl": (TEXT, TRANSFORM, INPAINT),
    "inpainting": (INPAINT,),
    "sd3": (TEXT,),
    "flux": (TEXT,),
    "flux-distilled": (TEXT,),
}
CASES = [(kind, operation) for kind, operations in OPERATIONS.items() for operation in operations]
EDITABLE = [kind for kind, operations in OPERATIONS.items() if len(operations) == 3]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Diffusion]:
    """A loaded model of a kind, each loaded once: tests leave it as they found it."""

    @cache
    def model_of(kind: str) -> Diffusion:
        return load(config(tiny.write(kind, tmp_path_factory.mktemp("families") / kind)))

    return model_of


@cache
def photo(side: int = SIDE) -> bytes:
    """A PNG file with something in it."""
    return png(Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 60).convert("RGB"))


@cache
def hole(side: int = SIDE) -> bytes:
    """A mask that is white in the middle."""
    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 4, side // 4, side * 3 // 4, side * 3 // 4))
    return png(mask)


def png(image: Image.Image) -> bytes:
    """The PNG file of an image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def inputs_of(operation: str) -> tuple[bytes, ...]:
    """What a job of this operation starts from."""
    return {TEXT: (), TRANSFORM: (photo(),), INPAINT: (photo(), hole())}[operation]


def motley(model: Diffusion, operation: str) -> list[Generate]:
    """A job for every scheduler of a model, no two alike in anything."""
    works = []
    for number, scheduler in enumerate(model.describe().schedulers):
        strength = None if operation == TEXT else (0.4, 0.75, 1.0)[number % 3]
        works.append(
            work(
                scheduler,
                operation=operation,
                inputs=inputs_of(operation),
                scheduler=scheduler,
                prompt=PROMPTS[number % len(PROMPTS)],
                negative_prompt=PROMPTS[(number + 1) % 2],
                seed=100 + number,
                steps=3 + number % 4,
                guidance_scale=(7.5, 1.0, 3.0)[number % 3],
                strength=strength,
            )
        )
    return works


def run_staggered(bench: Bench, works: list[Generate]) -> None:
    """Half of the jobs first, the others two steps later."""
    middle = (len(works) + 1) // 2
    for each in works[:middle]:
        bench.engine.submit(each)
    while not all(each in bench.engine._tasks and bench.engine._tasks[each].ready for each in ids(works[:middle])):
        bench.engine.deliver()
    bench.step(2)
    bench.run(*works[middle:])


def ids(works: list[Generate]) -> list[str]:
    """Their names."""
    return [each.job_id for each in works]


def assert_as_alone(bench: Bench, *works: Generate) -> None:
    """Each of these jobs has finished, once, with the pictures that it makes alone."""
    for each in works:
        (finished,) = bench.heard(Finished, each.job_id)
        expected = alone(bench.model, each)
        assert len(finished.images) == len(expected)
        for mine, solo in zip(finished.images, expected, strict=True):
            assert difference(pixels(mine), pixels(solo)) <= TOLERANCE, each.job_id


@contextmanager
def watched_rows(model: Diffusion) -> Iterator[list[int]]:
    """The rows of each forward."""
    rows: list[int] = []

    def note(_: Any, __: Any, named: dict[str, Any]) -> None:
        rows.append(len(named["sample"] if "sample" in named else named["hidden_states"]))

    handle = model.denoiser.module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


@contextmanager
def engine_over(model: Diffusion) -> Iterator[Bench]:
    """An engine over a model, closed in the end."""
    bench = Bench(model)
    try:
        yield bench
    finally:
        bench.engine.close()


def test_every_family_has_a_model_in_these_tests(families: Callable[[str], Diffusion]) -> None:
    assert {families(kind).describe().family for kind in tiny.KINDS} == {family.name for family in FAMILIES}
    assert set(tiny.KINDS) == set(OPERATIONS)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_model_says_what_it_can_do(families: Callable[[str], Diffusion], kind: str) -> None:
    ready = families(kind).describe()
    assert ready.operations == OPERATIONS[kind]
    assert ready.negative == (ready.family != "flux")
    native = 1024 if kind.startswith("flux") else 128
    assert (ready.width, ready.height) == (native, native)
    assert ready.schedulers


@pytest.mark.parametrize("kind, operation", CASES)
def test_jobs_of_all_schedulers_in_one_company_paint_what_they_paint_alone(
    families: Callable[[str], Diffusion], kind: str, operation: str
) -> None:
    model = families(kind)
    works = motley(model, operation)
    with engine_over(model) as bench:
        before = model.forwards
        run_staggered(bench, works)
        together = model.forwards - before
        for each in works:
            (started,) = bench.heard(Started, each.job_id)
            assert started.scheduler == each.scheduler
            told = [(said.step, said.total) for said in bench.heard(Progress, each.job_id)]
            assert told == [(step, started.total) for step in range(1, started.total + 1)]
        before = model.forwards
        assert_as_alone(bench, *works)
        # All fit one forward, so that only the jobs' different lengths and beginnings stand in the way: each has to
        # wait for the VAE's encoder first, one after the other, if it begins with an image.
        assert together < (model.forwards - before) * (0.6 if operation == TEXT else 0.9)


@pytest.mark.parametrize("kind, operation", CASES)
def test_a_job_alone_gives_the_same_bytes_again(
    families: Callable[[str], Diffusion], kind: str, operation: str
) -> None:
    model = families(kind)
    for each in motley(model, operation):
        assert alone(model, each) == alone(model, each), each.job_id


@pytest.mark.parametrize("kind, operation", CASES)
def test_a_job_alone_paints_what_the_pipeline_of_diffusers_paints(
    families: Callable[[str], Diffusion], kind: str, operation: str
) -> None:
    model = families(kind)
    family = model._family
    inside = np.asarray(Image.open(io.BytesIO(hole()))) > 0
    for each in motley(model, operation):
        pipe = copy.copy(model._pipes[operation])
        scheduler = Schedulers(model.pipe.scheduler, flow=family.flow).make(each.scheduler, each.steps or 0)
        vars(pipe)["scheduler"] = scheduler
        generator = torch.Generator("cpu").manual_seed(each.seed)
        draw_from(scheduler, generator)
        arguments: dict[str, Any] = {}
        if family.negative:
            arguments["negative_prompt"] = each.negative_prompt
        if operation != TEXT:
            arguments |= {"image": Image.open(io.BytesIO(photo())), "strength": each.strength}
        if operation == INPAINT:
            arguments["mask_image"] = Image.open(io.BytesIO(hole()))
        if operation != TRANSFORM:
            arguments |= {"width": SIDE, "height": SIDE}
        made = pipe(
            each.prompt,
            num_inference_steps=each.steps,
            guidance_scale=each.guidance_scale,
            generator=generator,
            output_type="np",
            **arguments,
        ).images[0]
        theirs = (made * 255).round().clip(0, 255).astype(np.uint8)
        ours = pixels(alone(model, each)[0])
        if operation == INPAINT:
            theirs, ours = theirs[inside], ours[inside]
        assert difference(ours, theirs) == 0, each.job_id


@pytest.mark.parametrize("kind", OPERATIONS)
def test_different_prompts_guidance_and_seeds_give_different_pictures(
    families: Callable[[str], Diffusion], kind: str
) -> None:
    # What all these comparisons rest on: a job that got another's rows would show.
    model = families(kind)
    operation = OPERATIONS[kind][0]
    base: dict[str, Any] = {"operation": operation, "inputs": inputs_of(operation), "steps": 4}
    first = pixels(alone(model, work(**base))[0])
    for change in ({"seed": 2}, {"prompt": "a green heart"}, {"guidance_scale": 20.0}):
        changed = pixels(alone(model, work(**base | change))[0])
        if change == {"guidance_scale": 20.0} and kind == "flux-distilled":
            assert difference(first, changed) == 0
        else:
            assert difference(first, changed) > TOLERANCE, change


@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_job_that_wants_to_be_alone_is_and_gets_the_same_bytes(
    families: Callable[[str], Diffusion], kind: str
) -> None:
    model = families(kind)
    operation = OPERATIONS[kind][0]
    base: dict[str, Any] = {"operation": operation, "inputs": inputs_of(operation), "prompt": "a red heart"}
    single = work("single", seed=7, steps=5, **base)
    (expected,) = alone(model, single)
    with watched_rows(model) as rows:
        alone(model, single)
    own = rows[0]
    with engine_over(model) as bench, watched_rows(model) as rows:
        works = [work(f"other{n}", seed=n, steps=6, **base) for n in range(3)]
        lonely = work("lonely", seed=7, steps=5, exclusive=True, **base)
        lonely2 = work("lonely2", seed=7, steps=5, exclusive=True, **base)
        run_staggered(bench, [*works[:2], lonely, lonely2, works[2]])
        assert_images(bench, "lonely", expected)
        assert_images(bench, "lonely2", expected)
    assert rows.count(own) >= 10
    assert max(rows) == 3 * own
    assert sum(rows) == own * (3 * len_of(bench, "other0") + 2 * len_of(bench, "lonely"))


def assert_images(bench: Bench, job_id: str, *expected: bytes) -> None:
    """The job has finished with exactly these files."""
    (finished,) = bench.heard(Finished, job_id)
    assert finished.images == expected


def len_of(bench: Bench, job_id: str) -> int:
    """Steps that a job took."""
    return len(bench.heard(Progress, job_id))


@pytest.mark.parametrize("kind, operation", CASES)
def test_several_images_of_a_job_are_those_of_consecutive_seeds(
    families: Callable[[str], Diffusion], kind: str, operation: str
) -> None:
    model = families(kind)
    base: dict[str, Any] = {"operation": operation, "inputs": inputs_of(operation), "steps": 4}
    before = model.forwards
    with engine_over(model) as bench:
        bench.run(work("three", seed=40, count=3, **base))
        three = model.forwards - before
        (finished,) = bench.heard(Finished)
    assert len(finished.images) == 3
    for number, made in enumerate(finished.images):
        before = model.forwards
        (solo,) = alone(model, work(seed=40 + number, **base))
        solos = model.forwards - before
        # They begin one after the other where the VAE's encoder comes first.
        assert three == solos if operation == TEXT else three < 3 * solos
        assert difference(pixels(made), pixels(solo)) <= TOLERANCE


@pytest.mark.parametrize("kind", EDITABLE)
def test_all_operations_of_a_model_share_forwards(families: Callable[[str], Diffusion], kind: str) -> None:
    model = families(kind)
    works = [
        work(operation, operation=operation, inputs=inputs_of(operation), steps=8, strength=None, seed=number)
        for number, operation in enumerate(OPERATIONS[kind])
    ]
    with watched_rows(model) as single:
        alone(model, works[0])
    with engine_over(model) as bench, watched_rows(model) as rows:
        bench.run(*works)
    assert 3 * single[0] in rows
    assert_as_alone(bench, *works)


@pytest.mark.parametrize("kind", [kind for kind, operation in CASES if operation == INPAINT])
@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_what_the_mask_keeps_is_kept_to_the_pixel(
    families: Callable[[str], Diffusion], kind: str, size: tuple[int, int]
) -> None:
    width, height = size
    each = work(operation=INPAINT, inputs=inputs_of(INPAINT), width=width, height=height, strength=1.0, steps=2)
    made = pixels(alone(families(kind), each)[0])
    with Image.open(io.BytesIO(photo())) as image, Image.open(io.BytesIO(hole())) as mask:
        original = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
        black = np.asarray(mask.resize(size, Image.Resampling.NEAREST)) == 0
    assert black.any()
    assert not black.all()
    assert np.array_equal(made[black], original[black])
    assert not np.array_equal(made[~black], original[~black])


@pytest.mark.parametrize("strength, total", [(0.0, 0), (0.05, 0), (0.1, 1), (0.35, 3), (1.0, 10), (None, 10)])
@pytest.mark.parametrize("kind", EDITABLE)
def test_strength_is_the_share_of_the_steps_that_is_done(
    families: Callable[[str], Diffusion], kind: str, strength: float | None, total: int
) -> None:
    with engine_over(families(kind)) as bench:
        bench.run(work(operation=TRANSFORM, inputs=inputs_of(TRANSFORM), steps=10, strength=strength))
        assert [said.step for said in bench.heard(Progress)] == list(range(1, total + 1))
        assert len(bench.heard(Finished)) == (1 if total else 0)


@pytest.mark.parametrize("kind", ["sd3", "flux", "flux-distilled"])
def test_schedulers_of_flow_matching_solve_one_equation(families: Callable[[str], Diffusion], kind: str) -> None:
    model = families(kind)
    first = pixels(alone(model, work(scheduler="euler", steps=30, guidance_scale=1.0))[0]).astype(int)
    for scheduler in ("dpmpp_2m", "unipc"):
        other = pixels(alone(model, work(scheduler=scheduler, steps=30, guidance_scale=1.0))[0])
        assert np.abs(first - other).mean() < 4, scheduler


@pytest.mark.parametrize("kind", ["sd3", "flux", "flux-distilled"])
@pytest.mark.parametrize("scheduler", ["dpmpp_sde", "lcm"])
def test_noise_between_the_steps_comes_from_the_jobs_seed(
    families: Callable[[str], Diffusion], kind: str, scheduler: str
) -> None:
    model = families(kind)
    each = work(scheduler=scheduler, steps=4)
    before = torch.get_rng_state()
    assert alone(model, each) == alone(model, each)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "lcm", "sdxl", "sd3", "inpainting"])
def test_every_kind_of_model_can_be_measured(families: Callable[[str], Diffusion], kind: str) -> None:
    curve = families(kind).warm_up()
    assert (curve.width, curve.height) == (128, 128)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_sides_that_do_not_suit_a_model_are_refused(families: Callable[[str], Diffusion], kind: str) -> None:
    with engine_over(families(kind)) as bench:
        bench.run(work(width=72))
        assert not bench.heard(Finished)
        assert not bench.heard(Started)
        bench.run(work("good", width=80))
        assert bench.picture("good").shape == (64, 80, 3)


@pytest.mark.parametrize("kind", ["inpainting", "sd3", "flux"])
def test_what_a_model_cannot_do_is_refused(families: Callable[[str], Diffusion], kind: str) -> None:
    model = families(kind)
    for operation in (TEXT, TRANSFORM, INPAINT):
        with engine_over(model) as bench:
            bench.run(work(operation=operation, inputs=inputs_of(operation)))
            assert len(bench.heard(Finished)) == (operation in OPERATIONS[kind])
