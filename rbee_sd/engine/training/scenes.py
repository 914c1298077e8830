"""What a picture of the demo model can show: shapes, colours, places; and which combinations training never sees.

No torch and no pixels: `drawing` draws a scene, `captions` says it in words, `scoring` finds it in a picture again.
Lengths are fractions of the picture's shorter side, places are offsets from its centre in the same unit, y downwards.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent")

COLOURS = {
    "red": (222, 32, 36),
    "orange": (250, 138, 20),
    "yellow": (252, 226, 44),
    "green": (36, 158, 60),
    "blue": (34, 74, 216),
    "purple": (132, 44, 174),
    "pink": (250, 150, 196),
    "black": (14, 14, 16),
    "white": (244, 244, 244),
}
"""Names and sRGB values, far enough apart that the nearest one is never in doubt."""

SIZES = {"small": (0.14, 0.16), "large": (0.27, 0.31)}
"""Radii of what is called so, alone in its picture."""
ANY_SIZE = (0.15, 0.3)
PAIR_SIZES = {"small": (0.125, 0.14), "large": (0.19, 0.205)}
ANY_PAIR_SIZE = (0.13, 0.2)

POSITIONS = {
    "centre": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
"""Names of places, as signs of the offsets."""

RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Where the first of two things is, seen from the second."""

MARGIN = 0.03
"""From what is at a side to the picture's edge."""
SHADE = 6
"""Colours vary by so many of 255 levels."""
PAIRS = 0.35
"""Share of scenes with two things."""
HELD_OUT = 10
"""One combination of shape, colour and background out of so many is kept from training."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape. `size` is what a caption may call it, None for nothing in particular; `angle` in degrees."""

    shape: str
    colour: str
    size: str | None
    radius: float
    x: float
    y: float
    angle: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture. `position` is the name of a lone thing's place, None for none in particular."""

    background: str
    rgb: tuple[int, int, int]
    things: tuple[Thing, ...]
    position: str | None = None
    relation: str | None = None


def held_out(shape: str, colour: str, background: str) -> bool:
    """Whether training never sees this combination, in no picture and no caption."""
    return zlib.crc32(f"{shape} {colour} {background}".encode()) % HELD_OUT == 0


def random_scene(chance: random.Random, ratio: float = 1.0, *, unseen: bool = False) -> Scene:
    """A scene for a picture `ratio` times as wide as high: of what training may see, or with what it may not."""
    while True:
        background = chance.choice(list(COLOURS))
        pair = chance.random() < PAIRS
        kinds = [_kind(chance, background) for _ in range(2 if pair else 1)]
        if pair and chance.random() < 0.1:
            kinds[1] = kinds[0]
        if held_out(*kinds[0], background) != unseen:
            continue
        if unseen or not any(held_out(*kind, background) for kind in kinds):
            break
    half = (max(ratio, 1.0) / 2, max(1 / ratio, 1.0) / 2)
    place = _pair if pair else _single
    return place(chance, kinds, background, half)


def _kind(chance: random.Random, background: str) -> tuple[str, str]:
    return chance.choice(SHAPES), chance.choice([colour for colour in COLOURS if colour != background])


def _single(chance: random.Random, kinds: list[tuple[str, str]], background: str, half: tuple[float, float]) -> Scene:
    size, radius = _size(chance, SIZES, ANY_SIZE)
    position = chance.choice(list(POSITIONS)) if chance.random() < 0.65 else None
    if position is None:
        x, y = chance.uniform(-0.12, 0.12), chance.uniform(-0.12, 0.12)
    else:
        x, y = (
            sign * (side - radius - MARGIN - chance.uniform(0, 0.04)) if sign else chance.uniform(-0.03, 0.03)
            for sign, side in zip(POSITIONS[position], half, strict=True)
        )
    thing = _thing(chance, kinds[0], size, radius, x, y)
    return Scene(background, _shade(chance, background), (thing,), position)


def _pair(chance: random.Random, kinds: list[tuple[str, str]], background: str, half: tuple[float, float]) -> Scene:
    relation = chance.choice(list(RELATIONS))
    across, down = RELATIONS[relation]
    things = []
    for kind, side in zip(kinds, (1, -1), strict=True):
        size, radius = _size(chance, PAIR_SIZES, ANY_PAIR_SIZE)
        # Beside each other at a quarter and three quarters of the picture, give or take.
        x, y = (
            sign * side * (length / 2 + chance.uniform(-0.02, 0.02)) if sign else chance.uniform(-0.05, 0.05)
            for sign, length in zip((across, down), half, strict=True)
        )
        things.append(_thing(chance, kind, size, radius, x, y))
    return Scene(background, _shade(chance, background), tuple(things), None, relation)


def _size(
    chance: random.Random, named: dict[str, tuple[float, float]], anything: tuple[float, float]
) -> tuple[str | None, float]:
    size = chance.choice([*named, None])
    return size, chance.uniform(*(anything if size is None else named[size]))


def _thing(chance: random.Random, kind: tuple[str, str], size: str | None, radius: float, x: float, y: float) -> Thing:
    shape, colour = kind
    return Thing(shape, colour, size, radius, x, y, chance.uniform(-12, 12), _shade(chance, colour))


def _shade(chance: random.Random, colour: str) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, level + chance.randint(-SHADE, SHADE))) for level in COLOURS[colour])
    return red, green, blue


def outline(shape: str) -> list[list[tuple[float, float]]]:
    """A shape's polygons, to fill by the even-odd rule; about one unit from the origin to the outermost points.

    They are scaled so that shapes of one radius look about equally large.
    """
    match shape:
        case "circle":
            return [_arc(1.0)]
        case "square":
            return [[(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]]
        case "triangle":
            return [[(0.0, -1.0), (1.05, 0.82), (-1.05, 0.82)]]
        case "star":
            # The inner radius of a pentagram, (3 - sqrt 5) / 2 of the outer one, made a little stouter.
            radii = (1.12, 0.48)
            return [[_polar(radii[i % 2], -90 + 36 * i) for i in range(10)]]
        case "ring":
            return [_arc(1.0), _arc(0.52)]
        case "cross":
            arm = 0.32
            quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
            turned = [quarter]
            for _ in range(3):
                turned.append([(-y, x) for x, y in turned[-1]])
            return [[point for part in turned for point in part]]
        case "heart":
            # The well-known curve 16 sin^3 t, 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, brought to one unit.
            turns = [2 * math.pi * i / 64 for i in range(64)]
            return [
                [
                    (
                        16 * math.sin(t) ** 3 / 16.5,
                        -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5) / 16.5,
                    )
                    for t in turns
                ]
            ]
        case "crescent":
            # A disc less another of 0.83 that lies 0.5 to the right; the arcs meet at 112.8 degrees below.
            outer = [_polar(1.0, angle) for angle in _between(57.0, 303.0)]
            inner = _inner_arc(outer[-1], outer[0], 0.5)
            return [[(x + 0.25, y) for x, y in outer + inner]]
    raise ValueError(f"no shape {shape}")


def _polar(radius: float, degrees: float) -> tuple[float, float]:
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


def _between(first: float, last: float) -> list[float]:
    return [first + (last - first) * i / 40 for i in range(41)]


def _arc(radius: float) -> list[tuple[float, float]]:
    return [_polar(radius, 360 * i / 64) for i in range(64)]


def _inner_arc(start: tuple[float, float], end: tuple[float, float], centre: float) -> list[tuple[float, float]]:
    """From `start` to `end`, which mirror each other, round (`centre`, 0), past the side that faces the left."""
    radius = math.hypot(start[0] - centre, start[1])
    first = math.degrees(math.atan2(start[1], start[0] - centre)) % 360
    last = math.degrees(math.atan2(end[1], end[0] - centre)) % 360
    return [(centre + x, y) for x, y in (_polar(radius, angle) for angle in _between(first, last))]
