"""The LoRAs a worker offers: the `.safetensors` files of one folder, each under its own name without the ending.

Front process, once at the start, before it listens; blocks for reading the folder. Requests are compared with the
names found here and open nothing.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from rbee_sd.errors import StartError

log = logging.getLogger(__name__)

ENDING = ".safetensors"
NAME = re.compile(r"\w[\w .+()-]{0,127}")
"""Words of any script. Nothing that is special in a path, a log line or on the command line."""


def scan(lora_dir: str) -> dict[str, Path]:
    """The LoRAs in a folder, by name in alphabetical order; none for "". Raises `StartError` when it cannot be read."""
    if not lora_dir:
        return {}
    try:
        with os.scandir(os.path.expanduser(lora_dir)) as entries:
            files = sorted(Path(entry.path) for entry in entries if entry.name.endswith(ENDING) and entry.is_file())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(
            f"the folder of LoRAs {lora_dir} cannot be read: {reason}; see the setting lora_dir"
        ) from error
    found = {}
    for file in files:
        if NAME.fullmatch(file.stem):
            found[file.stem] = file
        else:
            log.warning("the LoRA %r is left out: rename it to letters, digits, spaces and . + - _ ( )", file.name)
    return found
