"""How much memory the weights in a safetensors file take, of which only the header is read.

Format: https://huggingface.co/docs/safetensors: eight bytes with the header's length, little endian, then JSON that
gives each tensor's `dtype`, `shape` and `data_offsets`. Imports nothing heavy; runs on the engine's main thread and
blocks it for reading some hundred kilobytes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

MAX_HEADER = 100_000_000
"""The format's own limit, in bytes."""


def weigh(file: Path, itemsize: int) -> int:
    """The bytes of a file's weights when each number takes `itemsize`; the file's own size if it cannot be read so.

    Raises `OSError`.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if length > min(size, MAX_HEADER):
            return size
        try:
            tensors = json.loads(content.read(length))
            numbers = sum(math.prod(each["shape"]) for name, each in tensors.items() if name != "__metadata__")
            return itemsize * int(numbers)
        except (ValueError, TypeError, KeyError, AttributeError):
            # The loader says what is wrong with it.
            return size
