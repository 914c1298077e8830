"""The embedded model `demo`: the folder in the package, and the script that builds it."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from rbee_sd.engine.demo_model import CAPTION_WORDS, DEMO_FOLDER, build

PROMPT = "a red circle on a blue background"
VERSION_FIELDS = {"_diffusers_version", "transformers_version"}
THREE_MEBIBYTES = 3 * 1024**2


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(DEMO_FOLDER / "tokenizer", local_files_only=True)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(DEMO_FOLDER, local_files_only=True, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def files_of(folder: Path, suffix: str = "") -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*" + suffix) if path.is_file()}


def settings_of(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in VERSION_FIELDS}


def draw(pipeline: StableDiffusionPipeline, prompt: str = PROMPT, seed: int = 0, **options: Any) -> np.ndarray:
    """Pixels (height, width, 3) in 0..1 after three steps."""
    generator = torch.Generator().manual_seed(seed)
    result = pipeline(prompt, generator=generator, num_inference_steps=3, output_type="np", **options)
    pixels: np.ndarray = result.images[0]
    return pixels


def test_building_twice_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    build(tmp_path)
    first, second = files_of(built), files_of(tmp_path)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].read_bytes() == second[name].read_bytes(), name


def test_another_seed_gives_other_weights(built: Path, tmp_path: Path) -> None:
    build(tmp_path, seed=1)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (built / weights).read_bytes() != (tmp_path / weights).read_bytes()


def test_committed_demo_model_is_what_the_script_builds(built: Path) -> None:
    fresh, committed = files_of(built), files_of(DEMO_FOLDER)
    assert fresh.keys() == committed.keys()
    for name in files_of(built, ".json"):
        assert settings_of(fresh[name]) == settings_of(committed[name]), name
    for name in files_of(built, ".safetensors"):
        # Another processor may round the last bit of a random number differently.
        torch.testing.assert_close(load_file(fresh[name]), load_file(committed[name]), atol=1e-3, rtol=1e-2)


def test_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in files_of(DEMO_FOLDER).values()) < THREE_MEBIBYTES


def test_no_configuration_names_the_place_where_it_was_built() -> None:
    for name, path in files_of(DEMO_FOLDER, "config.json").items():
        assert "_name_or_path" not in settings_of(path), name


def test_every_caption_word_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in CAPTION_WORDS:
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
    loaded = StableDiffusionPipeline.from_pretrained(DEMO_FOLDER)
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
    assert np.abs(first - draw(pipeline, seed=1)).mean() > 10 / 255
    for other in (
        draw(pipeline, "a large green heart on a white background"),
        draw(pipeline, negative_prompt="blurry"),
        draw(pipeline, guidance_scale=2.0),
    ):
        assert np.abs(first - other).mean() > 0.5 / 255


@pytest.mark.parametrize(("width", "height"), [(8, 8), (136, 72), (256, 128)])
def test_any_multiple_of_eight_is_a_size(pipeline: StableDiffusionPipeline, width: int, height: int) -> None:
    assert draw(pipeline, width=width, height=height).shape == (height, width, 3)
