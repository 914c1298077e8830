"""`rbee-sd doctor`: looks at what the worker needs, and says what to do about each finding."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import psutil

from rbee_sd import __version__, keys
from rbee_sd.cli import options
from rbee_sd.client import Client, ClientError
from rbee_sd.engine.config import HUB_ID
from rbee_sd.errors import SettingsError
from rbee_sd.jobs import tables
from rbee_sd.jobs.store import DATABASE
from rbee_sd.settings import Settings, state_dir_of, worker_url

PACKAGES = ("tornado", "torch", "diffusers", "transformers", "accelerate", "safetensors", "pillow", "pydantic")
PROBE_TIMEOUT = 120
ENOUGH_MEMORY = 4 * 2**30
ENOUGH_DISK = 2**30
ENOUGH_FILES = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is ok, warning or problem; `advice` says what to do about the latter two."""

    level: str
    text: str
    advice: str = ""


@click.command("doctor", short_help="Check this machine and its worker.")
@options.with_settings()
def command(conf: str | None, **flags: Any) -> None:
    """Check device, versions, memory, disk, port and model. Exit status 1 when something is a problem."""
    settings = options.read(conf, flags)
    problems = 0
    for finding in _findings(settings):
        problems += finding.level == "problem"
        click.echo(f"{finding.level:<8} {finding.text}" + (f"\n         -> {finding.advice}" if finding.advice else ""))
    sys.exit(1 if problems else 0)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("ok", f"rbee-sd {__version__}, Python {sys.version.split()[0]}")
    yield from _packages()
    yield _device(settings)
    yield _memory()
    yield _state_dir(settings)
    yield from _kept(settings)
    yield from _keys(settings)
    yield _files()
    yield _model(settings)
    yield asyncio.run(_port(settings))


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", ", ".join(found))
    if missing:
        advice = "install them: pip install -r conf/requirements.txt, or remove .venv and call bin/rbee-sd again"
        yield Finding("problem", f"not installed: {', '.join(missing)}", advice)


def _device(settings: Settings) -> Finding:
    call = [sys.executable, "-m", "rbee_sd.engine.probe", settings.device, settings.dtype]
    try:
        answer = subprocess.run(call, capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return Finding("problem", f"torch does not start ({type(error).__name__})", "remove .venv and set up again")
    found = json.loads(answer.stdout)
    if "error" in found:
        return Finding("problem", found["error"], "check the driver, or set device to auto")
    text = f"device {found['device']}, {found['dtype']}"
    if found["memory"] is not None:
        text += f": {found['name']}, {found['memory'] / 2**30:.1f} of {found['total'] / 2**30:.1f} GiB free"
    if found["device"] == "cpu" and shutil.which("nvidia-smi"):
        return Finding("warning", text, "there is an NVIDIA driver, but torch is a CPU build: install a CUDA one")
    return Finding("ok", text)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    text = f"{free / 2**30:.1f} GiB of memory free"
    return Finding("ok", text) if free >= ENOUGH_MEMORY else Finding("warning", text, "real models want 4 GiB or more")


def _state_dir(settings: Settings) -> Finding:
    try:
        folder = state_dir_of(settings)
    except SettingsError as error:
        return Finding("problem", str(error))
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        advice = "choose another with state_dir, or give this user the right to write"
        return Finding("problem", f"state folder {folder} cannot be written", advice)
    free = shutil.disk_usage(there).free
    text = f"state folder {folder}, {free / 2**30:.1f} GiB free"
    return Finding("ok", text) if free >= ENOUGH_DISK else Finding("warning", text, "images may soon not fit")


def _kept(settings: Settings) -> Iterator[Finding]:
    try:
        path = state_dir_of(settings) / DATABASE
        if not path.exists():
            return
        # Read only, so that a worker which runs is not disturbed.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            totals = tables.totals(connection)
    except SettingsError:
        # Said of the state folder already.
        return
    except (sqlite3.Error, OSError) as error:
        advice = "restore it from a copy, or move it away: the worker begins anew then"
        yield Finding("problem", f"the database of jobs cannot be read ({error})", advice)
        return
    ended = sum(count for state, count in totals.states.items() if state not in ("queued", "running"))
    live = sum(totals.states.values()) - ended
    sizes = f"{path.stat().st_size / 2**20:.1f} MiB, their images {totals.bytes / 2**20:.1f} MiB"
    yield Finding("ok", f"jobs kept: {ended} ended, {live} that go on; database {sizes}")


def _keys(settings: Settings) -> Iterator[Finding]:
    if settings.api_keys:
        try:
            names = keys.read(Path(settings.api_keys).expanduser())
        except SettingsError as error:
            yield Finding("problem", str(error), "'rbee-sd keys' writes such files")
        else:
            yield Finding("ok", f"API keys: {', '.join(names) or 'none yet'}")


def _files() -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        return Finding("ok", "open files: unlimited" if hard == resource.RLIM_INFINITY else f"open files: {hard}")
    return Finding("warning", f"open files: {hard}", "each listener takes one; raise the hard limit (ulimit -Hn)")


def _model(settings: Settings) -> Finding:
    model = Path(os.path.expanduser(settings.model))
    if settings.model == "demo":
        return Finding("ok", "model demo: embedded, draws simple shapes; name another with model")
    if model.is_dir() and not (model / "model_index.json").is_file():
        return Finding("problem", f"model {model} has no model_index.json", "name the folder that holds it")
    if model.is_dir() or (model.is_file() and model.suffix == ".safetensors"):
        return Finding("ok", f"model {model}")
    if model.is_file():
        return Finding("problem", f"model {model} is not a .safetensors file", "other formats can carry code")
    if HUB_ID.fullmatch(settings.model):
        return Finding("ok", f"model {settings.model}: from the hub, or from its local copy")
    return Finding("problem", f"model {settings.model} is not here", "name a folder, a .safetensors file or a hub id")


async def _port(settings: Settings) -> Finding:
    url = worker_url(settings.host, settings.port)
    try:
        async with Client(url, settings.api_key) as client:
            if not await client.healthy():
                return Finding("ok", f"no worker runs; port {settings.port} is free")
            status = await client.result(operation="status")
    except ClientError as error:
        return Finding("problem", f"port {settings.port}: {error}", "stop what runs there, or choose another port")
    if status["ready"]:
        return Finding("ok", f"a worker runs at {url} with model {status['model']}, and is ready")
    return Finding("warning", f"a worker runs at {url}, not ready: {status['reason']}", status["detail"])
