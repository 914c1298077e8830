"""The kinds of models that the engine runs: which diffusers pipeline does which operation, and how it is called.

Read in the engine process. Adding a kind is adding a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rbee_sd.messages import INPAINT, MULTIPLE, TEXT, TRANSFORM


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model. `pipelines` maps operations to class names; the first that loads a model is its own.

    `denoiser` is the name of the part whose forwards are shared. `flow`: its schedulers are those of flow matching.
    `negative`: it takes a negative prompt. `upcasts`: its VAE overflows in float16. `half` is the number format that
    suits it on a GPU. `multiple`: of what the sides must be.
    """

    name: str
    pipelines: Mapping[str, str]
    denoiser: str = "unet"
    steps: int = 20
    guidance_scale: float = 7.5
    flow: bool = False
    negative: bool = True
    upcasts: bool = False
    half: str = "float16"
    multiple: int = MULTIPLE


FAMILIES = (
    Family(
        "stable-diffusion",
        {
            TEXT: "StableDiffusionPipeline",
            TRANSFORM: "StableDiffusionImg2ImgPipeline",
            INPAINT: "StableDiffusionInpaintPipeline",
        },
    ),
    Family(
        "stable-diffusion-xl",
        {
            TEXT: "StableDiffusionXLPipeline",
            TRANSFORM: "StableDiffusionXLImg2ImgPipeline",
            INPAINT: "StableDiffusionXLInpaintPipeline",
        },
        steps=30,
        guidance_scale=5.0,
        upcasts=True,
    ),
    Family(
        "stable-diffusion-3",
        {TEXT: "StableDiffusion3Pipeline"},
        denoiser="transformer",
        steps=28,
        guidance_scale=7.0,
        flow=True,
        half="bfloat16",
        multiple=16,
    ),
    Family(
        "flux",
        {TEXT: "FluxPipeline"},
        denoiser="transformer",
        steps=28,
        guidance_scale=3.5,
        flow=True,
        negative=False,
        half="bfloat16",
        multiple=16,
    ),
)


def family_of(pipeline: str) -> Family | None:
    """The family to which a diffusers pipeline class belongs; None for one that the engine does not run."""
    return next((family for family in FAMILIES if pipeline in family.pipelines.values()), None)
