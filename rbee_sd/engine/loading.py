"""Loading a model: the embedded one, a diffusers folder, a single checkpoint or a hub id, by diffusers' own loaders.

Runs on the engine's main thread and blocks it, for a download perhaps for long. Safetensors only, and only
classes of diffusers and transformers, so that loading a model never runs code that came with it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

# Before transformers is imported: it complains there of image processors that no pipeline of ours uses.
logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)

import diffusers  # noqa: E402
import diffusers.utils.logging  # noqa: E402
import torch  # noqa: E402
import tqdm  # noqa: E402
import transformers  # noqa: E402
import transformers.utils.logging  # noqa: E402
from safetensors import SafetensorError, safe_open  # noqa: E402

from rbee_sd.engine.assembly import assemble  # noqa: E402
from rbee_sd.engine.config import DEMO, HUB_ID, EngineConfig  # noqa: E402
from rbee_sd.engine.device import (  # noqa: E402
    choose_device,
    choose_dtype,
    is_out_of_memory,
    keep_freed_memory,
    set_threads,
)
from rbee_sd.engine.diffusion import Diffusion  # noqa: E402
from rbee_sd.engine.families import FAMILIES, Family, family_of  # noqa: E402
from rbee_sd.engine.index import check  # noqa: E402
from rbee_sd.engine.pipeline import ModelError  # noqa: E402
from rbee_sd.messages import MAX_GUIDANCE_SCALE  # noqa: E402

log = logging.getLogger(__name__)


DEFAULTS: dict[str, tuple[float, float, Callable[[float], float]]] = {
    "steps": (1, 100, int),
    "guidance_scale": (0, MAX_GUIDANCE_SCALE, float),
}
"""What a model may say under `_defaults` in its index, the least and the most of it, and its type."""

# Weights that a checkpoint in an original layout has, and no other kind of model.
MARKS = (
    ("joint_blocks.", "StableDiffusion3Pipeline"),
    ("double_blocks.", "FluxPipeline"),
    ("conditioner.embedders.", "StableDiffusionXLPipeline"),
)


class Source(Protocol):
    """Where a model comes from. `index` is what its model_index.json says."""

    index: dict[str, Any]

    def load(self, dtype: torch.dtype) -> Any:
        """The pipeline, in this number format."""


def load(config: EngineConfig, source: Source | None = None) -> Diffusion:
    """Load the model that `config` names, or that of `source`, onto its device.

    Raises `ModelError`, or `MemoryError`: it has no room.
    """
    # Gradients are per thread: off once here, before anything else on this thread, and never on again.
    torch.set_grad_enabled(False)
    _quiet_libraries()
    threads = set_threads(config.threads)
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    try:
        source = source or _source(config)
        family = _identify(config, source)
        dtype = choose_dtype(config.dtype, device, family.half)
        log.info("loading %s on %s as %s, %d CPU threads", config.name, device, dtype, threads)
        # All of it: weights that are missing are noticed only when they are moved.
        return assemble(config, family, source.load(dtype).to(device), device)
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        log.exception("cannot load %s", config.model)
        kind = type(error).__name__
        raise ModelError(f"the model {config.name} cannot be loaded ({kind}); the worker's log says more") from error


class _Folder:
    """A model in diffusers' own layout, on disk or on the hub."""

    def __init__(self, source: str, config: EngineConfig, **options: Any) -> None:
        self._source = source
        self._config = config
        self._options = options
        self.index = _checked_index(source, config, **options)

    def load(self, dtype: torch.dtype) -> Any:
        """The pipeline, on the CPU."""
        parts = {
            part: self._text_encoder(part, entry[1], dtype)
            for part, entry in self.index.items()
            if part.startswith("text_encoder") and isinstance(entry, list) and entry[0] == "transformers"
        }
        kind = getattr(diffusers, self.index["_class_name"])
        return kind.from_pretrained(self._source, dtype=dtype, use_safetensors=True, **parts, **self._options)

    def _text_encoder(self, part: str, kind: str, dtype: torch.dtype) -> Any:
        # transformers fills what is missing from a file with random numbers and says so only when asked.
        encoder, found = getattr(transformers, kind).from_pretrained(
            self._source, subfolder=part, dtype=dtype, use_safetensors=True, output_loading_info=True, **self._options
        )
        if found["missing_keys"]:
            raise ModelError(f"the model {self._config.name} lacks some of the weights of its {part}")
        return encoder


class _Checkpoint:
    """A model in one file, in the layout that it was published in."""

    def __init__(self, path: Path, config: EngineConfig) -> None:
        if path.suffix != ".safetensors":
            raise ModelError(f"the model {config.name} is not a .safetensors file; other formats can carry code")
        self._path = path
        self._options: dict[str, Any] = {}
        self.index: dict[str, Any] = {"_class_name": _kind_of(path)}
        if config.model_config:
            self._options["config"] = os.path.expanduser(config.model_config)
            self.index = _checked_index(self._options["config"], config)

    def load(self, dtype: torch.dtype) -> Any:
        """The pipeline, on the CPU."""
        kind = getattr(diffusers, self.index["_class_name"])
        return kind.from_single_file(str(self._path), dtype=dtype, use_safetensors=True, **self._options)


def _quiet_libraries() -> None:
    # Its own lock is a named semaphore, which a killed engine would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    # It expects the class of VAE that most models have, and takes the others (AutoencoderTiny) all the same.
    logging.getLogger("diffusers.pipelines.pipeline_utils").addFilter(_is_news)
    # For long prompts these print the prompt, which is the client's own business.
    for family in FAMILIES:
        for name in family.pipelines.values():
            logging.getLogger(getattr(diffusers, name).__module__).setLevel(logging.ERROR)
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Expected types for vae")


def _identify(config: EngineConfig, source: Source) -> Family:
    family = family_of(source.index["_class_name"])
    if family is None:
        known = ", ".join(next(iter(family.pipelines.values())) for family in FAMILIES)
        raise ModelError(f"the model {config.name} is of another kind; this worker runs {known}")
    return replace(family, **_own_defaults(source.index, config))


def _own_defaults(index: dict[str, Any], config: EngineConfig) -> dict[str, Any]:
    """What the model says of itself instead of its family. diffusers ignores keys that begin like this one."""
    wanted = index.get("_defaults", {})
    if not isinstance(wanted, dict) or not all(
        name in DEFAULTS and type(value) in (int, float) and DEFAULTS[name][0] <= value <= DEFAULTS[name][1]
        for name, value in wanted.items()
    ):
        raise ModelError(f"the model {config.name} has _defaults out of bounds in its model_index.json")
    return {name: DEFAULTS[name][2](value) for name, value in wanted.items()}


def _source(config: EngineConfig) -> Source:
    path = DEMO if config.model == "demo" else Path(os.path.expanduser(config.model))
    if not config.model:
        raise ModelError("no model is named; see the setting model")
    if os.path.isfile(path):
        return _Checkpoint(path, config)
    if os.path.isdir(path):
        return _Folder(str(path), config, local_files_only=True)
    if HUB_ID.fullmatch(config.model):
        return _Folder(config.model, config)
    raise ModelError(f"the model {config.name} is neither a folder, nor a file, nor a hub id")


def _kind_of(path: Path) -> str:
    """The pipeline class for a checkpoint, from the names of its weights."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
    except SafetensorError:
        # It cannot be loaded either, and that says why.
        names = []
    return next((kind for mark, kind in MARKS if any(mark in name for name in names)), "StableDiffusionPipeline")


def _checked_index(source: str, config: EngineConfig, **options: Any) -> dict[str, Any]:
    """The model's list of parts, once it is sure that it names no code but that of the libraries."""
    index: dict[str, Any] = diffusers.DiffusionPipeline.load_config(source, **options)
    check(index, config.name)
    return index
