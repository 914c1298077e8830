"""Which files of a model on the hub are downloaded: those that it is loaded from, and none that could carry code.

Pure. Weights are taken in half precision where a part has them so (the files that are marked `fp16`), under the names
of the others: half the size, and the format that GPUs use. Elsewhere they are brought to single precision when loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from rbee_sd.engine.families import family_of
from rbee_sd.engine.index import check, parts_of
from rbee_sd.engine.pipeline import ModelError

INDEX = "model_index.json"
VARIANTS = ("fp16", "")
"""In the order in which they are preferred; the last is that without a mark."""
SAFE = re.compile(r"\w[\w.+-]*", re.ASCII)
DESCRIPTION = (".json", ".txt", ".model")
"""Configurations, and what tokenizers read: none is run."""
WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(?:\.(?P<variant>fp16))?(?:-(?P<shard>\d+)-of-(?P<of>\d+))?\.safetensors"
)
SHARDS = re.compile(r"(?P<stem>diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
OTHER_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".msgpack", ".h5", ".onnx")


def choose(name: str, index: dict[str, Any], files: Collection[str]) -> dict[str, str]:
    """Where each file that is wanted goes, by its path in the repository. Raises `ModelError`."""
    check(index, name)
    if family_of(index["_class_name"]) is None:
        raise ModelError(f"the model {name} is of a kind that this worker does not run ({index['_class_name'][:100]})")
    chosen = {INDEX: INDEX}
    for part in parts_of(index):
        inside = [path.removeprefix(f"{part}/") for path in files if path.startswith(f"{part}/")]
        inside = [file for file in inside if SAFE.fullmatch(file)]
        if not inside or not SAFE.fullmatch(part):
            raise ModelError(f"the model {name} lacks its {part[:100]}")
        chosen |= {f"{part}/{file}": f"{part}/{target}" for file, target in _part(name, part, inside)}
    return chosen


def _part(name: str, part: str, files: list[str]) -> Iterator[tuple[str, str]]:
    for file in files:
        if file.endswith(DESCRIPTION) and not SHARDS.fullmatch(file):
            yield file, file
    for variant in VARIANTS:
        weights = _weights(files, variant)
        if weights:
            yield from weights.items()
            return
    if any(file.endswith(OTHER_WEIGHTS) for file in files):
        text = f"the weights of {part} of the model {name} are not in safetensors; other formats can carry code"
        raise ModelError(text)


def _weights(files: list[str], variant: str) -> dict[str, str]:
    """The weights of one variant, if all of them are there: one file, or all shards and their index."""
    found = [match for match in map(WEIGHTS.fullmatch, files) if match and (match["variant"] or "") == variant]
    for match in found:
        if match["of"] is None:
            return {match.string: f"{match['stem']}.safetensors"}
    for listing in map(SHARDS.fullmatch, files):
        if listing and (listing["variant"] or "") == variant:
            shards = [each for each in found if each["stem"] == listing["stem"]]
            if shards and len(shards) == int(shards[0]["of"]):
                # The index names the shards, so these keep their names.
                whole = {each.string: each.string for each in shards}
                return {listing.string: f"{listing['stem']}.safetensors.index.json"} | whole
    return {}
