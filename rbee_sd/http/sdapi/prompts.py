"""Prompts of AUTOMATIC1111's dialect: LoRAs are named in the text, as `<lora:NAME:SCALE>`. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

LORA = re.compile(r"\s?<lora:([^:<>]{1,200})(?::([^<>]{0,200}))?>")
MAX_NOTES = 20
SCALE = re.compile(r"-?(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})")


def split(prompt: str, known: Collection[str]) -> tuple[str, list[dict[str, Any]], list[str]]:
    """A prompt without its LoRAs, those of them that are known, and sentences on the others.

    As in the original, one that is not there is left out and the picture is made. The later of two of one name counts,
    and so does only the first number of several.
    """
    scales: dict[str, float] = {}
    notes: list[str] = []
    for name, numbers in LORA.findall(prompt):
        first = numbers.partition(":")[0].strip()
        if name not in known:
            notes.append(f"there is no LoRA {name!r} here; the picture is made without it")
        elif first and not SCALE.fullmatch(first):
            notes.append(f"{first!r} is no scale; the picture is made without the LoRA {name!r}")
        else:
            scales[name] = float(first or 1)
    loras = [{"name": name, "scale": scale} for name, scale in scales.items()]
    return LORA.sub("", prompt).strip(), loras, list(dict.fromkeys(notes))[:MAX_NOTES]
