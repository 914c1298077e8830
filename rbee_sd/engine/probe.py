"""What the engine would run on, for `doctor`: `python -m rbee_sd.engine.probe DEVICE DTYPE` prints JSON.

Runs in a process of its own, because it imports torch and asks the GPU.
"""

from __future__ import annotations

import json
import sys

import torch

from rbee_sd.engine.device import choose_device, choose_dtype
from rbee_sd.engine.pipeline import ModelError


def probe(wanted_device: str, wanted_dtype: str) -> dict[str, object]:
    """Device, number format and memory (bytes, None for the CPU), or `error`."""
    try:
        device = choose_device(wanted_device)
    except ModelError as error:
        return {"error": str(error)}
    dtype = str(choose_dtype(wanted_dtype, device)).removeprefix("torch.")
    found: dict[str, object] = {"device": str(device), "dtype": dtype, "memory": None}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found |= {"name": torch.cuda.get_device_name(device), "memory": free, "total": total}
    return found


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], sys.argv[2])))
