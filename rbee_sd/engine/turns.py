"""Whose turn it is: which of the parked calls make up the next forward. Pure; knows neither torch nor greenlets.

Of calls that wait, one lane is chosen, and as many calls of one signature in it as its cap has rows for:

* higher priority first, always; a lower one stays parked where it is and loses nothing;
* owners take turns, whatever they have waiting; the lanes of an owner (signatures, which cannot share a forward) take
  turns as well. Who, or what, is new stands before those that had the last forward and behind all others: nobody gets
  ahead by coming anew again and again;
* within a signature owners take turns, each with its first job, if not all fit; then first come, first served, which
  finishes jobs sooner than stepping all of them a little. A newcomer goes before its owner's other jobs once, so that
  it is seen to begin, but only in every other forward of its owner.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
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
    """Remembers which owner, and which lane, had its turn when."""

    def __init__(self) -> None:
        self._turn = 0
        self._owners: dict[str, float] = {}
        self._lanes: dict[tuple[str, Hashable], float] = {}
        self._welcomed: frozenset[str] = frozenset()

    def choose(self, waiting: Sequence[W]) -> list[W]:
        """The calls of the next forward, at least one. `waiting` must not be empty."""
        self._turn += 1
        new = self._turn - 1.5
        self._owners = {each.owner: self._owners.get(each.owner, new) for each in waiting}
        self._lanes = {_lane(each): self._lanes.get(_lane(each), new) for each in waiting}
        taken = list(waiting) if len(waiting) == 1 else self._chosen(waiting)
        self._owners |= {each.owner: self._turn for each in taken}
        self._lanes |= {_lane(each): self._turn for each in taken}
        newcomers = frozenset(each.owner for each in taken if not each.begun)
        self._welcomed = newcomers | (self._welcomed & self._owners.keys() - {each.owner for each in taken})
        return taken

    def _chosen(self, waiting: Sequence[W]) -> list[W]:
        line = in_line(waiting, self._owners, self._welcomed)
        foremost = [each for each in line if each.priority == line[0].priority]
        # `min` takes the first of equals: the one that is first in line.
        leader = min(foremost, key=lambda each: (self._owners[each.owner], self._lanes[_lane(each)]))
        # In the order among themselves: what an owner has in other lanes must not cost it its turn in this one.
        alike = [each for each in waiting if each.call.signature == leader.call.signature]
        return _fitting(in_line(alike, self._owners, self._welcomed))


def in_line(waiting: Sequence[W], served: Mapping[str, float], welcomed: Collection[str] = ()) -> list[W]:
    """Everyone who waits, in the order in which rows are given out.

    `served`: when each owner had its last turn. `welcomed`: owners whose last forward had a newcomer of theirs in it.
    """
    jobs: dict[tuple[int, str], dict[int, bool]] = {}
    for each in waiting:
        jobs.setdefault((each.priority, each.owner), {}).setdefault(each.place, each.begun)
    ranks = {key: _ranks(places, key[1] not in welcomed) for key, places in jobs.items()}

    def place(each: W) -> tuple[float, ...]:
        return -each.priority, ranks[each.priority, each.owner][each.place], served[each.owner], each.place

    return sorted(waiting, key=place)


def _ranks(begun: Mapping[int, bool], welcoming: bool) -> dict[int, int]:
    """The order of one owner's jobs, by their places: first come, first served, but for one newcomer."""
    order = sorted(begun)
    newcomer = next((place for place in order if welcoming and not begun[place]), order[0])
    order.remove(newcomer)
    return {place: rank for rank, place in enumerate([newcomer, *order])}


def _lane(each: Waiting) -> tuple[str, Hashable]:
    # Of this owner: who shares it with others has its own turns in it.
    return each.owner, each.call.lane


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
