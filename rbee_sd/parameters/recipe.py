"""Settings of a picture as fields of our requests: from the text of other programs, and from our own exact JSON. Pure.

Only what a request could hold is taken over; whether a worker has the model, or takes so many steps, is its to judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import orjson

from rbee_sd.parameters.infotext import Infotext
from rbee_sd.samplers import scheduler_of

MAX_WHOLE = 2**63 - 1
SIZE = re.compile(r"([0-9]{1,5})\s?x\s?([0-9]{1,5})")
WHOLE = re.compile(r"[0-9]{1,19}")
NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{0,20})?")
LORA = re.compile(r"\s?<lora:([^:<>]{1,200})(?::(-?[0-9.]{1,20}))?(?::[^<>]{0,200})?>")
"""How a LoRA is named within a prompt; the second number, for the text encoder, is not one of ours."""
TEXTS = ("operation", "prompt", "negative_prompt", "scheduler", "model")
WHOLES = ("seed", "steps", "width", "height")
NUMBERS = ("guidance_scale", "strength")


def fields_of(info: Infotext) -> dict[str, Any]:
    """What of a text has a field; none of a text without settings."""
    settings = info.settings
    if not settings:
        return {}
    found: dict[str, Any] = {"prompt": LORA.sub("", info.prompt).strip()}
    if info.negative_prompt:
        found["negative_prompt"] = info.negative_prompt
    width, height = _size(settings.get("Size", ""))
    # Forge tells of FLUX both: the guidance that the model takes, and the other one, which is then 1.
    guidance = settings.get("Distilled CFG Scale", settings.get("CFG scale", ""))
    # With a second pass ("Hires upscale") it is that pass which has a strength.
    strength = "" if "Hires upscale" in settings else settings.get("Denoising strength", "")
    values = {
        "steps": _whole(settings["Steps"]),
        "guidance_scale": _number(guidance),
        "seed": _whole(settings.get("Seed", "")),
        "width": width,
        "height": height,
        "scheduler": scheduler_of(settings.get("Sampler", ""), settings.get("Schedule type", "")),
        "model": settings.get("Model") or None,
        "strength": _number(strength),
        "loras": _loras(info.prompt) or None,
    }
    return found | {name: value for name, value in values.items() if value is not None}


def checked(text: str) -> dict[str, Any]:
    """The fields in our own JSON. Raises `ValueError` where it holds anything else than we write."""
    try:
        values = orjson.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError("the settings in the image file are damaged")
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(TEXTS, lambda value: isinstance(value, str)),
        **dict.fromkeys(WHOLES, lambda value: type(value) is int and 0 <= value <= MAX_WHOLE),
        **dict.fromkeys(NUMBERS, _is_number),
        "loras": _are_loras,
    }
    found = {name: value for name, value in values.items() if name in checks}
    if not all(checks[name](value) for name, value in found.items()):
        raise ValueError("the settings in the image file are damaged")
    return found


def _loras(prompt: str) -> list[dict[str, Any]]:
    """The LoRAs named in a prompt, each once."""
    found: dict[str, dict[str, Any]] = {}
    for name, scale in LORA.findall(prompt):
        number = _number(scale)
        found.setdefault(name, {"name": name, "scale": 1.0 if number is None else number})
    return list(found.values())


def _size(text: str) -> tuple[int, int] | tuple[None, None]:
    size = SIZE.fullmatch(text)
    return (int(size[1]), int(size[2])) if size else (None, None)


def _whole(text: str) -> int | None:
    return int(text) if WHOLE.fullmatch(text) and int(text) <= MAX_WHOLE else None


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text) else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_loras(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and set(each) == {"name", "scale"}
        and isinstance(each["name"], str)
        and _is_number(each["scale"])
        for each in value
    )
