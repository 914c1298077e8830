"""LoRAs: small changes to a model's weights, loaded from files when a job first wants them, and switched.

Runs on the engine's main thread. A set of LoRAs with their scales is a state of the shared weights: jobs of one set
share forwards, and the set is applied before each forward or encoding of theirs. diffusers and PEFT do the work.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from rbee_sd.engine.pipeline import GenerationError

log = logging.getLogger(__name__)

KEPT = 8
"""LoRAs that stay loaded; the one that was used longest ago goes first. A job may want more."""

LoraSet = tuple[tuple[str, float], ...]
"""Names and scales, sorted."""


class Loras:
    """The LoRAs of one model. `files` maps the names that clients use to .safetensors files."""

    def __init__(self, pipe: Any, files: Mapping[str, str]) -> None:
        self._pipe = pipe
        self._files = files
        self._adapters: dict[str, str] = {}
        self._number = 0
        self._current: LoraSet | None = ()

    def apply(self, wanted: LoraSet) -> None:
        """Have the weights changed by these, and no others. Raises `GenerationError` for one that cannot be used."""
        if wanted == self._current:
            return
        # Until all of it is done, the weights are in no state to be relied on.
        self._current = None
        with warnings.catch_warnings():
            # PEFT warns of several LoRAs, and of one that is dropped.
            warnings.simplefilter("ignore", UserWarning)
            for name, _ in wanted:
                self._load(name)
            while len(self._adapters) > max(KEPT, len(wanted)):
                self._drop(self._adapters.pop(next(iter(self._adapters))))
        if wanted:
            self._pipe.enable_lora()
            self._pipe.set_adapters([self._adapters[name] for name, _ in wanted], [scale for _, scale in wanted])
        elif self._adapters:
            self._pipe.disable_lora()
        self._current = wanted

    def _load(self, name: str) -> None:
        if name in self._adapters:
            # Used last, so gone last.
            self._adapters[name] = self._adapters.pop(name)
            return
        path = Path(self._files.get(name, ""))
        adapter = f"lora_{self._number}"
        self._number += 1
        try:
            self._refuse_wider(path)
            self._pipe.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=adapter,
                local_files_only=True,
                use_safetensors=True,
            )
        except Exception as error:
            log.exception("cannot load the LoRA %s", name)
            self._drop(adapter)
            raise GenerationError("lora_failed", _unfit(name)) from error
        if not any(adapter in adapters for adapters in self._pipe.get_list_adapters().values()):
            # diffusers takes a file without a single key for this model as nothing to do.
            raise GenerationError("lora_failed", _unfit(name))
        self._adapters[name] = adapter
        log.info("LoRA %s loaded", name)

    def _refuse_wider(self, path: Path) -> None:
        """A control LoRA of FLUX would widen the model's first layer, for every job and for good."""
        first = getattr(getattr(self._pipe, "transformer", None), "x_embedder", None)
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  (it is no dictionary)
                if key.endswith("x_embedder.lora_A.weight") and first is not None:
                    width = file.get_slice(key).get_shape()[1]
                    if width != first.in_features:
                        raise ValueError(f"{width} inputs where the model has {first.in_features}")

    def _drop(self, adapter: str) -> None:
        if any(adapter in adapters for adapters in self._pipe.get_list_adapters().values()):
            self._pipe.delete_adapters(adapter)


def _unfit(name: str) -> str:
    return f"the LoRA {name} cannot be used with this model; it may be made for another kind, or be damaged"
