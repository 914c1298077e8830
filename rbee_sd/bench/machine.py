"""The machine and the versions that figures were measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from rbee_sd import __version__

PACKAGES = ("tornado", "pydantic", "orjson", "torch", "diffusers", "transformers")


def describe() -> dict[str, Any]:
    """A JSON object; read before the load starts, because it holds the machine's load average."""
    return {
        "cpu": _cpu_model(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "rbee_sd": __version__,
        **{name: metadata.version(name) for name in PACKAGES},
    }


def sentence(machine: dict[str, Any]) -> str:
    """The same in three lines, for people."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("rbee_sd", "python", *PACKAGES))
    load = " ".join(f"{value:g}" for value in machine["load_before"])
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:g} GB, {machine['system']}\n"
        f"{versions}\n"
        f"load average before: {load}"
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
