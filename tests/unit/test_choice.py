"""`engine.choice`: which files of a model are downloaded."""

from __future__ import annotations

from typing import Any

import pytest

from rbee_sd.engine.choice import choose
from rbee_sd.engine.pipeline import ModelError

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
    "force_zeros_for_empty_prompt": True,
}
DESCRIBED = ["model_index.json", "unet/config.json", "text_encoder/config.json"]
TOKENIZER = ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/spiece.model"]
UNET = "unet/diffusion_pytorch_model"
ENCODER = "text_encoder/model"


def chosen(*weights: str) -> dict[str, str]:
    """What is chosen of a model with these weights, besides what is always."""
    found = choose("a/b", INDEX, [*DESCRIBED, *TOKENIZER, *weights])
    always = [*DESCRIBED, *TOKENIZER]
    assert {each: found.pop(each) for each in always} == {each: each for each in always}
    return found


def test_weights_are_taken_in_safetensors_and_their_other_forms_are_left() -> None:
    plain = [f"{UNET}.safetensors", f"{ENCODER}.safetensors"]
    others = [f"{UNET}.bin", f"{ENCODER}.bin", f"{UNET}.non_ema.safetensors", "unet/openvino.bin", "xl.safetensors"]
    assert chosen(*plain, *others) == {each: each for each in plain}


def test_half_precision_is_taken_where_there_is_that_under_the_usual_name() -> None:
    files = [f"{UNET}.safetensors", f"{UNET}.fp16.safetensors", f"{ENCODER}.safetensors"]
    expected = {f"{UNET}.fp16.safetensors": f"{UNET}.safetensors", f"{ENCODER}.safetensors": f"{ENCODER}.safetensors"}
    assert chosen(*files) == expected


def test_weights_in_several_files_come_with_their_index() -> None:
    shards = [f"{UNET}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    listing = f"{UNET}.safetensors.index.json"
    files = [*shards, listing, f"{ENCODER}.safetensors"]
    assert chosen(*files) == {each: each for each in files}


def test_the_index_of_a_variant_gets_the_usual_name_and_its_files_keep_theirs() -> None:
    shards = [f"{UNET}.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    listing = f"{UNET}.safetensors.index.fp16.json"
    found = chosen(*shards, listing, f"{UNET}.safetensors", f"{ENCODER}.safetensors")
    assert found.pop(listing) == f"{UNET}.safetensors.index.json"
    assert found == {each: each for each in (*shards, f"{ENCODER}.safetensors")}


def test_a_variant_of_which_a_part_is_missing_is_none() -> None:
    half = [f"{UNET}.fp16-00001-of-00002.safetensors", f"{UNET}.safetensors.index.fp16.json"]
    plain = [f"{UNET}.safetensors", f"{ENCODER}.safetensors"]
    assert chosen(*half, *plain) == {each: each for each in plain}


@pytest.mark.parametrize("name", [f"{UNET}.bin", "unet/weights.ckpt", f"{UNET}-00001-of-00002.safetensors"])
def test_weights_that_are_not_there_in_safetensors_whole_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="the weights of unet of the model a/b are not in safetensors"):
        chosen(name, f"{ENCODER}.safetensors")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"_class_name": "AudioLDMPipeline"}, "of a kind that this worker does not run"),
        ({"_class_name": None}, "does not say what kind"),
        ({"unet": ["model", "Net"]}, "wants code from elsewhere for its unet"),
        ({"unet": []}, "wants code from elsewhere"),
        ({"unet": [["diffusers"], "Net"]}, "wants code from elsewhere"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "lacks its vae"),
        ({"../unet": ["diffusers", "Net"]}, "lacks its"),
    ],
)
def test_an_index_that_names_what_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        choose("a/b", INDEX | change, [*DESCRIBED, *TOKENIZER, f"{UNET}.safetensors", "../unet/config.json"])
