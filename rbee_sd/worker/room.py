"""How many jobs the engine takes at once. Pure; front process.

The engine has measured how many jobs of the model's own size pay. A smaller picture counts as the part of those pixels
that it has: a model of 1024 x 1024 that has room for one picture has room for four of 512 x 512, and they share
forwards. A larger one counts as one. Smaller ones never keep a larger one out: there may always be another of them, and
never all of its room at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

ROUNDING = 1e-6


@dataclass(slots=True)
class Place:
    """A job in the engine, which takes `weight` of its room. `timer` runs from its cancellation on."""

    priority: int
    owner: str = ""
    model: str = ""
    weight: float = 1.0
    timer: asyncio.TimerHandle | None = None


def weight(pixels: int, native: int) -> float:
    """What a picture counts, of so many pixels (0: as many as the model's own, `native`)."""
    return min(1.0, pixels / native) if pixels else 1.0


def has_room(places: Collection[Place], wanted: Place, capacity: int, most: int) -> bool:
    """Whether one more job fits beside `places`, of the same model, that has room for `capacity` of its own size.

    `most`: jobs of any size. Those of higher priority come in above both, up to as much again, and so does the first of
    an owner who has none there: the engine parks others for them.
    """
    ahead = [place for place in places if place.priority >= wanted.priority]
    return (_fits(ahead, wanted, capacity, most) or wanted.owner not in {place.owner for place in ahead}) and _fits(
        places, wanted, 2 * capacity, 2 * most
    )


def _fits(places: Collection[Place], wanted: Place, capacity: int, most: int) -> bool:
    weights = wanted.weight + sum(place.weight for place in places if place.weight >= wanted.weight)
    return len(places) < most and weights < capacity + ROUNDING
