"""Whose turn it is: which of the parked calls make up the next forward. Pure; knows neither torch nor greenlets.

Of calls that wait, one lane is chosen, and as many calls of one signature in it as its cap has rows for:

* higher priority first, always; a lower one stays parked where it is and loses nothing;
* lanes (signatures, which cannot share a forward) alternate, the one that waited longest first;
* within a signature a job's first step goes before others' later ones, so that a newcomer is seen to begin; then
  owners take turns, each with its first job, if not all of these fit; then first come, first served, which finishes
  jobs sooner than stepping all of them a little.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, TypeVar

from rbee_sd.engine.calls import Call


class Waiting(Protocol):
    """One image of a job that waits for a forward."""

    @property
    def call(self) -> Call:
        """What it waits for."""

    @property
    def priority(self) -> int:
        """Of its job."""

    @property
    def owner(self) -> str:
        """Of its job."""

    @property
    def place(self) -> int:
        """Of its job in the order in which jobs came."""

    @property
    def begun(self) -> bool:
        """Whether it has had a forward before."""


W = TypeVar("W", bound=Waiting)


class Turns:
    """Remembers which lane, and which owner, had its turn when."""

    def __init__(self) -> None:
        self._turn = 0
        self._served: dict[Hashable, int] = {}
        self._owners: dict[str, int] = {}

    def choose(self, waiting: Sequence[W]) -> list[W]:
        """The calls of the next forward, at least one. `waiting` must not be empty."""
        self._turn += 1
        if len(waiting) == 1:
            self._served = {waiting[0].call.lane: self._turn}
            self._owners = {waiting[0].owner: self._turn}
            return list(waiting)
        self._served = {each.call.lane: self._served.get(each.call.lane, -1) for each in waiting}
        self._owners = {each.owner: self._owners.get(each.owner, -1) for each in waiting}
        line = in_line(waiting, self._owners)
        foremost = [each for each in line if each.priority == line[0].priority]
        # `min` takes the first of equals: the lane of who is first in line.
        leader = min(foremost, key=lambda each: self._served[each.call.lane])
        self._served[leader.call.lane] = self._turn
        taken = _fitting([each for each in line if each.call.signature == leader.call.signature])
        self._owners |= {each.owner: self._turn for each in taken}
        return taken


def in_line(waiting: Sequence[W], served: Mapping[str, int]) -> list[W]:
    """Everyone who waits, in the order in which rows are given out. `served`: when each owner had its last turn."""
    places: dict[str, list[int]] = {}
    for each in waiting:
        places.setdefault(each.owner, []).append(each.place)
    ranks = {owner: sorted(set(of_owner)) for owner, of_owner in places.items()}

    def place(each: W) -> tuple[int, ...]:
        rank = ranks[each.owner].index(each.place)
        return -each.priority, each.begun, rank, served[each.owner], each.place

    return sorted(waiting, key=place)


def _fitting(line: Sequence[W]) -> list[W]:
    """As many as the rows allow; who is too wide for what is left lets a narrower one pass."""
    left = line[0].call.denoiser.cap(line[0].call)
    taken = [line[0]]
    left -= line[0].call.rows
    for each in line[1:]:
        if each.call.rows <= left:
            taken.append(each)
            left -= each.call.rows
    return taken
