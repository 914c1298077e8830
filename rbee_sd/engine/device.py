"""Which device runs the model, in which number format, with how many CPU threads.

Runs in the engine process (and in the child that `doctor` asks). Imports torch.
"""

from __future__ import annotations

import os

import torch

from rbee_sd.engine.pipeline import ModelError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(wanted: str) -> torch.device:
    """`auto` takes CUDA, else MPS, else the CPU. Raises `ModelError` for a device that is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"there is no device '{wanted}' here; try device auto") from error
    return device


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is half precision on CUDA and single precision elsewhere.

    CPUs without AVX512-BF16 are many times slower in half precision, and MPS gives black images with some models.
    """
    if wanted != "auto":
        return DTYPES[wanted]
    return torch.float16 if device.type == "cuda" else torch.float32


def set_threads(wanted: int) -> int:
    """Set torch's CPU threads; 0 leaves one core to the front. Returns the number set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = wanted or max(1, cores - 1)
    torch.set_num_threads(threads)
    return threads
