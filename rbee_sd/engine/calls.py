"""What a job waits for while it is parked: a forward that it may share, or a stage that it has to itself.

Runs in the engine process, on its main thread. Imports nothing heavy: how calls are chosen, shared and taken apart
when they fail can be tested without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from greenlet import getcurrent


class Denoiser(Protocol):
    """What does the forwards of a model."""

    def forward(self, calls: Sequence[Call]) -> list[Any]:
        """Do calls of one signature as one forward; their results, in order. Raises what the model raises."""

    def cap(self, call: Call) -> int:
        """How many rows a forward of such calls may have."""

    def is_too_large(self, error: Exception) -> bool:
        """Whether fewer rows may do what failed with `error`."""

    def shrink(self, call: Call, rows: int) -> None:
        """A forward of so many rows was too large: let those like it be smaller from now on."""

    def halve(self, call: Call) -> tuple[Call, Call]:
        """The call as two of fewer rows."""

    def join(self, first: Any, second: Any) -> Any:
        """The result of a call from those of its halves."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A denoiser's forward that a job waits for. Calls of equal `signature` may be done as one.

    `lane` is what takes turns with others: the signature, except that the images of a job that wants to be alone, none
    of which shares a forward, have one lane together. `shape` is what the time of a forward depends on: the signature
    less the state of the module and the wish to be alone; what it is, is the denoiser's own business. `rows` of the
    batch dimension are this call's. `label`: width and height in pixels, for people.
    """

    denoiser: Denoiser
    shape: Any
    signature: Hashable
    lane: Hashable
    rows: int
    arguments: Any
    label: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Something else a job waits for, to be done on its own between two forwards."""

    run: Callable[[], Any]


def park(wanted: Call | Stage) -> Any:
    """Wait, inside a job's greenlet, until the engine has done what is `wanted`; returns the result.

    Raises what the model raised, or what ends the job.
    """
    parent = getcurrent().parent
    if parent is None:
        raise RuntimeError("only a job can be parked")
    return parent.switch(wanted)
