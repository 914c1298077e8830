"""The files of the model: there, whole, readable, in a format that cannot carry code, and of a size that fits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from rbee_sd.cli.findings import OK, PROBLEM, WARNING, Finding
from rbee_sd.cli.findings.safetensors import damage_of
from rbee_sd.engine.config import DEMO, HUB_ID
from rbee_sd.errors import StartError
from rbee_sd.models.catalogue import Catalogue
from rbee_sd.settings import Settings, models_dir_of

INDEX = "model_index.json"
CARRIERS = (".bin", ".ckpt", ".pt", ".pth")
"""Endings of weights that can carry code."""
AGAIN = "download it again"


def model(settings: Settings) -> Iterator[Finding]:
    """The model that the worker starts with, and what goes with it."""
    try:
        named = Catalogue(models_dir_of(settings), DEMO, settings.model, settings.model).default_source
    except StartError as error:
        yield Finding(PROBLEM, str(error), "make it readable, or name another")
        return
    path = Path(os.path.expanduser(named))
    if settings.model == "demo":
        yield Finding(OK, "model demo: embedded, draws simple shapes; name another with model")
    elif os.path.isdir(path):
        yield from _folder(path)
    elif os.path.isfile(path):
        yield from _checkpoint(path)
    elif HUB_ID.fullmatch(settings.model):
        yield _hub(settings.model)
    else:
        advice = "name a folder, a .safetensors file or a hub id"
        yield Finding(PROBLEM, f"model {settings.model} is not here", advice)
    for name in ("model_config", "taesd"):
        value = getattr(settings, name)
        if value and not os.path.isdir(os.path.expanduser(value)) and not HUB_ID.fullmatch(value):
            yield Finding(PROBLEM, f"{name}: there is no folder {value}", f"name one, or leave {name} empty")


def _folder(path: Path) -> Iterator[Finding]:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        parts = [part for part, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    except FileNotFoundError:
        yield Finding(PROBLEM, f"model {path} has no {INDEX}", "name the folder that holds it")
        return
    except (OSError, ValueError, AttributeError, IndexError):
        yield Finding(PROBLEM, f"the {INDEX} of model {path} cannot be read", AGAIN)
        return
    missing = [part for part in parts if not (path / part).is_dir()]
    if missing:
        yield Finding(PROBLEM, f"model {path} lacks {', '.join(missing)}", AGAIN)
        return
    files = [file for part in parts for file in sorted((path / part).iterdir()) if file.is_file()]
    weights = [file for file in files if file.suffix == ".safetensors"]
    carriers = [file for file in files if file.suffix in CARRIERS]
    if carriers and not weights:
        advice = "only .safetensors are loaded, since other formats can carry code: get the model in that format"
        yield Finding(PROBLEM, f"the weights of model {path} are {carriers[0].suffix} files", advice)
        return
    yield from _weights(path, weights)


def _checkpoint(path: Path) -> Iterator[Finding]:
    if path.suffix == ".safetensors":
        yield from _weights(path, [path])
    else:
        yield Finding(PROBLEM, f"model {path} is not a .safetensors file", "other formats can carry code")


def _weights(model: Path, files: Iterable[Path]) -> Iterator[Finding]:
    size = 0
    damaged = False
    for file in files:
        damage = damage_of(file)
        damaged |= bool(damage)
        if damage:
            advice = "give this user the right to read it" if "cannot be read" in damage else AGAIN
            yield Finding(PROBLEM, f"{file} {damage}", advice)
        else:
            size += file.stat().st_size
    if damaged:
        return
    text = f"model {model}: {size / 2**30:.1f} GiB of weights"
    if size > psutil.virtual_memory().available:
        yield Finding(WARNING, text, "that is more than the memory which is free: it may not load")
    else:
        yield Finding(OK, text)


def _hub(name: str) -> Finding:
    # Where huggingface_hub keeps what it has downloaded, by its own settings.
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))
    if any((cache / f"models--{name.replace('/', '--')}" / "snapshots").glob(f"*/{INDEX}")):
        return Finding(OK, f"model {name}: from the hub, with a local copy")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        advice = "unset HF_HUB_OFFLINE for the first start, or copy the model here and name its folder"
        return Finding(PROBLEM, f"model {name}: not here, and HF_HUB_OFFLINE forbids to download it", advice)
    return Finding(OK, f"model {name}: from the hub, downloaded at the first start")
