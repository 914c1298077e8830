"""The names of models in AUTOMATIC1111's dialect, which are those of our own. Pure functions.

Clients send what they were told as `title`, and some what the original would have told them: with a hash in brackets
and the ending of a file.
"""

from __future__ import annotations

import re

from rbee_sd.errors import RequestError
from rbee_sd.operations.limits import Limits

HASH = re.compile(r" \[[0-9A-Fa-f]{1,64}\]$")
ENDINGS = (".safetensors", ".ckpt")


def entry_of(model: str) -> dict[str, object]:
    """A model as an entry of `sd-models`. There is no file that concerns a client."""
    return {"title": model, "model_name": model, "hash": None, "sha256": None, "filename": model, "config": None}


def model_named(title: str, limits: Limits) -> str:
    """The model that a client means. Raises 404 `model_not_found`."""
    name = HASH.sub("", title)
    for ending in ("", *ENDINGS):
        if name.removesuffix(ending) in limits.models:
            return name.removesuffix(ending)
    known = ", ".join(limits.models)
    raise RequestError(404, "model_not_found", f"there is no model {title[:100]!r} here; there is {known}")
