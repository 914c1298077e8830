"""`engine.outputs`, `engine.inputs` and `engine.previews`: what comes in and goes out as image files."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image

from rbee_sd.engine import inputs
from rbee_sd.engine.device import Stopwatch
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.outputs import SMALL_SIDE, picture_file, preview_jpeg, thumbnail_jpeg
from rbee_sd.engine.pipeline import GenerationError, ModelError
from rbee_sd.engine.previews import Previews, scaled
from rbee_sd.engine.recipe import parameters
from rbee_sd.messages import INPAINT, TEXT, TRANSFORM, Failed, Finished, Narration, Preview, Progress
from tests.engine import tiny
from tests.engine.bench import Bench, config, draw, pixels, work
from tests.engine.test_families import hole, inputs_of, photo

# What is written into a file.

PROMPTS = [
    "a red circle",
    "",
    "two\nlines, a comma: and a colon",
    'with "quotes" and \\ backslashes',
    "🔴 👩‍🚀 蓝色 دائرة ünï\u200b",
    "a\x00b\x1b\x7f\x85",
    "Negative prompt: not really\nSteps: 3",
    "<lora:x:1> (red:1.5) [blue]",
    " spaces \t ",
    "ÿ" * 5000,
]


def chunks(file: bytes) -> dict[str, str]:
    """The texts in a PNG file, as Pillow reads them."""
    with Image.open(io.BytesIO(file)) as image:
        image.load()
        texts: dict[str, str] = image.text  # type: ignore[attr-defined]
        return {name: str(text) for name, text in texts.items()}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_recipe_in_a_file_is_exact_whatever_the_prompt(model: Diffusion, prompt: str) -> None:
    (file,) = draw(model, prompt=prompt, negative_prompt=prompt[::-1], seed=2**63, steps=1, guidance_scale=2.5)
    assert json.loads(chunks(file)["rbee-sd"]) == {
        "operation": TEXT,
        "prompt": prompt,
        "negative_prompt": prompt[::-1],
        "seed": 2**63,
        "steps": 1,
        "guidance_scale": 2.5,
        "width": 64,
        "height": 64,
        "scheduler": "euler",
        "model": "demo",
        "loras": [],
    }


def test_a_recipe_can_be_followed_again(model: Diffusion) -> None:
    (_, file) = draw(model, prompt="a star", seed=5, count=2, operation=TRANSFORM, inputs=inputs_of(TRANSFORM))
    recipe = json.loads(chunks(file)["rbee-sd"])
    assert (recipe["seed"], recipe["strength"], recipe["operation"]) == (6, 1.0, TRANSFORM)
    fields = {name: value for name, value in recipe.items() if name not in ("model", "loras")}
    assert np.abs(pixels(draw(model, inputs=inputs_of(TRANSFORM), **fields)[0]).astype(int) - pixels(file)).max() <= 2


FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""How AUTOMATIC1111's web UI reads the last line."""


def recipe(**changes: Any) -> dict[str, Any]:
    """What is to be written."""
    values: dict[str, Any] = {
        "prompt": "a red circle",
        "negative_prompt": "",
        "seed": 7,
        "steps": 20,
        "guidance_scale": 7.5,
        "width": 640,
        "height": 512,
        "scheduler": "dpmpp_2m_karras",
        "model": "demo",
        "loras": [],
    }
    return values | changes


def test_the_parameters_are_what_other_tools_read() -> None:
    *prompt, last = parameters(recipe(prompt="one\ntwo", negative_prompt="bad\nworse")).split("\n")
    assert prompt == ["one", "two", "Negative prompt: bad", "worse"]
    assert last.startswith("Steps: 20, ")
    fields = dict(FIELD.findall(last))
    assert fields["Sampler"] == "DPM++ 2M"
    assert fields["Schedule type"] == "Karras"
    assert fields["CFG scale"] == "7.5"
    assert fields["Seed"] == "7"
    assert fields["Size"] == "640x512"
    assert fields["Model"] == "demo"
    assert "Denoising strength" not in fields


def test_loras_and_strength_stand_in_the_parameters() -> None:
    text = parameters(recipe(loras=[{"name": "soft", "scale": 0.5}, {"name": "hard", "scale": 1.0}], strength=0.75))
    assert text.startswith("a red circle <lora:soft:0.5> <lora:hard:1>\nSteps: ")
    assert dict(FIELD.findall(text.split("\n")[-1]))["Denoising strength"] == "0.75"


@pytest.mark.parametrize("name", ["a, b", "a: b", 'say "a"', "two\nlines"])
def test_a_models_name_with_separators_is_quoted(name: str) -> None:
    last = parameters(recipe(model=name)).split("\n")[-1]
    assert json.loads(dict(FIELD.findall(last))["Model"]) == name


def comment(file: bytes) -> str:
    """The EXIF UserComment of a file, as those who write it so read it."""
    with Image.open(io.BytesIO(file)) as image:
        raw = image.getexif().get_ifd(0x8769)[0x9286]
    assert raw.startswith(b"UNICODE\0")
    text: str = raw.removeprefix(b"UNICODE\0").decode("utf-16-be")
    return text


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_jpeg_and_webp_have_the_parameters_in_their_exif(model: Diffusion, kind: str, prompt: str) -> None:
    each: dict[str, Any] = {"prompt": prompt, "steps": 1, "seed": 5}
    (file,) = draw(model, **each, format=kind)
    with Image.open(io.BytesIO(file)) as image:
        assert image.size == (64, 64)
    (plain,) = draw(model, **each)
    assert comment(file) == chunks(plain)["parameters"]
    assert np.abs(pixels(file, kind).astype(int) - pixels(plain)).mean() < 8


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_less_quality_is_a_smaller_file(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sizes = [len(picture_file(Image.fromarray(noise), recipe(), kind, quality)) for quality in (1, 50, None, 100)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


def test_a_prompt_that_no_jpeg_has_room_for_is_left_out_of_it() -> None:
    black = Image.new("RGB", (64, 64))
    long = recipe(prompt="🔴" * 10_000, negative_prompt="🔴" * 10_000)
    with Image.open(io.BytesIO(picture_file(black, long, "jpeg"))) as image:
        assert not image.getexif()
    assert comment(picture_file(black, recipe(prompt="蓝" * 10_000), "jpeg")).startswith("蓝蓝")


def test_a_preview_is_small_and_keeps_the_shape() -> None:
    small = np.zeros((8, 16, 3), np.uint8)
    for size, expected in (
        ((1024, 512), (SMALL_SIDE, SMALL_SIDE // 2)),
        ((64, 32), (64, 32)),
        ((4096, 8), (256, 1)),
    ):
        with Image.open(io.BytesIO(preview_jpeg(small, *size))) as image:
            assert (image.format, image.size) == ("JPEG", expected)


def test_a_thumbnail_is_a_small_jpeg_that_looks_like_the_picture(model: Diffusion) -> None:
    bench = Bench(model)
    bench.run(work(width=320, height=64, steps=2, format="webp", count=2))
    bench.engine.close()
    (finished,) = bench.heard(Finished)
    for image, thumbnail in zip(finished.images, finished.thumbnails, strict=True):
        with Image.open(io.BytesIO(thumbnail)) as small, Image.open(io.BytesIO(image)) as whole:
            assert (small.format, small.size) == ("JPEG", (SMALL_SIDE, 51))
            assert np.abs(np.asarray(small, int) - np.asarray(whole.resize(small.size), int)).mean() < 8


def test_a_picture_that_is_small_itself_has_no_thumbnail() -> None:
    assert thumbnail_jpeg(Image.new("RGB", (SMALL_SIDE, 64))) == b""


def test_what_is_grey_in_a_mask_is_kept_or_not_as_the_pipelines_take_it(model: Diffusion) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 16:32], mask[:, 32:48], mask[:, 48:] = 127, 128, 255
    each = {"operation": INPAINT, "inputs": (photo(), file_of(Image.fromarray(mask))), "strength": 1.0}
    made = pixels(draw(model, **each)[0])
    with Image.open(io.BytesIO(photo())) as image:
        kept = (made == np.asarray(image.convert("RGB"))).all(axis=(0, 2))
    assert kept[:32].all()
    assert not kept[32:].any()


def test_a_blurred_mask_lets_what_is_painted_pass_into_what_is_kept(model: Diffusion) -> None:
    each: dict[str, Any] = {"operation": INPAINT, "inputs": (photo(), hole()), "strength": 1.0, "seed": 3}
    hard, soft = (pixels(draw(model, mask_blur=blur, **each)[0]).astype(int) for blur in (0.0, 4.0))
    with Image.open(io.BytesIO(photo())) as image, Image.open(io.BytesIO(hole())) as mask:
        kept, painted = np.asarray(image.convert("RGB")).astype(int), np.asarray(mask.convert("L")) >= inputs.HALF
        share = np.asarray(inputs.seam(mask.convert("L"), 4.0))[..., None] / 255
    # What the model makes is the same; how it is laid over the image is not.
    between = kept + (hard - kept) * share
    inside = painted[..., None] & (share < 1)
    assert inside.any()
    assert np.abs(soft - between)[inside.repeat(3, axis=2)].max() <= 2
    assert (soft == kept).all(axis=2)[share[..., 0] == 0].all()
    assert set(np.unique(np.asarray(inputs.seam(Image.linear_gradient("L"), 0.0)))) == {0, 255}


# What is read.


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(*files: bytes, **fields: Any) -> inputs.Inputs:
    """What a job gets to see of them."""
    return inputs.read(work(operation=INPAINT, inputs=files, **{"width": None, "height": None, **fields}))


def colour(image: Image.Image | None, x: int, y: int) -> Any:
    """A pixel."""
    assert image is not None
    return image.getpixel((x, y))


def halves(mode: str = "RGB", size: tuple[int, int] = (128, 64)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    return image.convert(mode)


@pytest.mark.parametrize(
    "file",
    [
        file_of(halves()),
        file_of(halves(), "JPEG", quality=95),
        file_of(halves(), "WEBP", lossless=True),
        file_of(halves("RGBA")),
        file_of(halves("P")),
        file_of(halves("CMYK"), "JPEG", quality=95),
    ],
    ids=["png", "jpeg", "webp", "alpha", "palette", "cmyk"],
)
def test_files_of_every_kind_come_out_in_rgb(file: bytes) -> None:
    found = read(file)
    assert found.image is not None
    assert (found.image.mode, found.image.size, found.width, found.height) == ("RGB", (128, 64), 128, 64)
    for x, expected in ((10, (255, 0, 0)), (118, (0, 0, 255))):
        assert np.abs(np.array(colour(found.image, x, 30)) - expected).max() < 40


@pytest.mark.parametrize("orientation, red", [(1, "left"), (3, "right"), (6, "top"), (8, "bottom"), (2, "right")])
def test_a_picture_that_lies_on_its_side_is_put_upright(orientation: int, red: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(file_of(halves(), "JPEG", exif=exif.tobytes(), quality=95))
    upright = red in ("top", "bottom")
    assert (found.width, found.height) == ((64, 128) if upright else (128, 64))
    place = {"left": (5, 32), "right": (122, 32), "top": (32, 5), "bottom": (32, 122)}[red]
    assert colour(found.image, *place)[0] > 200


def test_what_can_be_seen_through_is_white_in_an_image_and_black_in_a_mask() -> None:
    clear = Image.new("RGBA", (64, 64), (10, 200, 10, 0))
    clear.paste((10, 200, 10, 255), (0, 0, 32, 64))
    clear.paste((255, 255, 255, 255), (0, 0, 32, 64))
    file = file_of(clear)
    found = read(file, file)
    assert colour(found.image, 50, 30) == (255, 255, 255)
    assert colour(found.mask, 50, 30) == 0
    assert colour(found.mask, 10, 30) == 255


def test_a_transparent_colour_of_a_palette_is_transparent() -> None:
    image = halves("P")
    file = file_of(image, transparency=image.getpixel((120, 10)))
    assert colour(read(file).image, 120, 10) == (255, 255, 255)
    assert colour(read(file).image, 10, 10)[0] > 200


def test_sixteen_bits_are_scaled_not_cut() -> None:
    deep = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(64, 0)
    found = read(file_of(Image.fromarray(deep)), file_of(Image.fromarray(deep)))
    expected = np.linspace(0, 255, 64)
    assert np.abs(np.asarray(found.image)[0, :, 0] - expected).max() <= 1
    assert np.abs(np.asarray(found.mask)[0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_mask_may_be_of_any_mode(mode: str) -> None:
    with Image.open(io.BytesIO(hole())) as plain:
        deep = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
        mask = deep if mode == "I;16" else plain.convert(mode)
        found = read(photo(), file_of(mask))
        assert np.array_equal(np.asarray(found.mask), np.asarray(plain))


def mask_of(*files: bytes, means: str) -> Any:
    """What is painted anew of the topmost row of pixels: True where it is."""
    found = inputs.read(work(operation=INPAINT, inputs=files, mask_means=means))
    assert found.mask is not None
    return np.asarray(found.mask)[0] >= inputs.HALF


def clear_on_the_left(mode: str = "RGBA") -> bytes:
    """A quarter is transparent, the next is a third so, the next two thirds, the last is opaque."""
    image = Image.new("RGBA", (64, 64), "red")
    for place, alpha in ((0, 0), (16, 170), (32, 85)):
        image.paste((255, 255, 255, alpha), (place, 0, place + 16, 64))
    return file_of(image.convert(mode))


def test_what_a_mask_means_can_be_its_black_or_its_transparent_part() -> None:
    assert (mask_of(photo(), hole(), means="black") == ~mask_of(photo(), hole(), means="white")).all()
    painted = mask_of(photo(), clear_on_the_left(), means="alpha")
    assert painted.reshape(4, 16).all(1).tolist() == [True, False, True, False]
    assert not painted.reshape(4, 16)[[1, 3]].any()
    # What can be seen through is neither black nor white: it is kept.
    clear = file_of(Image.new("RGBA", (64, 64), (0, 0, 0, 0)))
    assert not mask_of(photo(), clear, means="black").any()


def test_an_image_can_be_its_own_mask_if_any_of_it_is_transparent() -> None:
    painted = mask_of(clear_on_the_left(), means="alpha")
    assert painted.reshape(4, 16).all(1).tolist() == [True, False, True, False]
    for opaque in (photo(), file_of(Image.new("RGBA", (64, 64), "red")), file_of(halves(), "JPEG")):
        assert inputs.read(work(operation=INPAINT, inputs=(opaque,), mask_means="alpha")).mask is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_mask_without_a_transparent_part_is_refused_where_that_is_meant(mode: str) -> None:
    with pytest.raises(GenerationError, match="no part of the mask is transparent") as refused:
        mask_of(photo(), file_of(halves(mode, (64, 64))), means="alpha")
    assert refused.value.code == "invalid_input"


def test_an_image_that_was_to_be_its_own_mask_and_is_opaque_is_changed_as_a_whole(bench: Bench) -> None:
    each: dict[str, Any] = {"operation": INPAINT, "mask_means": "alpha", "steps": 10}
    bench.run(
        work("opaque", inputs=(photo(),), **each),
        work("little", inputs=(photo(),), strength=0.5, **each),
        work("clear", inputs=(clear_on_the_left(),), **each),
    )
    steps = {job: bench.heard(Progress, job)[-1].total for job in ("opaque", "little", "clear")}
    assert steps == {"opaque": 8, "little": 5, "clear": 10}
    (finished,) = bench.heard(Finished, "opaque")
    assert json.loads(chunks(finished.images[0])["rbee-sd"])["operation"] == TRANSFORM
    assert any("nothing of the image is transparent" in told.text for told in bench.heard(Narration, "opaque"))


def test_sizes_come_from_the_image_in_steps_of_eight_and_not_below_a_least() -> None:
    for size, expected in (((131, 70), (128, 64)), ((20, 500), (64, 496)), ((64, 64), (64, 64))):
        found = read(file_of(Image.new("RGB", size)))
        assert found.image is not None
        assert (found.width, found.height) == found.image.size == expected


def test_given_sizes_go_before_the_images_own() -> None:
    found = read(photo(), hole(), width=96, height=40)
    assert found.image is not None
    assert found.mask is not None
    assert found.image.size == found.mask.size == (96, 40)
    assert set(np.unique(np.asarray(found.mask))) == {0, 255}


@pytest.mark.parametrize(
    ("fit", "left", "corner"),
    [("stretch", "red", "red"), ("crop", "blue", "blue"), ("fill", "red", "red")],
)
def test_an_image_of_another_shape_is_made_to_fit_and_its_mask_with_it(fit: str, left: str, corner: str) -> None:
    image, mask = Image.new("RGB", (128, 64), "blue"), Image.new("L", (128, 64))
    image.paste("red", (0, 0, 32, 64))
    mask.paste(255, (0, 0, 32, 64))
    found = read(file_of(image), file_of(mask), width=64, height=64, fit=fit)
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    for place, expected in (((4, 32), left), ((4, 2), corner), ((60, 32), "blue"), ((60, 62), "blue")):
        assert colour(found.image, *place) == colours[expected]
        assert colour(found.mask, *place) == (255 if expected == "red" else 0)


def test_without_files_the_size_is_passed_on() -> None:
    assert read(width=96) == inputs.Inputs(None, None, 96, None)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(GenerationError, match="the mask is 32 x 32, the image 64 x 64") as refused:
        read(photo(64), hole(32))
    assert refused.value.code == "invalid_input"


def header_of(width: int, height: int) -> bytes:
    """A PNG file whose header promises so many pixels."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", body), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


BAD = {
    "truncated png": photo()[:-400],
    "truncated jpeg": file_of(halves(), "JPEG")[:500],
    "empty": b"",
    "garbage": b"\x89PNG\r\n\x1a\n" + b"garbage" * 100,
    "gif": file_of(halves(), "GIF"),
    "text": b"<svg/>",
    "bomb": header_of(30000, 30000),
    "large": header_of(9000, 9000),
    "lying": header_of(64, 64),
    "nothing": header_of(0, 64),
}


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", ["image", "mask"])
def test_a_file_that_cannot_be_decoded_is_refused(name: str, place: str) -> None:
    files = (BAD[name], hole()) if place == "image" else (photo(), BAD[name])
    with pytest.raises(GenerationError) as refused:
        read(*files)
    assert refused.value.code == "invalid_input"
    assert place in refused.value.message


def test_a_job_with_a_bad_file_fails_before_it_begins(bench: Bench) -> None:
    bench.run(work("bad", operation=INPAINT, inputs=(photo(), BAD["truncated png"])), work("good"))
    (failed,) = bench.heard(Failed)
    assert (failed.job_id, failed.code) == ("bad", "invalid_input")
    assert bench.heard(Finished, "good")


# Previews.


@pytest.fixture(scope="module")
def with_taesd(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    """The demo model with a TAESD of random weights."""
    return load(config("demo", taesd=str(tiny.write_taesd(tmp_path_factory.mktemp("taesd") / "taesd"))))


@pytest.fixture(params=["linear", "taesd"])
def seen(
    request: pytest.FixtureRequest, model: Diffusion, with_taesd: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """An engine over a model with previews of either kind, which may cost what they like."""
    monkeypatch.setattr("rbee_sd.engine.previews.SHARE", 1e9)
    bench = Bench(model if request.param == "linear" else with_taesd)
    yield bench
    bench.engine.close()


def watched(bench: Bench, **changes: Any) -> None:
    """A job that wants previews and is watched, to its end; what is encoded is taken before each step."""
    bench.engine.submit(work("seen", **{"preview": True, "steps": 6, **changes}))
    bench.engine.watch("seen", True)
    while bench.engine._tasks:
        bench.rest()
        bench.engine.deliver()
        if bench.engine.busy:
            bench.engine.step()


def test_previews_are_small_jpegs_of_steps_before_the_last(seen: Bench) -> None:
    watched(seen, width=512, height=256)
    previews = seen.heard(Preview)
    assert previews
    assert {each.step for each in previews} <= set(range(1, 6))
    assert len({(each.index, each.step) for each in previews}) == len(previews)
    for each in previews:
        with Image.open(io.BytesIO(each.jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (256, 128))
        assert len(each.jpeg) < 40_000


def test_a_preview_is_of_a_step_that_has_been_told(seen: Bench) -> None:
    watched(seen, count=2)
    told = 0
    for said in seen.said:
        if isinstance(said, Progress):
            told = said.step
        if isinstance(said, Preview):
            # One image of several may be a step ahead of the job.
            assert said.step <= told + 1


def test_previews_change_nothing_in_the_picture(seen: Bench) -> None:
    expected = draw(seen.model, steps=6, scheduler="euler_a")
    watched(seen, scheduler="euler_a")
    assert seen.heard(Preview)
    assert seen.heard(Finished)[0].images == tuple(expected)


@pytest.mark.parametrize("wanted, listening", [(False, True), (True, False), (False, False)])
def test_without_a_wish_or_a_watcher_there_are_no_previews(bench: Bench, wanted: bool, listening: bool) -> None:
    bench.engine.submit(work("seen", steps=6, preview=wanted))
    bench.engine.watch("seen", listening)
    bench.run()
    assert not bench.heard(Preview)


def test_previews_end_when_nobody_watches_any_more(bench: Bench) -> None:
    bench.engine.submit(work("seen", steps=8, preview=True))
    bench.engine.watch("seen", True)
    while not bench.heard(Preview):
        bench.step()
    bench.engine.watch("seen", False)
    bench.rest()
    bench.engine.deliver()
    before = len(bench.heard(Preview))
    bench.run()
    assert len(bench.heard(Preview)) == before


@pytest.mark.parametrize("kind", ["sd3", "flux", "sdxl"])
def test_every_layout_of_latents_has_previews(tmp_path: Path, kind: str) -> None:
    bench = Bench(load(config(tiny.write(kind, tmp_path / kind))))
    watched(bench, width=128, height=64)
    assert bench.heard(Preview)
    with Image.open(io.BytesIO(bench.heard(Preview)[0].jpeg)) as image:
        assert image.size == (128, 64)
    bench.engine.close()


class Averages:
    """Stands for a trained VAE: its latents are mixtures of the mean colours of eight by eight pixels."""

    device = torch.device("cpu")
    dtype = torch.float32
    mixture = torch.tensor([[1.0, 0.5, 0.2], [-0.3, 1.0, 0.1], [0.2, -0.6, 0.9], [0.4, 0.4, -1.0]])

    def __init__(self, **options: Any) -> None:
        self.config = SimpleNamespace(**{"scaling_factor": 0.18, **options})

    def encode(self, picture: torch.Tensor) -> Any:
        """Pictures to latents, in the wrapping of diffusers."""
        small = functional.avg_pool2d(picture, 8)
        return SimpleNamespace(latents=3 * torch.einsum("kc,ncyx->nkyx", self.mixture, small) + 0.5)


@pytest.mark.parametrize(
    "options",
    [{}, {"shift_factor": 0.3}, {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]}],
    ids=["plain", "shifted", "normalised"],
)
def test_a_preview_looks_like_the_picture(options: dict[str, Any]) -> None:
    vae = Averages(**options)
    gradient = Image.linear_gradient("L").resize((64, 64))
    sides = [np.asarray(gradient.rotate(angle)) for angle in (0, 90, 180)]
    picture = torch.from_numpy(np.stack(sides)).float()[None] / 127.5 - 1
    shown = Previews(vae, None).make("job", scaled(vae, vae.encode(picture).latents))()
    assert shown.shape == (8, 8, 3)
    small = functional.avg_pool2d(picture, 8)[0].permute(1, 2, 0).numpy()
    assert np.abs(shown.astype(float) - (small * 127.5 + 127.5)).max() < 16


def test_a_taesd_that_cannot_be_loaded_is_refused_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load(config("demo", taesd=str(tmp_path / "missing")))
    assert str(tmp_path) not in str(refused.value)


class Clock:
    """Stands for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        """Seconds, as far as the test has let them pass."""
        return self.now


@pytest.mark.parametrize("jobs", [1, 3, 8])
@pytest.mark.parametrize("cost", [0.0001, 0.004, 0.25])
@pytest.mark.parametrize("lifetime", [4, 1000], ids=["short jobs", "long jobs"])
def test_previews_take_no_more_than_their_share_of_the_time_and_all_jobs_have_some(
    monkeypatch: pytest.MonkeyPatch, jobs: int, cost: float, lifetime: int
) -> None:
    clock, spent, shown = Clock(), 0.0, Counter[str]()

    def decode(latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        nonlocal spent
        clock.now += cost
        spent += cost
        return (latents,)

    monkeypatch.setattr("rbee_sd.engine.previews.time", clock)
    monkeypatch.setattr("rbee_sd.engine.device.time", clock)
    previews = Previews(None, SimpleNamespace(decode=decode, dtype=torch.float32))
    for step in range(4000):
        clock.now += 0.02
        for number in range(jobs):
            name = f"{number} of generation {step // lifetime}"
            if step % lifetime == lifetime - 1:
                previews.forget(name)
            elif previews.due(name):
                previews.make(name, torch.zeros(1, 3, 2, 2))
                shown[name] += 1
    # The first comes at once, whatever it costs.
    assert spent <= 0.02 * (clock.now - Clock.now) + cost
    if lifetime == 1000:
        counts = [shown[f"{number} of generation 1"] for number in range(jobs)]
        assert max(counts) - min(counts) <= 1
        assert sum(shown.values()) > 0.8 * min(0.02 * (clock.now - Clock.now) / cost, 600 * jobs)


def test_what_a_gpu_has_not_done_yet_is_counted_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    took: list[float | None] = [None]

    class Late(Stopwatch):
        def seconds(self) -> float | None:
            return took[0]

    monkeypatch.setattr("rbee_sd.engine.previews.Stopwatch", Late)
    previews = Previews(Averages(), None)
    previews.make("job", torch.zeros(1, 4, 8, 8))
    assert previews.due("another")
    took[0] = 60.0
    previews.make("another", torch.zeros(1, 4, 8, 8))
    assert not previews.due("third")


def test_a_preview_that_fails_is_not_the_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([OSError("no space for it")])

    def jpeg(*picture: Any) -> bytes:
        for failure in failures:
            raise failure
        return b"jpeg"

    monkeypatch.setattr("rbee_sd.engine.outputs.preview_jpeg", jpeg)
    monkeypatch.setattr("rbee_sd.engine.previews.INTERVAL", 0.0)
    monkeypatch.setattr("rbee_sd.engine.previews.SHARE", 1e9)
    watched(bench, steps=40, width=32, height=32)
    assert [message.jpeg for message in bench.heard(Preview)][:1] == [b"jpeg"]


def test_all_images_of_a_job_have_previews(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee_sd.engine.previews.INTERVAL", 0.0)
    monkeypatch.setattr("rbee_sd.engine.previews.SHARE", 1e9)
    watched(bench, steps=40, width=32, height=32, count=3)
    shown = Counter(message.index for message in bench.heard(Preview))
    assert set(shown) == {0, 1, 2}
    assert max(shown.values()) - min(shown.values()) <= 1


def test_previews_of_a_fast_model_do_not_come_with_every_step(bench: Bench) -> None:
    watched(bench, steps=40, width=32, height=32)
    assert len(bench.heard(Preview)) < 30
