"""The schedulers by the names people use, each a diffusers class built from the model's own configuration.

Runs in the engine process. The names are in `messages.SCHEDULERS`, where the front can see them.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import diffusers

Row = tuple[str, dict[str, Any]]

_DPM = {"algorithm_type": "dpmsolver++"}
CLASSES: dict[str, Row] = {
    # Models for Stable Diffusion are trained without clipping and end at the first alpha; DDIM's own defaults differ.
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", _DPM | {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", _DPM | {"use_karras_sigmas": True}),
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


class Schedulers:
    """Makes the schedulers of one model, whose `own` stands for jobs that name none."""

    def __init__(self, own: Any, *, flow: bool = False) -> None:
        self._own = own
        self._classes = FLOW_CLASSES if flow else CLASSES
        self._fresh: dict[tuple[str | None, int], Any] = {}
        self.names = tuple(self._classes)
        self.default = self._default()

    def make(self, name: str | None, steps: int) -> Any:
        """A new scheduler for one job of so many steps."""
        grid = 0
        if name == "lcm" and self._classes is CLASSES:
            grid = _lcm_grid(steps, self._own.config.num_train_timesteps)
        if (name, grid) not in self._fresh:
            self._fresh[name, grid] = self._build(name, grid)
        # A copy takes a fifth of the time of building one.
        return copy.deepcopy(self._fresh[name, grid])

    def _build(self, name: str | None, grid: int) -> Any:
        own = self._own.config
        if name is None:
            return type(self._own).from_config(own)
        class_name, changes = self._classes[name]
        if grid:
            changes = {"original_inference_steps": grid}
        if changes.get("use_flow_sigmas"):
            changes = changes | {"flow_shift": own.get("shift") or 1.0}
        made = getattr(diffusers, class_name).from_config(own, **changes)
        if self._classes is FLOW_CLASSES:
            _become(made, _with_own_shift)
        return made

    def _default(self) -> str:
        """The name people use for the model's own, or its class name where there is none."""
        kind = type(self._own).__name__
        for name, (class_name, changes) in self._classes.items():
            if class_name == kind and all(self._own.config.get(key) == value for key, value in changes.items()):
                return name
        return kind


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
