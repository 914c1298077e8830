"""From a request of AUTOMATIC1111's dialect to the fields of an operation of ours. Pure functions.

What would be another kind of picture without it (a second pass, scripts) and cannot be had is refused, as the original
refuses scripts it does not have. What only colours a picture is left out, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.http.sdapi import prompts
from rbee_sd.http.sdapi.requests import Img2Img, Txt2Img
from rbee_sd.messages import INPAINT, TEXT, TRANSFORM
from rbee_sd.operations.body import invalid
from rbee_sd.operations.limits import Limits
from rbee_sd.samplers import SAMPLERS, scheduler_of

FITS = ("stretch", "crop", "fill", "stretch")
"""Ours, for each `resize_mode`; the last one is for latents, which are not resized here."""
LATENT_RESIZE = 3
FILL_ORIGINAL = 1
AUTOMATIC = "automatic"


def fields_of(request: Txt2Img, limits: Limits, model: str | None) -> tuple[dict[str, Any], list[str]]:
    """The fields of a job, and sentences on what of the request is not in them. Raises `RequestError`."""
    _refuse(request)
    prompt, loras, notes = prompts.split(request.prompt, limits.loras)
    scheduler, about_scheduler = _scheduler(request, limits.schedulers)
    fields = {
        "operation": TEXT,
        # The original draws something for an empty prompt; ours must have a character.
        "prompt": prompt or " ",
        "negative_prompt": request.negative_prompt,
        "steps": request.steps,
        "guidance_scale": request.cfg_scale,
        "width": _whole(request.width, limits.multiple),
        "height": _whole(request.height, limits.multiple),
        "seed": None if request.seed == -1 else request.seed,
        "count": request.batch_size * request.n_iter,
        "scheduler": scheduler,
        "loras": loras,
        "model": model,
        # For those who ask for the progress.
        "preview": True,
    }
    if isinstance(request, Img2Img):
        fields |= _image_fields(request)
    notes += [*about_scheduler, *_about_size(request, fields), *_ignored(request)]
    return {name: value for name, value in fields.items() if value is not None}, notes


def _image_fields(request: Img2Img) -> dict[str, Any]:
    if not request.init_images:
        raise RequestError(404, "image_not_found", "init_images holds no image")
    if len(request.init_images) > 1:
        raise invalid([FieldError("init_images", "one", "send one image; each is a request of its own")])
    fields: dict[str, Any] = {
        "operation": TRANSFORM,
        "image": request.init_images[0],
        "strength": request.denoising_strength,
        "fit": FITS[request.resize_mode],
    }
    if not request.mask:
        return fields
    return fields | {
        "operation": INPAINT,
        "mask": request.mask,
        "mask_means": "black" if request.inpainting_mask_invert else "white",
        "mask_blur": request.mask_blur,
    }


def _refuse(request: Txt2Img) -> None:
    wrong = []
    if request.enable_hr:
        text = "this worker makes no second pass; turn it off, and ask for the size itself in width and height"
        wrong.append(FieldError("enable_hr", "unsupported", text))
    if request.script_name:
        wrong.append(FieldError("script_name", "unsupported", f"there is no script {request.script_name[:100]!r} here"))
    if request.alwayson_scripts:
        names = ", ".join(repr(name[:100]) for name in request.alwayson_scripts)
        wrong.append(FieldError("alwayson_scripts", "unsupported", f"there is no script {names} here"))
    if wrong:
        raise invalid(wrong)


def _scheduler(request: Txt2Img, known: Collection[str]) -> tuple[str | None, list[str]]:
    """Our scheduler for the sampler, or None for the model's own, and what is to be said of it."""
    sampler, schedule = request.sampler_name or request.sampler_index, request.scheduler or AUTOMATIC
    if sampler.lower() in ("", AUTOMATIC):
        return None, []
    found = next((each for each in (scheduler_of(sampler, schedule), scheduler_of(sampler)) if each in known), None)
    if found is None:
        return None, [f"there is no sampler {sampler[:100]!r} here; the model's own is taken"]
    if schedule.lower() in (AUTOMATIC, SAMPLERS[found][1].lower()):
        return found, []
    return found, [f"the sampler {sampler[:100]!r} has no schedule {schedule[:100]!r} here; its ordinary one is taken"]


def _whole(side: int | None, multiple: int) -> int | None:
    return None if side is None else side - side % multiple


def _about_size(request: Txt2Img, fields: dict[str, Any]) -> list[str]:
    asked = {"width": request.width, "height": request.height}
    return [
        f"the {name} {side} is rounded down to {fields[name]}" for name, side in asked.items() if side != fields[name]
    ]


def _ignored(request: Txt2Img) -> list[str]:
    """What is asked for beyond its default, and left out."""
    overrides = request.override_settings
    asked = {
        "styles": any(request.styles),
        "subseed_strength": request.subseed_strength > 0,
        "clip_skip": max(request.clip_skip, overrides.CLIP_stop_at_last_layers or 1) > 1,
        "restore_faces": request.restore_faces,
        "tiling": request.tiling,
        "refiner_checkpoint": request.refiner_checkpoint not in ("", "None"),
        "sd_vae": (overrides.sd_vae or "Automatic") not in ("Automatic", "None"),
    }
    if isinstance(request, Img2Img):
        asked |= {
            "resize_mode 3": request.resize_mode == LATENT_RESIZE,
            "inpainting_fill": bool(request.mask) and request.inpainting_fill != FILL_ORIGINAL,
            "inpaint_full_res": bool(request.mask) and request.inpaint_full_res,
        }
    return [f"{name} is ignored by this worker" for name, is_asked in asked.items() if is_asked]
