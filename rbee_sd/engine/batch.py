"""The arguments of a denoiser's call taken apart, compared, joined along the batch dimension, and split again.

Runs on the engine's main thread. Arguments are joined only where everything else about them is equal: nothing is
padded, because a model that sees padding makes another picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SHARED = ("img_ids", "txt_ids")
"""Positions, which FLUX passes once for all rows: equal length does not mean equal content."""
BATCHED = ("sample", "hidden_states")
"""What is denoised: it tells how many rows a call has."""

Path = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """The arguments of one call by name, in a form that can be joined. `kind` is equal where joining is allowed."""

    kind: Hashable
    rows: int
    arguments: Mapping[str, Any]


def pack(arguments: dict[str, Any], digest: Callable[[torch.Tensor], bytes]) -> Packed:
    """Take the arguments of a call apart. `digest` names the content of a tensor without batch dimension."""
    rows = next(arguments[name].shape[0] for name in BATCHED if name in arguments)
    if "timestep" in arguments:
        arguments = {**arguments, "timestep": _per_row(arguments["timestep"], rows)}
    return Packed(tuple(_kinds(arguments, rows, digest)), rows, arguments)


def join(calls: Sequence[Packed]) -> dict[str, Any]:
    """One set of arguments for all rows of calls of equal kind."""
    if len(calls) == 1:
        return dict(calls[0].arguments)

    def joined(path: Path, value: Any) -> Any:
        if not _has_rows(path, value, calls[0].rows):
            return value
        return torch.cat([_at(call.arguments, path) for call in calls])

    whole: dict[str, Any] = _walk((), calls[0].arguments, joined)
    return whole


def take(call: Packed, rows: Sequence[int]) -> Packed:
    """Some rows of a call, in this order, perhaps more than once, contiguous in memory."""

    def taken(path: Path, value: Any) -> Any:
        if not _has_rows(path, value, call.rows):
            return value
        return value[torch.tensor(rows, device=value.device)].contiguous()

    return Packed(call.kind, len(rows), _walk((), call.arguments, taken))


def split(result: tuple[torch.Tensor, ...], rows: Sequence[int]) -> list[tuple[torch.Tensor, ...]]:
    """The result of a joined call as the results of its parts; rows behind them are dropped."""
    if len(rows) == 1 and result[0].shape[0] == rows[0]:
        return [tuple(result)]
    sizes = [*rows, result[0].shape[0] - sum(rows)]
    parts = zip(*(torch.split(tensor, sizes) for tensor in result), strict=True)
    return list(parts)[: len(rows)]


def content(tensor: torch.Tensor) -> bytes:
    """A hash of what is in a tensor. Copies it to the CPU."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().float().numpy().tobytes()).digest()


def _per_row(value: Any, rows: int) -> torch.Tensor:
    # float32 holds every timestep exactly, and it is what the models make of them: so schedulers of whole and of
    # broken timesteps can share a forward.
    moment: torch.Tensor = torch.as_tensor(value, dtype=torch.float32)
    return moment.expand(rows) if moment.numel() == 1 else moment


def _kinds(arguments: Mapping[str, Any], rows: int, digest: Callable[[torch.Tensor], bytes]) -> Iterator[Hashable]:
    # Once for each job and step: so the arguments that are no containers are looked at without any ceremony.
    for name in sorted(arguments):
        value = arguments[name]
        if isinstance(value, dict | list | tuple):
            yield name, _kinds_within(name, value, rows, digest)
        else:
            yield name, _kind(name, value, rows, digest)


def _kinds_within(name: str, value: Any, rows: int, digest: Callable[[torch.Tensor], bytes]) -> Hashable:
    kinds: list[Hashable] = []
    _walk((), value, lambda path, leaf: kinds.append((path, _kind(name, leaf, rows, digest))))
    return tuple(kinds)


def _kind(name: Hashable, value: Any, rows: int, digest: Callable[[torch.Tensor], bytes]) -> Hashable:
    if not isinstance(value, torch.Tensor):
        # What cannot be compared by content is compared by being the same thing.
        return value if isinstance(value, Hashable) else id(value)
    shape = tuple(value.shape)
    if name in SHARED or not shape or shape[0] != rows:
        return "shared", shape, value.dtype, digest(value)
    return "rows", shape[1:], value.dtype


def _has_rows(path: Path, value: Any, rows: int) -> bool:
    return isinstance(value, torch.Tensor) and path[0] not in SHARED and value.dim() > 0 and value.shape[0] == rows


def _walk(path: Path, value: Any, leaf: Callable[[Path, Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _walk((*path, key), value[key], leaf) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return type(value)(_walk((*path, index), item, leaf) for index, item in enumerate(value))
    return leaf(path, value)


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value
