"""The machine: packages, device, memory, open files."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from rbee_sd import __version__
from rbee_sd.cli.findings import OK, PROBLEM, WARNING, Finding
from rbee_sd.settings import Settings

PACKAGES = (
    *("tornado", "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "pillow"),
    *("pydantic", "httpx2"),
)
PROBE_TIMEOUT = 120
ENOUGH_MEMORY = 4 * 2**30
ENOUGH_FILES = 4096
GPU_NODES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd")
"""What a process must open to use a GPU of NVIDIA or AMD, on Linux."""


def versions() -> Iterator[Finding]:
    """Ours, Python's, and the packages'."""
    yield Finding(OK, f"rbee-sd {__version__}, Python {sys.version.split()[0]}")
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding(OK, ", ".join(found))
    if missing:
        advice = "install them: pip install -r conf/requirements.txt, or remove .venv and call bin/rbee-sd again"
        yield Finding(PROBLEM, f"not installed: {', '.join(missing)}", advice)


def device(settings: Settings) -> Iterator[Finding]:
    """What the engine would run on, and whether this user may."""
    shut = [node for node in GPU_NODES if Path(node).exists() and not os.access(node, os.R_OK | os.W_OK)]
    if shut:
        advice = "add this user to the group that owns it (ls -l says which: render or video), and log in again"
        yield Finding(WARNING, f"this user may not use {', '.join(shut)}", advice)
    call = [sys.executable, "-m", "rbee_sd.engine.probe", settings.device, settings.dtype]
    try:
        answer = subprocess.run(call, capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        yield Finding(PROBLEM, f"torch does not start ({type(error).__name__})", "remove .venv and set up again")
        return
    found = json.loads(answer.stdout)
    if "error" in found:
        yield Finding(PROBLEM, found["error"], "check the driver, or set device to auto")
        return
    text = f"device {found['device']}, {found['dtype']}"
    if found["memory"] is not None:
        text += f": {found['name']}, {found['memory'] / 2**30:.1f} of {found['total'] / 2**30:.1f} GiB free"
    if found["device"] == "cpu" and shutil.which("nvidia-smi"):
        advice = "there is an NVIDIA driver, but torch is a CPU build: install a CUDA one"
        yield Finding(WARNING, text, advice)
    else:
        yield Finding(OK, text)


def memory() -> Iterator[Finding]:
    """What is free of it."""
    free = psutil.virtual_memory().available
    text = f"{free / 2**30:.1f} GiB of memory free"
    yield Finding(OK, text) if free >= ENOUGH_MEMORY else Finding(WARNING, text, "real models want 4 GiB or more")


def open_files() -> Iterator[Finding]:
    """How many a process may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    unlimited = hard == resource.RLIM_INFINITY
    text = f"open files: {'unlimited' if unlimited else hard}"
    if unlimited or hard >= ENOUGH_FILES:
        yield Finding(OK, text)
    else:
        yield Finding(WARNING, text, "each listener takes one; raise the hard limit (ulimit -Hn)")
