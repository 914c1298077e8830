"""Loading a model: the embedded one, a diffusers folder, a single checkpoint or a hub id, by diffusers' own loaders.

Runs on the engine's main thread and blocks it, for a download perhaps for long. Safetensors only, and only
classes of diffusers and transformers, so that loading a model never runs code that came with it.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

# Before transformers is imported: it complains there of image processors that no pipeline of ours uses.
logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)

import diffusers.utils.logging  # noqa: E402
import torch  # noqa: E402
import tqdm  # noqa: E402
import transformers.utils.logging  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402
from transformers import CLIPTextModel  # noqa: E402

from rbee_sd.engine.config import HUB_ID, EngineConfig  # noqa: E402
from rbee_sd.engine.device import choose_device, choose_dtype, set_threads  # noqa: E402
from rbee_sd.engine.pipeline import ModelError  # noqa: E402
from rbee_sd.engine.stable_diffusion import StableDiffusion  # noqa: E402

log = logging.getLogger(__name__)

DEMO = Path(__file__).parent / "demo"
LIBRARIES = {"diffusers", "transformers", "stable_diffusion"}
"""Where a model's parts may come from; `stable_diffusion` is diffusers' own name for its safety checker."""


def load(config: EngineConfig) -> StableDiffusion:
    """Load the model that `config` names onto its device. Raises `ModelError`."""
    # Gradients are per thread: off once here, before anything else on this thread, and never on again.
    torch.set_grad_enabled(False)
    _quiet_libraries()
    threads = set_threads(config.threads)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    log.info("loading %s on %s as %s, %d CPU threads", config.name, device, dtype, threads)
    try:
        # All of it: weights that are missing are noticed only when they are moved.
        return StableDiffusion(config.name, _pipe(config, dtype).to(device), device)
    except ModelError:
        raise
    except Exception as error:
        log.exception("cannot load %s", config.model)
        kind = type(error).__name__
        raise ModelError(f"the model {config.name} cannot be loaded ({kind}); the worker's log says more") from error


def _quiet_libraries() -> None:
    # Its own lock is a named semaphore, which a killed engine would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    # For long prompts these print the prompt, which is the client's own business.
    for name in (
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "transformers.tokenization_utils_base",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


def _pipe(config: EngineConfig, dtype: torch.dtype) -> StableDiffusionPipeline:
    path = DEMO if config.model == "demo" else Path(os.path.expanduser(config.model))
    if not config.model:
        raise ModelError("no model is named; see the setting model")
    if os.path.isfile(path):
        return _single_file(path, config, dtype)
    if os.path.isdir(path):
        return _folder(str(path), config, dtype, local_files_only=True)
    if HUB_ID.fullmatch(config.model):
        return _folder(config.model, config, dtype)
    raise ModelError(f"the model {config.name} is neither a folder, nor a file, nor a hub id")


def _folder(source: str, config: EngineConfig, dtype: torch.dtype, **options: Any) -> StableDiffusionPipeline:
    index = _checked_index(source, config, **options)
    parts = {}
    if index["text_encoder"] == ["transformers", "CLIPTextModel"]:
        parts["text_encoder"] = _text_encoder(source, config, dtype, **options)
    return StableDiffusionPipeline.from_pretrained(source, dtype=dtype, use_safetensors=True, **parts, **options)


def _single_file(path: Path, config: EngineConfig, dtype: torch.dtype) -> StableDiffusionPipeline:
    if path.suffix != ".safetensors":
        raise ModelError(f"the model {config.name} is not a .safetensors file; other formats can carry code")
    options = {}
    if config.model_config:
        options["config"] = os.path.expanduser(config.model_config)
        _checked_index(options["config"], config)
    return StableDiffusionPipeline.from_single_file(str(path), dtype=dtype, use_safetensors=True, **options)


def _checked_index(source: str, config: EngineConfig, **options: Any) -> dict[str, Any]:
    """The model's list of parts, once it is sure that it names no code but that of the libraries."""
    index: dict[str, Any] = StableDiffusionPipeline.load_config(source, **options)
    if index.get("_class_name") != StableDiffusionPipeline.__name__:
        raise ModelError(f"the model {config.name} is of another kind; this worker runs StableDiffusionPipeline")
    for part, entry in index.items():
        if isinstance(entry, list) and entry[0] is not None and entry[0] not in LIBRARIES:
            raise ModelError(f"the model {config.name} wants code from elsewhere for its {part}; that is refused")
    return index


def _text_encoder(source: str, config: EngineConfig, dtype: torch.dtype, **options: Any) -> CLIPTextModel:
    # transformers fills what is missing from a file with random numbers and says so only when asked.
    encoder, found = CLIPTextModel.from_pretrained(
        source, subfolder="text_encoder", dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    if found["missing_keys"]:
        raise ModelError(f"the model {config.name} lacks some of the weights of its text encoder")
    return encoder
