"""Whether a .safetensors file is whole, by its header: nothing of the weights is read.

Format: eight bytes of length (little-endian), so many bytes of JSON that say where each tensor is, the tensors.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

LARGEST_HEADER = 100_000_000


def damage_of(path: Path) -> str:
    """What is wrong with a file, empty for one that is whole."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
            if length > LARGEST_HEADER:
                return "is no .safetensors file"
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return "is no .safetensors file, or a damaged one"
    return "is cut off" if path.stat().st_size < 8 + length + end else ""
