"""A very small model of each family the engine runs, written as folders in diffusers' layout.

Random weights from a fixed seed; the real classes with the real wiring, so that what is loaded, shared and painted is
what it would be for a published model. A forward takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from rbee_sd.engine.training.parts import build_tokenizer

SIDE = 16
"""Of the latents that a model of these wants."""
WIDTH = 32
"""Of a text encoder."""


def write(kind: str, folder: Path) -> Path:
    """Write the model of this kind (a key of `KINDS`) into `folder`, and return that."""
    torch.manual_seed(sorted(KINDS).index(kind))
    KINDS[kind]().save_pretrained(folder, safe_serialization=True)
    return folder


def write_taesd(folder: Path) -> Path:
    """Write a TAESD with random weights into `folder`, and return that."""
    torch.manual_seed(99)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    tiny.save_pretrained(folder, safe_serialization=True)
    return folder


def unet(**changes: Any) -> UNet2DConditionModel:
    """A UNet with one block with attention and one without."""
    values: dict[str, Any] = {
        "sample_size": SIDE,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 2,
        "cross_attention_dim": WIDTH,
    }
    return UNet2DConditionModel(**values | changes)


def vae(**changes: Any) -> AutoencoderKL:
    """Pictures to latents of an eighth of the size."""
    values: dict[str, Any] = {
        "sample_size": 128,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return AutoencoderKL(**values | changes)


def euler() -> EulerDiscreteScheduler:
    """Euler over the noise levels of Stable Diffusion 1.x."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="leading",
        steps_offset=1,
    )


def clip(kind: Any, tokenizer: CLIPTokenizer, seed: int = 0) -> Any:
    """A CLIP text encoder of this class."""
    torch.manual_seed(1000 + seed)
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5(width: int) -> tuple[Any, Any]:
    """A T5 encoder and its tokenizer: letters and a few words."""
    letters = [(letter, -8.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    words = [(f"▁{word}", -2.0) for word in ["a", "red", "green", "blue", "circle", "heart", "on", "background"]]
    tokenizer = T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *letters, *words], extra_ids=0, model_max_length=64
    )
    encoder = T5EncoderModel(
        T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2, dropout_rate=0.0)
    )
    return encoder, tokenizer


def _stable_diffusion(kind: Any = StableDiffusionPipeline, scheduler: Any = None, **changes: Any) -> Any:
    tokenizer = build_tokenizer()
    return kind(
        vae=vae(),
        text_encoder=clip(CLIPTextModel, tokenizer),
        tokenizer=tokenizer,
        unet=unet(**changes),
        scheduler=scheduler or euler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_2() -> Any:
    scheduler = EulerDiscreteScheduler.from_config(euler().config, prediction_type="v_prediction")
    return _stable_diffusion(scheduler=scheduler, attention_head_dim=[2, 4], use_linear_projection=True)


def _inpainting() -> Any:
    return _stable_diffusion(StableDiffusionInpaintPipeline, in_channels=9)


def _lcm() -> Any:
    scheduler = LCMScheduler.from_config(euler().config)
    return _stable_diffusion(scheduler=scheduler, time_cond_proj_dim=16)


def _xl() -> Any:
    tokenizer = build_tokenizer()
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(CLIPTextModel, tokenizer, 1),
        text_encoder_2=clip(CLIPTextModelWithProjection, tokenizer, 2),
        tokenizer=tokenizer,
        tokenizer_2=build_tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        scheduler=euler(),
    )


def _sd3() -> Any:
    tokenizer = build_tokenizer()
    t5_encoder, t5_tokenizer = t5(2 * WIDTH)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=SIDE,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(CLIPTextModelWithProjection, tokenizer, 1),
        tokenizer=tokenizer,
        text_encoder_2=clip(CLIPTextModelWithProjection, tokenizer, 2),
        tokenizer_2=build_tokenizer(),
        text_encoder_3=t5_encoder,
        tokenizer_3=t5_tokenizer,
    )


def _flux(*, distilled: bool = False) -> Any:
    """Like FLUX.1-dev; `distilled` like FLUX.1-schnell, without guidance and with an ordinary schedule."""
    tokenizer = build_tokenizer()
    t5_encoder, t5_tokenizer = t5(WIDTH)
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=not distilled,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0 if distilled else 3.0, use_dynamic_shifting=not distilled),
        vae=vae(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(CLIPTextModel, tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder,
        tokenizer_2=t5_tokenizer,
    )


KINDS: dict[str, Callable[[], Any]] = {
    "sd1": _stable_diffusion,
    "sd2": _stable_diffusion_2,
    "inpainting": _inpainting,
    "lcm": _lcm,
    "sdxl": _xl,
    "sd3": _sd3,
    "flux": _flux,
    "flux-distilled": lambda: _flux(distilled=True),
}
