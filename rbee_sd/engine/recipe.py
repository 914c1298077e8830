"""How a picture was made: as an object, and as the text that other tools read.

Runs in the engine process; pure.
"""

from __future__ import annotations

import json
from typing import Any

from rbee_sd import __version__
from rbee_sd.engine.pipeline import Plan
from rbee_sd.samplers import SAMPLERS


def recipe(plan: Plan, seed: int, model: str, *, negative: bool) -> dict[str, Any]:
    """Everything that makes this picture again. `negative`: whether the model took the negative prompt."""
    work = plan.work
    made_by: dict[str, Any] = {
        "operation": work.operation,
        "prompt": work.prompt,
        "negative_prompt": work.negative_prompt if negative else "",
        "seed": seed,
        "steps": plan.steps,
        "guidance_scale": plan.guidance_scale,
        "width": plan.width,
        "height": plan.height,
        "scheduler": plan.scheduler,
        "model": model,
        "loras": [{"name": name, "scale": scale} for name, scale in zip(work.loras, work.lora_scales, strict=True)],
    }
    return made_by if plan.strength is None else made_by | {"strength": plan.strength}


def parameters(made_by: dict[str, Any]) -> str:
    """A recipe as AUTOMATIC1111's web UI writes it: prompt, negative prompt, and a line that begins with Steps."""
    sampler, schedule = SAMPLERS.get(made_by["scheduler"], (made_by["scheduler"], ""))
    fields = {
        "Steps": made_by["steps"],
        "Sampler": sampler,
        "Schedule type": schedule or None,
        "CFG scale": made_by["guidance_scale"],
        "Seed": made_by["seed"],
        "Size": f"{made_by['width']}x{made_by['height']}",
        "Model": _quoted(made_by["model"]),
        "Denoising strength": made_by.get("strength"),
        "Version": f"rbee-sd {__version__}",
    }
    loras = "".join(f" <lora:{each['name']}:{each['scale']:g}>" for each in made_by["loras"])
    lines = [made_by["prompt"] + loras]
    if made_by["negative_prompt"]:
        lines.append(f"Negative prompt: {made_by['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """Values with the characters that separate fields are written as JSON strings."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',:\n"') else value
