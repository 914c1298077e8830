"""What a model's `model_index.json` may name. Pure; knows neither torch nor diffusers, so a download can ask too."""

from __future__ import annotations

from typing import Any

from rbee_sd.engine.pipeline import ModelError

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Where a model's parts may come from; `stable_diffusion` is diffusers' own name for its safety checker."""


def parts_of(index: dict[str, Any]) -> list[str]:
    """The names of the parts that a model has. An entry of `null` stands for one that it could have."""
    return [part for part, entry in index.items() if isinstance(entry, list) and entry[:1] != [None]]


def check(index: dict[str, Any], name: str) -> None:
    """Raise `ModelError` unless the list of parts names no code but that of the libraries, and says what it is."""
    for part in parts_of(index):
        if index[part][:1] not in [[library] for library in LIBRARIES]:
            raise ModelError(f"the model {name} wants code from elsewhere for its {part}; that is refused")
    if not isinstance(index.get("_class_name"), str):
        raise ModelError(f"the model {name} does not say what kind of model it is")
