"""LoRAs: small changes to a model's weights, loaded from files when a job first wants them, and switched.

Runs on the engine's main thread, except `fetch`. A set of LoRAs with their scales is a state of the shared weights:
jobs of one set share forwards, and the set is applied before each forward or encoding of theirs. diffusers and PEFT do
the work. What a job in hand uses stays loaded, so that no forward waits for a file.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open

from rbee_sd.engine.device import is_out_of_memory
from rbee_sd.engine.pipeline import GenerationError

log = logging.getLogger(__name__)

KEPT = 8
"""LoRAs that stay loaded; the one that was used longest ago goes first. Jobs in hand may want more."""
BLOCK = 1 << 20
"""Bytes of a file that are read at once."""

LoraSet = tuple[tuple[str, float], ...]
"""Names and scales, sorted."""


class Loras:
    """The LoRAs of one model. `files` maps the names that clients use to .safetensors files."""

    def __init__(self, pipe: Any, files: Mapping[str, str]) -> None:
        self._pipe = pipe
        self._files = files
        self._adapters: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._number = 0
        self._current: LoraSet | None = ()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of them that are not loaded. From any thread: what it says may change, and loading reads again."""
        return [name for name in names if name not in self._adapters]

    def fetch(self, names: Iterable[str]) -> None:
        """Have the system read the files, so that loading finds them in memory. For another thread, which it blocks.

        diffusers must read them itself: only so does it see how they say they are to be applied.
        """
        block = bytearray(BLOCK)
        for name in names:
            # Whoever loads it says what is wrong with it.
            with suppress(OSError), open(self._files.get(name, ""), "rb", buffering=0) as file:
                while file.readinto(block):
                    pass

    @contextmanager
    def held(self, wanted: LoraSet) -> Iterator[None]:
        """As long as this is open, these are not let go of once they are loaded."""
        names = [name for name, _ in wanted]
        self._held.update(names)
        try:
            yield
        finally:
            self._held.subtract(names)

    def apply(self, wanted: LoraSet) -> None:
        """Have the weights changed by these, and no others; they must be `held`.

        Raises `GenerationError` for one that cannot be used, `MemoryError` when there is no room for it.
        """
        if wanted == self._current:
            return
        # Until all of it is done, the weights are in no state to be relied on.
        self._current = None
        with warnings.catch_warnings():
            # PEFT warns of several LoRAs, and of one that is dropped.
            warnings.simplefilter("ignore", UserWarning)
            self._keep(KEPT - len(self.missing(name for name, _ in wanted)))
            for name, _ in wanted:
                self._load(name)
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
        adapter = f"lora_{self._number}"
        self._number += 1
        path = Path(self._files.get(name, ""))
        error = self._inject(path, adapter)
        if error is not None and is_out_of_memory(error):
            # Those that nobody uses may make room.
            self._keep(0)
            error = self._inject(path, adapter)
        if error is not None:
            log.error("cannot load the LoRA %s", name, exc_info=error)
            if is_out_of_memory(error):
                raise MemoryError from error
            raise GenerationError("lora_failed", _unfit(name)) from error
        if not any(adapter in adapters for adapters in self._pipe.get_list_adapters().values()):
            # diffusers takes a file without a single key for this model as nothing to do.
            raise GenerationError("lora_failed", _unfit(name))
        self._adapters[name] = adapter
        log.info("LoRA %s loaded", name)

    def _inject(self, path: Path, adapter: str) -> Exception | None:
        """Have diffusers add it to the model. What it failed with, and then nothing of it stays."""
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
            self._drop(adapter)
            return error
        return None

    def _keep(self, most: int) -> None:
        """Let go of those that nobody uses, as long as there are more than so many; the one used last goes last."""
        idle = [name for name in self._adapters if not self._held[name]]
        for name in idle[: max(0, len(self._adapters) - max(0, most))]:
            self._drop(self._adapters.pop(name))

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
