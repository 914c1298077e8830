"""The embedded model `demo`: what its folder holds, and that it draws what it is asked for."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTokenizer

from rbee_sd.engine.config import DEMO
from rbee_sd.engine.training import parts
from rbee_sd.engine.training.captions import WORDS
from rbee_sd.engine.training.drawing import draw as drawn
from rbee_sd.engine.training.evaluation import evaluate, held_out_captions, load
from rbee_sd.engine.training.parts import GUIDANCE
from rbee_sd.engine.training.scenes import COLOURS, Scene, Thing
from rbee_sd.engine.training.scoring import look

PROMPT = "a red circle on a blue background"
VERSION_FIELDS = {"_diffusers_version", "transformers_version"}
FIFTEEN_MEGABYTES = 15_000_000
SAMPLE = 40
"""Captions of the sample; bin/train-demo-model evaluate takes 500."""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's parts as training begins with them, saved."""
    folder = tmp_path_factory.mktemp("untrained")
    text_encoder = parts.build_text_encoder(parts.build_tokenizer())
    parts.save(folder, parts.build_autoencoder(), text_encoder, parts.build_unet())
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(DEMO / "tokenizer", local_files_only=True)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded: StableDiffusionPipeline = load(DEMO, torch.device("cpu"))
    return loaded


def files_of(folder: Path, suffix: str = "") -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*" + suffix) if path.is_file()}


def settings_of(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in VERSION_FIELDS}


def tensors_of(path: Path) -> dict[str, tuple[Any, str]]:
    """Shape and number format of every tensor in a file."""
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (each.get_shape(), each.get_dtype()) for name, each in slices.items()}


def paint(pipeline: Any, prompt: str = PROMPT, seed: int = 0, steps: int = 20, **options: Any) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    options = {"guidance_scale": GUIDANCE, **options}
    picture: Image.Image = pipeline(prompt, generator=generator, num_inference_steps=steps, **options).images[0]
    return picture


def draw(pipeline: StableDiffusionPipeline, prompt: str = PROMPT, seed: int = 0, **options: Any) -> np.ndarray:
    """Pixels (height, width, 3) in 0..1 after three steps."""
    generator = torch.Generator().manual_seed(seed)
    result = pipeline(prompt, generator=generator, num_inference_steps=3, output_type="np", **options)
    pixels: np.ndarray = result.images[0]
    return pixels


# What is in the folder.


def test_the_folder_holds_what_training_saves(untrained: Path) -> None:
    fresh, committed = files_of(untrained), files_of(DEMO)
    assert fresh.keys() == committed.keys()
    for name in files_of(untrained, ".json"):
        mine, theirs = settings_of(fresh[name]), settings_of(committed[name])
        # It comes of the training.
        theirs["scaling_factor"] = mine.get("scaling_factor")
        mine.setdefault("scaling_factor", None)
        assert mine == theirs, name
    for name in files_of(untrained, ".safetensors"):
        assert tensors_of(fresh[name]) == tensors_of(committed[name]), name


def test_every_weight_is_stored_in_half_precision() -> None:
    for name, path in files_of(DEMO, ".safetensors").items():
        floats = {kind for _, kind in tensors_of(path).values() if kind.startswith(("F", "B"))}
        assert floats == {"F16"}, name


def test_whoever_loads_it_without_a_number_format_gets_one() -> None:
    loaded = StableDiffusionPipeline.from_pretrained(DEMO, local_files_only=True)
    assert {loaded.unet.dtype, loaded.vae.dtype, loaded.text_encoder.dtype} == {torch.float32}


def test_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in files_of(DEMO).values()) < FIFTEEN_MEGABYTES


def test_no_configuration_names_the_place_where_it_was_built() -> None:
    for name, path in files_of(DEMO, "config.json").items():
        assert "_name_or_path" not in settings_of(path), name


def test_every_caption_word_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in WORDS:
        assert tokenizer.tokenize(word) == [word + "</w>"]
    assert len(tokenizer.tokenize(PROMPT)) == len(PROMPT.split())


@pytest.mark.parametrize(
    "text",
    [
        "Ein schöner großer Kreis, 50 % größer!",
        "دائرة حمراء على خلفية زرقاء",
        "蓝色背景上的红色圆圈",
        "👩‍🚀🔴 🏳️‍🌈 ①½ \u200b\u0000\x1b",
        'it\'s <b>~bold~</b> \\ "quoted" {0} %s',
    ],
)
def test_any_unicode_text_tokenises_without_unknowns(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    # The unknown token is the end token, as in CLIP: it may stand at the end only.
    assert ids.index(tokenizer.unk_token_id) == len(ids) - 1
    spelt = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(spelt.split()) == "".join(text.lower().split())


def test_prompts_are_cut_and_padded_to_77_tokens(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.tokenizer.model_max_length == 77
    for prompt in ("", "red " * 500):
        ids = pipeline.tokenizer(prompt, padding="max_length", truncation=True).input_ids
        assert len(ids) == 77
        assert ids[-1] == pipeline.text_encoder.config.eos_token_id


def test_pooled_text_is_taken_at_the_first_end_token(pipeline: StableDiffusionPipeline) -> None:
    tokens = pipeline.tokenizer(PROMPT, padding="max_length", return_tensors="pt")
    encoded = pipeline.text_encoder(tokens.input_ids)
    end = len(PROMPT.split()) + 1
    assert torch.equal(encoded.pooler_output[0], encoded.last_hidden_state[0, end])


def test_loads_with_diffusers_own_loader_offline_and_makes_a_finite_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    loaded = StableDiffusionPipeline.from_pretrained(DEMO)
    loaded.set_progress_bar_config(disable=True)
    pixels = draw(loaded)
    assert pixels.shape == (128, 128, 3)
    assert np.isfinite(pixels).all()
    assert pixels.std() > 10 / 255


def test_seed_prompt_negative_prompt_and_guidance_each_change_the_image(
    pipeline: StableDiffusionPipeline,
) -> None:
    first = draw(pipeline)
    assert np.array_equal(first, draw(pipeline))
    # What a prompt leaves open is different with each seed.
    assert np.abs(first - draw(pipeline, seed=1)).mean() > 0.5 / 255
    assert np.abs(draw(pipeline, "a star") - draw(pipeline, "a star", seed=1)).mean() > 10 / 255
    for other in (
        draw(pipeline, "a large green heart on a white background"),
        draw(pipeline, negative_prompt="a blue background"),
        draw(pipeline, guidance_scale=2.0),
    ):
        assert np.abs(first - other).mean() > 0.5 / 255


@pytest.mark.parametrize(("width", "height"), [(8, 8), (136, 72), (256, 128)])
def test_any_multiple_of_eight_is_a_size(pipeline: StableDiffusionPipeline, width: int, height: int) -> None:
    assert draw(pipeline, width=width, height=height).shape == (height, width, 3)


# What it draws. bin/train-demo-model evaluate measures it; these are small samples, with room for chance.


@pytest.mark.parametrize(
    ("guidance", "steps", "wanted"),
    [
        (GUIDANCE, 20, {"background": 0.97, "colour": 0.85, "shape": 0.85, "size": 0.85, "position": 0.9}),
        (GUIDANCE, 8, {"background": 0.97, "colour": 0.85, "shape": 0.85, "size": 0.85, "position": 0.9}),
    ],
)
def test_it_draws_captions_that_training_never_saw(
    pipeline: StableDiffusionPipeline, guidance: float, steps: int, wanted: dict[str, float]
) -> None:
    counts: Counter[str] = evaluate(pipeline, held_out_captions(SAMPLE, seed=1), guidance, steps, seed=1)
    for what, share in wanted.items():
        assert counts[what] >= share * counts[f"{what} of"], (what, counts)


@pytest.mark.parametrize(
    ("prompt", "background", "colour", "shape"),
    [
        ("a yellow star on a black background", "black", "yellow", "star"),
        ("a large green heart on a white background", "white", "green", "heart"),
        ("A red circle on a green background!", "green", "red", "circle"),
        ("detailed photograph of one huge purple crescent moon, white background", "white", "purple", "crescent"),
        ("on pink: a big black cross", "pink", "black", "cross"),
        ("a tiny orange ring at the top, blue background", "blue", "orange", "ring"),
    ],
)
@pytest.mark.parametrize("seed", [1, 42])
def test_ordinary_phrasings_are_understood(
    pipeline: StableDiffusionPipeline, prompt: str, background: str, colour: str, shape: str, seed: int
) -> None:
    sight = look(paint(pipeline, prompt, seed))
    found = [(thing.colour, thing.shape) for thing in sight.things]
    assert (sight.background, found) == (background, [(colour, shape)])


def test_two_things_stand_as_they_are_told(pipeline: StableDiffusionPipeline) -> None:
    sight = look(paint(pipeline, "a red circle left of a green square on a yellow background", seed=1))
    places = {(thing.colour, thing.shape): thing.x for thing in sight.things}
    assert sight.background == "yellow"
    assert places["red", "circle"] < places["green", "square"]


def test_large_is_larger_than_small(pipeline: StableDiffusionPipeline) -> None:
    small, large = (look(paint(pipeline, f"a {size} white ring on a blue background")) for size in ("small", "large"))
    assert large.things[0].radius > 1.5 * small.things[0].radius


def test_a_negative_prompt_turns_away_from_what_it_says(pipeline: StableDiffusionPipeline) -> None:
    seeds = range(6)
    plain = [look(paint(pipeline, "a star", seed)).background for seed in seeds]
    common = Counter(plain).most_common(1)[0][0]
    turned = [
        look(paint(pipeline, "a star", seed, negative_prompt=f"a {common} background")).background for seed in seeds
    ]
    assert turned.count(common) < plain.count(common)


def scene() -> Image.Image:
    """A red circle on white, on the left."""
    circle = Thing("circle", "red", None, 0.2, -0.2, 0.0, 0.0, COLOURS["red"])
    return drawn(Scene("white", COLOURS["white"], (circle,)), 128, 128)


def test_image_to_image_keeps_the_place_and_takes_the_colour(pipeline: StableDiffusionPipeline) -> None:
    changing = AutoPipelineForImage2Image.from_pipe(pipeline, vae=pipeline.vae)
    changing.set_progress_bar_config(disable=True)
    sight = look(paint(changing, "a blue circle on a white background", image=scene(), strength=0.45))
    assert (sight.background, sight.things[0].colour) == ("white", "blue")
    assert sight.things[0].x < -0.1


def test_inpainting_draws_in_the_mask_and_leaves_the_rest(pipeline: StableDiffusionPipeline) -> None:
    filling = AutoPipelineForInpainting.from_pipe(pipeline, vae=pipeline.vae)
    filling.set_progress_bar_config(disable=True)
    mask = Image.new("L", (128, 128))
    mask.paste(255, (68, 24, 124, 104))
    prompt = "a red circle on the left and a green star on the right on a white background"
    sight = look(paint(filling, prompt, image=scene(), mask_image=mask, strength=1.0, width=128, height=128))
    found = {thing.colour: thing for thing in sight.things}
    assert found["red"].shape == "circle"
    assert found["green"].x > 0.1
    assert found["green"].shape == "star"


def test_denoising_can_be_watched(pipeline: StableDiffusionPipeline) -> None:
    """What the latents decode to on the way comes nearer to the picture, and its background is there early."""
    pictures: list[np.ndarray] = []

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            pixels = pipeline.vae.decode(tensors["latents"] / pipeline.vae.config.scaling_factor).sample[0]
        pictures.append(pixels.clamp(-1, 1).numpy())
        return {}

    paint(pipeline, callback_on_step_end=keep)
    distances = [float(np.abs(each - pictures[-1]).mean()) for each in pictures]
    assert distances[0] > distances[10] > distances[15] > distances[18]
