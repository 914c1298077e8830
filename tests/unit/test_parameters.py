"""`parameters`: how a picture was made, out of files of our own, of other programs, and of people who mean harm."""

from __future__ import annotations

import json
import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rbee_sd.engine.outputs import picture_file as png_of_ours
from rbee_sd.engine.recipe import parameters as text_of_ours
from rbee_sd.messages import SCHEDULERS
from rbee_sd.operations.png_header import MAX_CHUNKS, MAX_TEXT
from rbee_sd.parameters.infotext import parse
from rbee_sd.parameters.picture import Parameters, parameters_in
from rbee_sd.parameters.recipe import fields_of
from rbee_sd.samplers import SAMPLERS, scheduler_of
from tests.pictures import chunk, picture, png

A1111 = """a lighthouse, (storm:1.2) <lora:oil paint:0.7>
second line, with a colon: here
Negative prompt: blurry, text
watermark
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1234567890, Size: 512x768, \
Model hash: 0123456789, Model: someModel_v10, Denoising strength: 0.6, Clip skip: 2, \
Lora hashes: "oil paint: aabbccddeeff, other: 112233445566", Version: v1.10.1"""
FORGE = (
    "a fox in the snow\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, "
    "Seed: 7, Size: 896x1152, Model hash: 0123456789, Model: flux1-dev, Version: f2.0.1, Module 1: ae, Module 2: t5xxl"
)
SD_CPP = (
    "a field\nNegative prompt: sky\nSteps: 30, CFG scale: 5.000000, Skip layers: [7, 8, ], Guidance: 3.500000, "
    "Eta: 0.000000, Seed: 42, Size: 512x512, Model: v1-5.safetensors, RNG: cuda, Sampler: dpm++2m karras, "
    "Version: stable-diffusion.cpp"
)
OURS = {
    "operation": "image_transform",
    "prompt": "a red circle\nNegative prompt: none\nSteps: 1, Seed: 2, Size: 8x8, gr\u00fcn \u65e5\u672c",
    "negative_prompt": "blurry",
    "seed": 2**40,
    "steps": 20,
    "guidance_scale": 7.5,
    "width": 64,
    "height": 64,
    "scheduler": "dpmpp_2m_karras",
    "model": "some, model",
    "loras": [{"name": "oil paint", "scale": -0.5}],
    "strength": 0.6,
}


def with_text(text: str, kind: str = "tEXt", name: str = "parameters") -> bytes:
    """A PNG with this text."""
    info = PngInfo()
    if kind == "tEXt":
        return png(chunk(b"tEXt", name.encode() + b"\0" + text.encode()))
    if kind == "iTXt":
        info.add_itxt(name, text)
    else:
        info.add_text(name, text, zip=True)
    return picture("PNG", pnginfo=info)


def exif(comment: bytes, order: str = ">") -> bytes:
    """An EXIF block whose user comment is this."""
    first = struct.pack(f"{order}H2H2II", 1, 0x8769, 4, 1, 26, 0)
    second = struct.pack(f"{order}H2H2II", 1, 0x9286, 7, len(comment), 44, 0)
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return mark + struct.pack(f"{order}I", 8) + first + second + comment


def refused(data: bytes) -> str:
    """What is told of a file."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        parameters_in(data)
    assert type(caught.value) is ValueError
    return str(caught.value)


def test_a_picture_of_ours_gives_back_exactly_what_made_it() -> None:
    data = png_of_ours(Image.new("RGB", (64, 64)), OURS)
    found = parameters_in(data)
    assert found.fields == OURS
    assert found.text == text_of_ours(OURS)
    assert found.settings["Schedule type"] == "Karras"


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_another_format_of_ours_gives_back_what_its_text_says(kind: str) -> None:
    made_by = {**OURS, "prompt": "a red circle, gr\u00fcn \u65e5\u672c"}
    found = parameters_in(png_of_ours(Image.new("RGB", (64, 64)), made_by, kind))
    assert found.fields == {name: value for name, value in made_by.items() if name != "operation"}
    assert found.text == text_of_ours(made_by)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_a_png_of_the_web_ui_gives_back_its_settings(kind: str) -> None:
    found = parameters_in(with_text(A1111, kind))
    assert found.text == A1111
    assert found.fields == {
        "prompt": "a lighthouse, (storm:1.2)\nsecond line, with a colon: here",
        "negative_prompt": "blurry, text\nwatermark",
        "steps": 28,
        "scheduler": "dpmpp_2m_karras",
        "guidance_scale": 6.5,
        "seed": 1234567890,
        "width": 512,
        "height": 768,
        "model": "someModel_v10",
        "strength": 0.6,
        "loras": [{"name": "oil paint", "scale": 0.7}],
    }
    assert found.settings["Model hash"] == "0123456789"
    assert found.settings["Clip skip"] == "2"
    assert found.settings["Lora hashes"] == "oil paint: aabbccddeeff, other: 112233445566"


def test_text_that_is_not_ascii_is_read_however_it_was_written() -> None:
    line = "\nSteps: 1, Seed: 2, Size: 8x8"
    assert parameters_in(with_text("\u65e5\u672c" + line, "iTXt")).fields["prompt"] == "\u65e5\u672c"
    assert parameters_in(with_text("\u65e5\u672c" + line, "tEXt")).fields["prompt"] == "\u65e5\u672c"
    latin = png(chunk(b"tEXt", b"parameters\0gr\xfcn" + line.encode()))
    assert parameters_in(latin).fields["prompt"] == "gr\u00fcn"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize(
    ("code", "encoding"),
    [
        (b"UNICODE\0", "utf-16-be"),
        (b"UNICODE\0", "utf-16-le"),
        (b"UNICODE\0", "utf-16"),
        (b"ASCII\0\0\0", "utf-8"),
        (bytes(8), "utf-8"),
    ],
)
def test_a_user_comment_gives_back_its_settings(kind: str, order: str, code: bytes, encoding: str) -> None:
    text = "\u65e5\u672c, a lighthouse" + A1111
    data = picture(kind, exif=b"Exif\0\0" + exif(code + text.encode(encoding), order))
    assert parameters_in(data).text == text
    assert parameters_in(data).fields["seed"] == 1234567890


def test_exif_as_pillow_writes_it_is_read() -> None:
    block = Image.Exif()
    block.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + FORGE.encode("utf-16-be")
    for kind in ("JPEG", "WEBP"):
        assert parameters_in(picture(kind, exif=block.tobytes())).fields["seed"] == 7


def test_forge_tells_the_guidance_of_flux_apart() -> None:
    found = fields_of(parse(FORGE))
    assert (found["guidance_scale"], found["scheduler"], found["steps"]) == (3.5, "euler", 20)
    assert parse(FORGE).settings["Module 2"] == "t5xxl"


def test_stable_diffusion_cpp_writes_the_same_a_little_differently() -> None:
    found = fields_of(parse(SD_CPP))
    assert found == {
        "prompt": "a field",
        "negative_prompt": "sky",
        "steps": 30,
        "guidance_scale": 5.0,
        "seed": 42,
        "width": 512,
        "height": 512,
        "model": "v1-5.safetensors",
        "scheduler": "dpmpp_2m_karras",
    }


def test_quoted_values_and_bare_json_are_one_value_each() -> None:
    line = (
        r'x\nSteps: 2, Model: "a, \"b\": c\n", Hashes: {"model": "ff", "lora:a": "0, 1"}, '
        r'Civitai resources: [{"type":"checkpoint","weight":1}], Seed: 5'
    ).replace(r"x\n", "x\n", 1)
    settings = parse(line).settings
    assert settings["Model"] == 'a, "b": c\n'
    assert json.loads(settings["Hashes"]) == {"model": "ff", "lora:a": "0, 1"}
    assert settings["Civitai resources"] == '[{"type":"checkpoint","weight":1}]'
    assert settings["Seed"] == "5"


@pytest.mark.parametrize(
    "prompt",
    [
        "Steps: 99, Sampler: Heun, CFG scale: 1, Seed: 1, Size: 8x8",
        "a poster that reads\nSteps: 99, Seed: 1, Size: 8x8\nand goes on",
        "style: flat, mood: calm, light: soft",
        "Size: 1x1",
    ],
)
def test_a_prompt_that_looks_like_settings_is_a_prompt(prompt: str) -> None:
    found = fields_of(parse(f"{prompt}\nSteps: 20, Sampler: Euler, Seed: 5, Size: 64x64"))
    assert found == {"prompt": prompt, "steps": 20, "scheduler": "euler", "seed": 5, "width": 64, "height": 64}


def test_without_a_line_of_settings_there_are_none() -> None:
    for text in ("", "just a prompt", "style: flat, mood: calm, light: soft", "Steps: 20", "Steps of a dance: 1, b: 2"):
        assert fields_of(parse(text)) == {}
        assert parse(text).prompt == text
    assert parameters_in(picture()) == Parameters()
    assert parameters_in(picture("JPEG")) == Parameters()
    assert parameters_in(picture("WEBP")) == Parameters()
    assert parameters_in(picture("JPEG", exif=Image.Exif().tobytes())) == Parameters()


@pytest.mark.parametrize("wrong", ["many", "-1", "1e9", "9" * 19, "9" * 5000, "nan", "0x10", "\u0663", ""])
def test_values_that_are_no_numbers_are_told_as_words_and_no_fields(wrong: str) -> None:
    info = parse(f"a\nSteps: {wrong}, CFG scale: {wrong}nan, Seed: {wrong}, Size: {wrong}x{wrong}")
    found = fields_of(info)
    assert found == {"prompt": "a"}
    assert info.settings["Seed"] == wrong


def test_a_strength_of_a_second_pass_is_not_that_of_the_picture() -> None:
    line = "a\nSteps: 2, Seed: 1, Size: 8x8, Denoising strength: 0.5"
    assert fields_of(parse(line))["strength"] == 0.5
    assert "strength" not in fields_of(parse(line + ", Hires upscale: 2"))


def test_every_scheduler_has_a_name_elsewhere_and_is_known_by_it() -> None:
    assert set(SAMPLERS) == set(SCHEDULERS)
    for scheduler, (sampler, schedule) in SAMPLERS.items():
        assert scheduler_of(scheduler) == scheduler_of(sampler, schedule) == scheduler


@pytest.mark.parametrize(
    ("sampler", "schedule", "scheduler"),
    [
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Uniform", "dpmpp_2m"),
        ("DPM++ 2M", "", "dpmpp_2m"),
        ("dpm++2m karras", "", "dpmpp_2m_karras"),
        ("k_euler_ancestral", "", "euler_a"),
        ("Euler a", "Karras", "euler_a"),
        ("DPM++ SDE Karras", "", "dpmpp_sde"),
        ("DDIM", "DDIM", "ddim"),
        ("DPM++ 3M SDE", "Karras", None),
        ("Restart", "", None),
        ("", "", None),
    ],
)
def test_a_sampler_is_known_by_its_usual_names(sampler: str, schedule: str, scheduler: str | None) -> None:
    assert scheduler_of(sampler, schedule) == scheduler


BOMB = zlib.compress(b"\0" * 100_000_000, 9)
NAME = b"parameters\0"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(chunk(b"zTXt", NAME + b"\0" + BOMB)), "larger than"),
        (png(chunk(b"iTXt", NAME + b"\1\0\0\0" + BOMB)), "larger than"),
        (png(chunk(b"tEXt", NAME + b"A" * (MAX_TEXT + 1))), "larger than"),
        (png(chunk(b"tEXt", NAME + b"A" * MAX_TEXT), chunk(b"tEXt", b"rbee-sd\0{}")), "larger than"),
        (png(chunk(b"zTXt", NAME + b"\0" + b"\xff" * 100)), "cannot be unpacked"),
        (png(*[chunk(b"tEXt")] * MAX_CHUNKS), "parts"),
        (with_text(A1111)[:-30], "truncated"),
        (with_text("[1]", name="rbee-sd"), "damaged"),
        (with_text("{", name="rbee-sd"), "damaged"),
        (with_text("[" * 100_000, name="rbee-sd"), "damaged"),
        (with_text('{"seed": "1"}', name="rbee-sd"), "damaged"),
        (with_text('{"seed": true}', name="rbee-sd"), "damaged"),
        (with_text('{"guidance_scale": 1e999}', name="rbee-sd"), "damaged"),
        (with_text('{"loras": [{"name": "a"}]}', name="rbee-sd"), "damaged"),
        (picture("JPEG", exif=b"Exif\0\0nonsense"), "damaged"),
        (picture("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), "truncated"),
        (picture("WEBP", exif=exif(b"")[:-6] + b"\xff" * 6), "damaged"),
        (b"GIF89a", "not a PNG"),
        (b"", "not a PNG"),
    ],
)
def test_a_file_that_cannot_be_read_or_means_harm_is_refused_at_once(data: bytes, reason: str) -> None:
    began = time.process_time()
    assert reason in refused(data)
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(
    "text",
    [
        "Steps:" * 150_000,
        "a " * 500_000,
        "Steps: 1, " + "a" * 60_000,
        "Steps: 1, " + 'a: "\\' * 10_000,
        "Steps: 1, " + "a: [" * 10_000,
        "Steps: 1, " + "a: {" + '"b":[' * 10_000,
        "\n".join(["[[]," * 16_350 + " Steps: 1"] * 15),
        "\n".join(['{"a":[' * 9_000 + ", Steps: 1"] * 15),
        "Steps: 1" + "," * 65_000 + "\n" + "Steps: 1" + ", " * 32_000,
        "\n".join(["Steps: 1, Seed: 2, a"] * 40_000),
        "\n".join(["Steps: 1, Seed: 2, a: b" + " " * 60_000] * 15),
        "<lora:" * 150_000 + "\nSteps: 1, Seed: 2, Size: 8x8",
        "<lora:" + "a" * 900_000 + "\nSteps: 1, Seed: 2, Size: 8x8",
    ],
)
def test_no_text_takes_long_to_take_apart(text: str) -> None:
    began = time.process_time()
    fields_of(parse(text))
    assert time.process_time() - began < 1


word = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)


@given(prompt=word, negative=word | st.just(""), model=word, scheduler=st.sampled_from(SCHEDULERS), seed=st.integers(0))
@example(prompt="a: b", negative="", model='a"b', scheduler="euler", seed=0)
@example(prompt="a", negative="", model="\\", scheduler="euler", seed=2**63)
def test_what_we_write_for_others_we_read(prompt: str, negative: str, model: str, scheduler: str, seed: int) -> None:
    made: dict[str, Any] = {**OURS, "prompt": prompt, "negative_prompt": negative, "model": model, "seed": seed}
    found = fields_of(parse(text_of_ours(made | {"scheduler": scheduler})))
    if "<lora:" in prompt or prompt.startswith("Negative prompt:"):
        return
    assert found["prompt"] == prompt
    assert found.get("negative_prompt", "") == negative
    assert found["scheduler"] == scheduler
    assert found.get("seed", seed) == seed
    assert found["loras"] == OURS["loras"]
    assert found["model"] == model


@given(text=st.text(st.sampled_from('Steps: 1,"{}[]\\\n<lora:>')))
def test_any_text_is_taken_apart(text: str) -> None:
    fields_of(parse(text))


WHOLE = [
    with_text(A1111),
    with_text(A1111, "zTXt"),
    with_text(A1111, "iTXt"),
    with_text(json.dumps(OURS), name="rbee-sd"),
    *(picture(kind, exif=exif(b"UNICODE\0" + A1111.encode("utf-16-be"))) for kind in ("JPEG", "WEBP")),
]


def read_or_refuse(data: bytes) -> None:
    """Read a file; that it is refused is all right, but by no other kind of error, though there are kinds of it."""
    try:
        parameters_in(data)
    except ValueError as error:
        if type(error) is not ValueError:
            raise


@given(whole=st.sampled_from(WHOLE), place=st.integers(0, 1200), change=st.binary(max_size=8), cut=st.integers(0, 8))
def test_a_damaged_file_gives_settings_or_the_one_error(whole: bytes, place: int, change: bytes, cut: int) -> None:
    place %= len(whole)
    read_or_refuse(whole[:place] + change + whole[place + cut :])


def test_a_truncated_file_gives_settings_or_the_one_error() -> None:
    for whole in WHOLE:
        for length in range(len(whole)):
            read_or_refuse(whole[:length])
