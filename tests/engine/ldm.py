"""Writes a diffusers folder as one checkpoint under the names of the original Stable Diffusion code (LDM).

The layout in which checkpoints are handed around: `model.diffusion_model.` (UNet), `first_stage_model.` (VAE) and
`cond_stage_model.transformer.text_model.` (CLIP's text half) in one safetensors file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]

UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def write_checkpoint(folder: Path, file: Path) -> Path:
    """Write the Stable Diffusion 1.x model in `folder` to `file`, and return that."""
    save_file(checkpoint(folder), file)
    return file


def checkpoint(folder: Path) -> Weights:
    """All the weights of the model in `folder`, and the tables that the original code keeps beside them."""
    unet, vae = _config(folder / "unet"), _config(folder / "vae")
    weights: Weights = {}
    for name, tensor in _read(folder / "unet").items():
        weights["model.diffusion_model." + unet_name(name, unet)] = tensor
    for name, tensor in _read(folder / "vae").items():
        new = vae_name(name, len(vae["block_out_channels"]))
        # The original's attention is made of 1 x 1 convolutions.
        is_projection = ".attn_1." in new and tensor.ndim == 2
        weights["first_stage_model." + new] = tensor[:, :, None, None] if is_projection else tensor
    clip = "cond_stage_model.transformer.text_model."
    for name, tensor in _read(folder / "text_encoder").items():
        weights[clip + name.removeprefix("text_model.")] = tensor
    positions = len(weights[clip + "embeddings.position_embedding.weight"])
    weights[clip + "embeddings.position_ids"] = torch.arange(positions)[None]
    weights["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    weights["alphas_cumprod"] = torch.cumprod(1 - weights["betas"], 0)
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def unet_name(name: str, config: dict[str, Any]) -> str:
    """The original name of a UNet weight; `config` is the UNet's configuration."""
    # The original counts through: every block takes this many places, and the first input is the convolution.
    places = config["layers_per_block"] + 1
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        direction, block, kind, layer, rest = match.groups()
        place = int(block) * places + int(layer)
        where = f"input_blocks.{place + 1}" if direction == "down" else f"output_blocks.{place}"
        return f"{where}.0.{_in_resnet(rest)}" if kind == "resnets" else f"{where}.1.{rest}"
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{(int(match[1]) + 1) * places}.0.op.{match[2]}"
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", name):
        block = int(match[1])
        # It stands behind the block's last attention, or in its place.
        behind = 2 if config["up_block_types"][block].startswith("CrossAttn") else 1
        return f"output_blocks.{(block + 1) * places - 1}.{behind}.conv.{match[2]}"
    for start, new in UNET_ENDS.items():
        if name.startswith(start + "."):
            rest = name.removeprefix(start + ".")
            return f"{new}.{_in_resnet(rest) if '.resnets.' in start else rest}"
    raise KeyError(name)


def vae_name(name: str, blocks: int) -> str:
    """The original name of a VAE weight. The original counts the decoder's `blocks` from the picture inwards."""
    name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{blocks - 1 - int(match[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    for old, new in (
        ("down_blocks.", "down."),
        (".resnets.", ".block."),
        ("mid_block.attentions.0", "mid.attn_1"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ):
        name = name.replace(old, new)
    for old, new in VAE_ATTENTION.items():
        name = name.replace(f".attn_1.{old}.", f".attn_1.{new}.")
    return name


def _in_resnet(rest: str) -> str:
    part, _, leaf = rest.partition(".")
    return f"{UNET_RESNET[part]}.{leaf}"


def _read(component: Path) -> Weights:
    (file,) = component.glob("*.safetensors")
    weights: Weights = load_file(file)
    return weights


def _config(component: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((component / "config.json").read_text(encoding="utf-8"))
    return config
