"""The schedulers by the names people use, each a diffusers class built from the model's own configuration.

Runs in the engine process. The names are in `messages.SCHEDULERS`, where the front can see them.
"""

from __future__ import annotations

from typing import Any

import diffusers

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    # Models for Stable Diffusion are trained without clipping and end at the first alpha; DDIM's own defaults differ.
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    # Its Runge-Kutta warm-up cannot do fewer than four steps, and costs nine forwards more.
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def make_scheduler(name: str | None, own: Any, steps: int) -> tuple[str, Any]:
    """A new scheduler for one job of so many steps, and its name; without a name, one like the model's `own`."""
    if name is None:
        return name_of(own), type(own).from_config(own.config)
    class_name, changes = CLASSES[name]
    if name == "lcm":
        changes = {"original_inference_steps": _lcm_grid(steps, own.config.num_train_timesteps)}
    return name, getattr(diffusers, class_name).from_config(own.config, **changes)


def _lcm_grid(steps: int, train_steps: int) -> int:
    """Points of the grid from which LCM takes its steps: the 50 it was distilled with, or as many as it needs."""
    return max(50, train_steps // max(1, train_steps // steps))


def name_of(scheduler: Any) -> str:
    """The name people use for a scheduler, or its class name where there is none."""
    kind = type(scheduler).__name__
    karras = bool(scheduler.config.get("use_karras_sigmas", False))
    for name, (class_name, changes) in CLASSES.items():
        if class_name == kind and changes.get("use_karras_sigmas", karras) == karras:
            return name
    return kind
