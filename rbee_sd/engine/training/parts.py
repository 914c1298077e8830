"""The parts of the demo model before training: its sizes and its vocabulary, in diffusers' and transformers' classes.

They become a `StableDiffusionPipeline` in the ordinary diffusers layout, like any other model.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from diffusers import (
    AutoencoderTiny,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rbee_sd.engine.training.captions import WORDS

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
PROMPT_TOKENS = 77
TEXT_WIDTH = 96
SIDE = 128
"""Pixels of the pictures it is trained on, and makes unless told otherwise."""
VAE_SCALE = 8
LATENT_CHANNELS = 4
"""Four, as diffusers wants it for inpainting with a model that is not made for inpainting alone."""

GUIDANCE = 3.0
"""What it wants unless told otherwise; so small a model follows anyway, and more makes other colours of its colours."""

NOISE = {
    "num_train_timesteps": 1000,
    # Ends in next to nothing but noise, so that the colour of a background can be learnt, and every scheduler has it.
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    # The pipeline insists on it; with trailing timesteps it has no effect.
    "steps_offset": 1,
}


def save(folder: Path, vae: AutoencoderTiny, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
    """Write the pipeline into `folder`, weights in half precision. The modules are in half precision afterwards."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        # A new one: one that has been used remembers how.
        tokenizer=build_tokenizer(),
        unet=unet.half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # Whoever loads the folder without naming a number format gets one: diffusers reads weights as float32 then, and
    # transformers as the configuration says.
    _configure(folder / "text_encoder" / "config.json", dtype="float32")
    # The class writes it, does not know it when it reads it, and complains.
    _configure(folder / "vae" / "config.json", block_out_channels=None, _name_or_path=None)
    # Where an improved one came from is nobody's business.
    _configure(folder / "unet" / "config.json", _name_or_path=None)
    _configure(folder / "model_index.json", _defaults={"guidance_scale": GUIDANCE})


def _configure(path: Path, **changes: object) -> None:
    """Change keys of a configuration; None removes one."""
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in config.items() if key not in changes or value is not None}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer over a small vocabulary that covers every byte, so that no text is unknown."""
    # In code point order the byte symbols stand exactly as in CLIP's published vocabulary.
    symbols = sorted(ByteLevel.alphabet())
    merges = learn_merges(WORDS)
    pieces = [
        *symbols,
        *(symbol + WORD_END for symbol in symbols),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        model_max_length=PROMPT_TOKENS,
    )


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) until each word is one piece; ties go alphabetically."""
    spellings = [[*word[:-1], word[-1] + WORD_END] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for pieces in spellings for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = [merge(pieces, best) for pieces in spellings]
    return merges


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """`pieces` with each neighbouring `pair` joined, from left to right."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Token ids (rows, 77) to hidden states (rows, 77, 96)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Latents (rows, 4, height / 8, width / 8) with noise, timesteps and hidden states to what turns them (v)."""
    return UNet2DConditionModel(
        sample_size=SIDE // VAE_SCALE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,  # diffusers takes it as the number of heads
        cross_attention_dim=TEXT_WIDTH,
        # What a caption says as a whole steers every block, besides the attention to its words: colours, places and
        # shapes are learnt in a fraction of the steps.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def build_autoencoder() -> AutoencoderTiny:
    """Pictures (rows, 3, height, width) in -1..1 to latents (rows, 4, height / 8, width / 8), and back."""
    channels = (24, 24, 24, 24)
    return AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=(0, 1, 2, 2),
        num_decoder_blocks=(3, 3, 2, 1),
        latent_channels=LATENT_CHANNELS,
    )


def build_noise() -> DDPMScheduler:
    """How pictures are made noisy in training."""
    return DDPMScheduler(**NOISE)


def build_scheduler() -> EulerDiscreteScheduler:
    """How they are made of noise, unless a job names another scheduler."""
    return EulerDiscreteScheduler.from_config(build_noise().config, timestep_spacing="trailing")
