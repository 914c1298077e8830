"""Which device runs the model, in which number format, with how many CPU threads.

Runs in the engine process (and in the child that `doctor` asks). Imports torch.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import psutil
import torch

from rbee_sd.engine.pipeline import DeviceLostError, ModelError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h."""
KEPT_MEMORY = 1 << 30
"""Bytes."""
WORKING_MEMORY = 2 << 30
"""Bytes that are left for forwards when another model is loaded; an eighth of all where that is less."""
CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux has control groups, version 2. In a container that is the container's own."""
PROCESSORS = Path("/proc/cpuinfo")
"""What Linux says of each."""
OUT_OF_MEMORY = ("allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What errors say that have no class of their own."""
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


def device_name(device: torch.device) -> str:
    """What the device calls itself: the model of the GPU or of the processor, as far as the system says it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = PROCESSORS.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    # Linux gives no `processor`, other systems have no such file, and on ARM it names none.
    return f"{device.type} {next(names, platform.processor() or platform.machine())}"


def choose_dtype(wanted: str, device: torch.device, half: str = "float16") -> torch.dtype:
    """`auto` is half precision on CUDA, in the format that suits the model, and single precision elsewhere.

    CPUs without AVX512-BF16 are many times slower in half precision, and MPS gives black images with some models.
    """
    if wanted != "auto":
        return DTYPES[wanted]
    return DTYPES[half] if device.type == "cuda" else torch.float32


def set_threads(wanted: int) -> int:
    """Set torch's CPU threads; 0 leaves one core to the front. Returns the number set.

    Not all of them: threads wait for each other in every operation, so one that has to share its core with another
    process holds up all. On two cores that made forwards up to a hundred times slower.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = wanted or max(1, cores - 1)
    torch.set_num_threads(threads)
    return threads


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next forward, instead of giving it to the system and asking again.

    A forward of 16 rows of the demo model frees and takes some 25 MB; with glibc's defaults that was 6,000 page faults
    and a quarter of its time. Elsewhere (musl, macOS) there is no such call, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY)
        mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory. On CPU and MPS that has no class of its own."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY)
    )


def raise_if_lost(error: Exception, device: torch.device) -> None:
    """Raise `DeviceLostError` if the device is of no use after `error`: CUDA fails every call after some.

    Having been out of memory is none of those.
    """
    if is_out_of_memory(error):
        return
    try:
        synchronize(device)
    except RuntimeError:
        raise DeviceLostError from error


def release(device: torch.device) -> None:
    """Give memory that nothing uses back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        # What `keep_freed_memory` has kept.
        trim(0)


def free_memory(device: torch.device) -> int:
    """Bytes that the weights of another model may take, some being left for the work with them."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    elif device.type == "mps":
        total = torch.mps.recommended_max_memory()
        free = total - torch.mps.driver_allocated_memory()
    else:
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
        if limit := _group_limit():
            free, total = min(free, limit[0]), min(total, limit[1])
    return max(0, free - min(WORKING_MEMORY, total // 8))


def _group() -> Path:
    """This process's control group, of version 2. Raises `OSError` where there are none."""
    return CGROUPS / Path("/proc/self/cgroup").read_text().strip().rpartition("0::/")[2]


def _group_limit() -> tuple[int, int] | None:
    """What is free of the memory that this process's control group may have, and that; None without a limit.

    Files that the system has read count as used there, though it gives up those that it has not used lately.
    """
    try:
        group = _group()
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        if limit == "max":
            return None
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    unused = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return int(limit) - used + unused, int(limit)


def memory(device: torch.device) -> int:
    """Bytes of the device that this process holds; 0 on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else 0


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Stopwatch:
    """Times what a device does from the making of this to `stop`: not how long it takes to ask it for that."""

    def __init__(self, device: torch.device) -> None:
        self._marks: list[Any] = []
        self._device = device
        self._mark()

    def stop(self) -> None:
        """What is asked of the device from now on does not count."""
        self._mark()

    def seconds(self) -> float | None:
        """How long it took; None as long as the device has not come so far."""
        began, ended = self._marks
        if self._device.type != "cuda":
            return float(ended - began)
        return began.elapsed_time(ended) / 1000 if ended.query() else None

    def _mark(self) -> None:
        if self._device.type != "cuda":
            self._marks.append(time.monotonic())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._marks.append(event)


def to_host(tensor: torch.Tensor) -> Callable[[], npt.NDArray[Any]]:
    """Begin to copy a tensor to the CPU; what is returned waits for it, in any thread, and gives the array."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(tensor.device))

    def wait() -> npt.NDArray[Any]:
        event.synchronize()
        return copy.numpy()

    return wait
