"""Encoded prompts, kept for the next job that has the same: it gets the same tensors, so nothing is lost by it.

Runs on the engine's main thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from rbee_sd.engine.loras import LoraSet


class PromptCache:
    """The results of a pipeline's `encode_prompt`, the `limit` used last."""

    def __init__(self, encode: Callable[..., Any], limit: int) -> None:
        self._encode = encode
        self._limit = limit
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.hits = 0

    def under(self, loras: LoraSet) -> Callable[..., Any]:
        """An `encode_prompt` for a job with these LoRAs, which change what the text encoders say."""

        def encode_prompt(*arguments: Any, **named: Any) -> Any:
            if any(isinstance(value, torch.Tensor) for value in (*arguments, *named.values())):
                return self._encode(*arguments, **named)
            key = (loras, _frozen(arguments), _frozen(tuple(sorted(named.items()))))
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key]
            result = self._kept[key] = self._encode(*arguments, **named)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
            return result

        return encode_prompt


def _frozen(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value if isinstance(value, Hashable) else repr(value)
