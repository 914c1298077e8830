"""Models of the published architectures with random weights: what a GPU does with them needs no download.

The numbers are those of the configuration files that Stable Diffusion 1.5 (stable-diffusion-v1-5/stable-diffusion-v1-5)
and Stable Diffusion XL base 1.0 (stabilityai/stable-diffusion-xl-base-1.0) were published with on the Hugging Face hub.
Two things differ: the weights, which are what the classes begin with, from a fixed seed; and the tokenizer, the demo
model's, whose vocabulary is small. Time and memory depend on neither. The pictures are noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from rbee_sd.engine.config import DEMO, EngineConfig
from rbee_sd.engine.device import choose_device
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.pipeline import ModelError

RANDOM = "random:"
"""Before the name of one of `SHAPES`: that, with random weights."""
SEED = 0

_NOISE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
# CLIP ViT-L/14; the second encoder of XL is OpenCLIP ViT-bigG/14.
_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
_CLIP_BIG_G = _CLIP_L | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The configurations of a model's parts. With one text encoder it is of Stable Diffusion, with two of XL."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    texts: tuple[Mapping[str, Any], ...]

    @property
    def index(self) -> dict[str, Any]:
        """What stands in its model_index.json."""
        return {"_class_name": "StableDiffusionXLPipeline" if len(self.texts) == 2 else "StableDiffusionPipeline"}

    def build(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The pipeline, its weights made on the device: a large model need not fit into the CPU's memory."""
        torch.manual_seed(SEED)
        tokenizer = _tokenizer()
        with _making(device, dtype):
            parts = {
                "unet": UNet2DConditionModel(**self.unet).eval(),
                "vae": AutoencoderKL(**self.vae).eval(),
                "text_encoder": CLIPTextModel(_text(self.texts[0], tokenizer)).eval(),
            }
            if len(self.texts) == 2:
                parts["text_encoder_2"] = CLIPTextModelWithProjection(_text(self.texts[1], tokenizer)).eval()
        if len(self.texts) == 2:
            scheduler = EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading")
            return StableDiffusionXLPipeline(
                **parts, tokenizer=tokenizer, tokenizer_2=_tokenizer(), scheduler=scheduler
            )
        return StableDiffusionPipeline(
            **parts,
            tokenizer=tokenizer,
            scheduler=PNDMScheduler(**_NOISE, skip_prk_steps=True),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


SHAPES = {
    "sd15": Shape(
        unet={
            "sample_size": 64,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        vae=_VAE | {"sample_size": 512, "scaling_factor": 0.18215},
        texts=(_CLIP_L,),
    ),
    "sdxl": Shape(
        unet={
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae=_VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        texts=(_CLIP_L, _CLIP_BIG_G),
    ),
}


class RandomWeights:
    """A `Source` of a shape, for this device."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self._shape = shape
        self._device = device
        self.index = shape.index

    def load(self, dtype: torch.dtype) -> Any:
        """See `Source`."""
        return self._shape.build(self._device, dtype)


def opened(config: EngineConfig) -> Diffusion:
    """The model that `config` names: one of `SHAPES` with random weights, or any that the worker takes.

    Raises `ModelError`, and `MemoryError`.
    """
    if not config.model.startswith(RANDOM):
        return load(config)
    name = config.model.removeprefix(RANDOM)
    if name not in SHAPES:
        known = " and ".join(f"{RANDOM}{each}" for each in SHAPES)
        raise ModelError(f"there is no {config.model}; with random weights there are {known}")
    return load(config, RandomWeights(SHAPES[name], choose_device(config.device)))


@contextmanager
def _making(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Weights that are made in here are on the device, and in this number format."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(usual)


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(DEMO / "tokenizer", local_files_only=True)


def _text(values: Mapping[str, Any], tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """A text encoder of these sizes, which finds the end of a prompt where this tokenizer sets it."""
    return CLIPTextConfig(
        **values,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
