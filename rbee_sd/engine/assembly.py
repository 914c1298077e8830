"""From a loaded pipeline to a model that the engine can share: what suits the device, a pipeline for each operation.

Runs on the engine's main thread and blocks it: the number of rows that pay is measured here.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderTiny
from diffusers.models.attention_processor import AttnProcessor

from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.denoiser import SharedDenoiser
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.families import Family
from rbee_sd.engine.knee import CurveFile
from rbee_sd.engine.loras import Loras
from rbee_sd.engine.pipeline import ModelError
from rbee_sd.engine.previews import Previews
from rbee_sd.engine.prompts import PromptCache
from rbee_sd.messages import INPAINT

log = logging.getLogger(__name__)

INPAINTING_CHANNELS = 9
"""Input channels of a UNet that was trained to inpaint: picture, mask, and the picture without what the mask hides."""


def assemble(config: EngineConfig, family: Family, pipe: Any, device: torch.device) -> Diffusion:
    """The model of a pipeline that is on its device. Raises `ModelError`."""
    pipe.set_progress_bar_config(disable=True)
    pipes = _pipes(family, pipe)
    module = getattr(pipe, family.denoiser)
    _suit(config, family, pipe, module)
    # One that is not on disk gives no LoRA, so the pipeline need not be asked.
    loras = Loras(pipe, dict(config.loras))
    denoiser = SharedDenoiser(
        module,
        loras,
        max_rows=config.max_rows,
        measured_rows=config.measured_rows,
        curves=CurveFile(Path(config.curves) if config.curves else None),
        backend=config.compiler,
    )
    return Diffusion(
        config.name,
        family,
        pipes,
        denoiser=denoiser,
        loras=loras,
        prompts=PromptCache(pipe.encode_prompt, config.prompt_cache),
        previews=Previews(pipe.vae, _tiny(config, module, pipe.vae) if config.taesd else None),
        max_jobs=config.max_jobs,
        max_side=config.max_side,
        tiling=config.vae_tiling,
    )


def _pipes(family: Family, pipe: Any) -> dict[str, Any]:
    """A pipeline for each operation that the model can do, all over the same parts."""
    module = getattr(pipe, family.denoiser)
    operations = dict(family.pipelines)
    if getattr(module.config, "in_channels", None) == INPAINTING_CHANNELS:
        operations = {INPAINT: operations[INPAINT]}
    pipes = {}
    # It warns of parts to be kept in another number format, and names none.
    logging.getLogger("diffusers.models.modeling_utils").setLevel(logging.ERROR)
    for operation, name in operations.items():
        kind = getattr(diffusers, name)
        # Without a number format it would turn the shared parts into float32, and it leaves out a VAE of another class
        # than most have (AutoencoderTiny), unless it is given.
        pipes[operation] = pipe if type(pipe) is kind else kind.from_pipe(pipe, dtype=module.dtype, vae=pipe.vae)
        pipes[operation].set_progress_bar_config(disable=True)
    return pipes


def _suit(config: EngineConfig, family: Family, pipe: Any, module: Any) -> None:
    """Bring the parts into the form that suits the device."""
    if family.upcasts and pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
        # Once and for all. The pipelines would do it for each picture, and undo it while others are parked.
        pipe.vae.to(torch.float32)
    if config.channels_last:
        for part in (module, pipe.vae):
            part.to(memory_format=torch.channels_last)
    if config.attention == "plain":
        for part in (module, pipe.vae):
            if not hasattr(part, "set_attn_processor") or family.denoiser != "unet":
                log.warning("%s has no plain attention; it keeps its own", type(part).__name__)
            else:
                part.set_attn_processor(AttnProcessor())


def _tiny(config: EngineConfig, module: Any, vae: Any) -> AutoencoderTiny:
    path = os.path.expanduser(config.taesd)
    try:
        tiny = AutoencoderTiny.from_pretrained(path, dtype=module.dtype, use_safetensors=True, local_files_only=True)
    except Exception as error:
        log.exception("cannot load the TAESD %s", path)
        raise ModelError("the TAESD for previews cannot be loaded; see the setting taesd") from error
    if tiny.config.latent_channels != vae.config.latent_channels:
        raise ModelError("the TAESD for previews is made for another kind of model; see the setting taesd")
    return tiny.to(module.device)
