"""The schedulers by the names people use, each a diffusers class built from the model's own configuration.

Runs in the engine process. The names are in `messages.SCHEDULERS`, where the front can see them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import diffusers

Row = tuple[str, dict[str, Any]]

CLASSES: dict[str, Row] = {
    # Models for Stable Diffusion are trained without clipping and end at the first alpha; DDIM's own defaults differ.
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    # Its noise comes from the job's own generator; DPMSolverSDEScheduler would draw it from a tree of its own.
    "dpmpp_sde": ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    # Its Runge-Kutta warm-up cannot do fewer than four steps, and costs nine forwards more.
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
FLOW_CLASSES: dict[str, Row] = {
    "dpmpp_2m": ("DPMSolverMultistepScheduler", _FLOW),
    "dpmpp_sde": ("DPMSolverSinglestepScheduler", _FLOW | {"algorithm_type": "sde-dpmsolver++"}),
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "lcm": ("FlowMatchLCMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", _FLOW),
}
"""For models trained by flow matching (SD3, FLUX)."""


def make_scheduler(name: str | None, own: Any, steps: int, *, flow: bool = False) -> tuple[str, Any]:
    """A new scheduler for one job of so many steps, and its name; without a name, one like the model's `own`."""
    if name is None:
        return name_of(own, flow=flow), type(own).from_config(own.config)
    class_name, changes = (FLOW_CLASSES if flow else CLASSES)[name]
    if name == "lcm" and not flow:
        changes = {"original_inference_steps": _lcm_grid(steps, own.config.num_train_timesteps)}
    if changes.get("use_flow_sigmas"):
        changes = changes | {"flow_shift": own.config.get("shift") or 1.0}
    made = getattr(diffusers, class_name).from_config(own.config, **changes)
    if flow:
        _become(made, _with_own_shift)
    return name, made


def keep_timesteps_on_cpu(scheduler: Any) -> None:
    """Have a job's scheduler make its timesteps on the CPU, whatever its pipeline asks for.

    Several schedulers look at the timestep in every step, and on a GPU each look waits for all that was asked of it.
    """
    _become(scheduler, _on_cpu)


def draw_from(scheduler: Any, generator: Any) -> None:
    """Have a job's scheduler take its noise from this generator, where a pipeline hands it none.

    Those of flow matching do not; the noise would come from random numbers that all jobs share.
    """
    if "generator" in inspect.signature(scheduler.step).parameters:
        _become(scheduler, _drawing)
        scheduler._generator = generator


def _become(scheduler: Any, change: Callable[[Any], Any]) -> None:
    # By its class: a method put on a scheduler would hold it for the garbage collector, and it holds tensors that a
    # cancelled job is to let go of at once.
    kind: Any = type(scheduler)
    scheduler.__class__ = change(kind)


@functools.cache
def _on_cpu(kind: Any) -> Any:
    @functools.wraps(kind.set_timesteps)
    def set_timesteps(self: Any, *arguments: Any, **named: Any) -> None:
        kind.set_timesteps(self, *arguments, **{**named, "device": "cpu"})

    return type(kind.__name__, (kind,), {"set_timesteps": set_timesteps})


@functools.cache
def _drawing(kind: Any) -> Any:
    @functools.wraps(kind.step)
    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        return kind.step(self, *arguments, **{"generator": self._generator, **named})

    return type(kind.__name__, (kind,), {"step": step})


@functools.cache
def _with_own_shift(kind: Any) -> Any:
    """Without the shift that FLUX's pipeline offers to every scheduler, where the model wants none."""

    @functools.wraps(kind.set_timesteps)
    def set_timesteps(self: Any, *arguments: Any, **named: Any) -> None:
        if not self.config.get("use_dynamic_shifting"):
            named.pop("mu", None)
        kind.set_timesteps(self, *arguments, **named)

    return type(kind.__name__, (kind,), {"set_timesteps": set_timesteps})


def _lcm_grid(steps: int, train_steps: int) -> int:
    """Points of the grid from which LCM takes its steps: the 50 it was distilled with, or as many as it needs."""
    return max(50, train_steps // max(1, train_steps // steps))


def name_of(scheduler: Any, *, flow: bool = False) -> str:
    """The name people use for a scheduler, or its class name where there is none."""
    kind = type(scheduler).__name__
    karras = bool(scheduler.config.get("use_karras_sigmas", False))
    for name, (class_name, changes) in (FLOW_CLASSES if flow else CLASSES).items():
        if class_name == kind and changes.get("use_karras_sigmas", karras) == karras:
            return name
    return kind
