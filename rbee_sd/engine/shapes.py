"""The kinds of calls that a denoiser has met, sizes and lengths above all, and what is known of each.

Runs on the engine's main thread. Knows no torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from rbee_sd.engine.knee import Curve

KEPT = 256
"""Shapes. Clients choose sizes as they like; of one that is forgotten, the file of curves still knows."""


class Shape:
    """Calls of one kind. Compared by identity: that is quick in each step, and no other model has the same.

    `curve` is None until somebody asks for it. `compiled`: numbers of rows for which the module is compiled.
    """

    __slots__ = ("compiled", "curve")

    def __init__(self) -> None:
        self.curve: Curve | None = None
        self.compiled: set[int] = set()


class Shapes:
    """The shapes met last, and those for which the module is compiled."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Shape] = OrderedDict()

    def of(self, kind: Hashable) -> Shape:
        """The shape of calls of this kind."""
        shape = self._kept.get(kind)
        if shape is not None:
            self._kept.move_to_end(kind)
            return shape
        shape = self._kept[kind] = Shape()
        if len(self._kept) > KEPT:
            del self._kept[next(each for each, known in self._kept.items() if not known.compiled)]
        return shape

    def __len__(self) -> int:
        return len(self._kept)
