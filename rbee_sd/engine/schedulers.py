"""The schedulers by the names people use, each a diffusers class built from the model's own configuration.

Runs in the engine process. The names are in `messages.SCHEDULERS`, where the front can see them.
"""

from __future__ import annotations

from typing import Any

import diffusers

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def make_scheduler(name: str | None, own: Any) -> tuple[str, Any]:
    """A new scheduler for one job, and its name; without a name, one like the model's `own`."""
    if name is None:
        return name_of(own), type(own).from_config(own.config)
    class_name, changes = CLASSES[name]
    return name, getattr(diffusers, class_name).from_config(own.config, **changes)


def name_of(scheduler: Any) -> str:
    """The name people use for a scheduler, or its class name where there is none."""
    kind = type(scheduler).__name__
    karras = bool(scheduler.config.get("use_karras_sigmas", False))
    for name, (class_name, changes) in CLASSES.items():
        if class_name == kind and changes.get("use_karras_sigmas", karras) == karras:
            return name
    return kind
