"""What a picture shows, found from its pixels alone, and how that compares with the scene that was asked for.

The colour most of the edge has is the background; what differs from it, in one piece, is a thing. Its colour is the
nearest of the palette, its shape the one whose outline, drawn by `drawing`, covers it best. CPU, one thread.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from rbee_sd.engine.training.drawing import silhouette
from rbee_sd.engine.training.scenes import COLOURS, PAIR_SIZES, POSITIONS, RELATIONS, SHAPES, SIZES, Scene, Thing

Pixels = npt.NDArray[Any]

FRAME = 3
"""Pixels at the edge that are background."""
CONTRAST = 45.0
"""Distance in sRGB from the background, half of that between the two nearest colours."""
SMALLEST = 0.003
"""Share of the picture that a thing has at least."""
CENTRAL = 0.085
"""Offsets up to this, as a fraction of the shorter side, are in the centre."""
APART = 0.12
"""How far two things are from each other, in the direction of their relation, at least."""
STAMP = 64
"""Side of what shapes are compared in; a thing's area is a quarter of it there."""
ANGLES = (-12, -6, 0, 6, 12)


@dataclass(frozen=True, slots=True)
class Found:
    """A thing in a picture. Place and radius in the units of `scenes`."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Sight:
    """What a picture shows, the largest thing first."""

    background: str
    things: tuple[Found, ...]


def look(picture: Image.Image) -> Sight:
    """What a picture shows."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    height, width, _ = pixels.shape
    edge = np.ones((height, width), dtype=bool)
    edge[FRAME:-FRAME, FRAME:-FRAME] = False
    background = np.median(pixels[edge], axis=0)
    pieces, count = ndimage.label(np.linalg.norm(pixels - background, axis=2) > CONTRAST)
    masks = [mask for mask in (pieces == number for number in range(1, count + 1)) if mask.mean() >= SMALLEST]
    masks.sort(key=lambda mask: -mask.sum())
    return Sight(_colour(background), tuple(_found(pixels, mask) for mask in masks))


def score(scene: Scene, sight: Sight) -> Counter[str]:
    """What is right ("colour" ...) and what was asked for ("colour of" ...): colour, shape and size count by thing."""
    counts: Counter[str] = Counter()

    def count(what: str, right: bool) -> None:
        counts[what] += right
        counts[f"{what} of"] += 1

    count("background", sight.background == scene.background)
    matched = _matched(scene, sight)
    for thing, found in zip(scene.things, matched, strict=True):
        count("colour", found is not None and found.colour == thing.colour)
        count("shape", found is not None and found.shape == thing.shape)
        if thing.size is not None:
            count("size", found is not None and _called(found.radius, len(scene.things)) == thing.size)
    if scene.position is not None or scene.relation is not None:
        count("position", _in_place(scene, matched))
    wrong = any(counts[what] < counts[f"{what} of"] for what in ("background", "colour", "shape", "size", "position"))
    count("all", not wrong and len(sight.things) == len(scene.things))
    return counts


def _colour(rgb: Pixels) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(rgb - np.array(COLOURS[name]))))


def _found(pixels: Pixels, mask: Pixels) -> Found:
    height, width = mask.shape
    unit = min(height, width)
    inner = ndimage.binary_erosion(mask, iterations=2)
    colour = np.median(pixels[inner if inner.any() else mask], axis=0)
    shape, covered = _shape(mask)
    # The middle between its edges: a triangle's centre of mass lies lower.
    ((rows, columns),) = ndimage.find_objects(mask.astype(np.uint8))
    y, x = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
    radius = math.sqrt(mask.sum() / covered)
    return Found(shape, _colour(colour), (x - width / 2) / unit, (y - height / 2) / unit, radius / unit)


def _shape(mask: Pixels) -> tuple[str, float]:
    """The best shape, and the area of one of radius 1."""
    stamp = _stamp(mask)

    def overlap(other: Pixels) -> float:
        return float(np.minimum(stamp, other).sum() / np.maximum(stamp, other).sum())

    shape, _ = max(_stamps(), key=lambda known: overlap(_stamps()[known]))
    return shape, _area(shape)


def _stamp(mask: Pixels) -> Pixels:
    """A mask brought to one area and centred."""
    y, x = ndimage.center_of_mass(mask)
    scale = math.sqrt(mask.sum()) / (STAMP / 2)
    offset = (y - scale * (STAMP - 1) / 2, x - scale * (STAMP - 1) / 2)
    return np.asarray(
        ndimage.affine_transform(mask.astype(np.float32), (scale, scale), offset, (STAMP, STAMP), order=1)
    )


@cache
def _stamps() -> dict[tuple[str, int], Pixels]:
    return {(shape, angle): _stamp(_drawn(shape, angle)) for shape in SHAPES for angle in ANGLES}


@cache
def _area(shape: str) -> float:
    return float(_drawn(shape, 0).sum()) / 100**2


def _drawn(shape: str, angle: float) -> Pixels:
    """A shape with a radius of 100 pixels."""
    thing = Thing(shape, "black", None, 1.0, 0.0, 0.0, angle, (0, 0, 0))
    mask, _, _ = silhouette(thing, 0.0, 0.0, 100)
    return np.asarray(mask, dtype=np.float32) / 255


def _matched(scene: Scene, sight: Sight) -> tuple[Found | None, ...]:
    """What was found for each thing asked for, so that as much as possible fits; place does not count here."""
    candidates: list[Found | None] = [*sight.things[:3], *(None for _ in scene.things)]

    def fit(found: tuple[Found | None, ...]) -> int:
        return sum(
            1 + 2 * (each.colour == thing.colour) + 2 * (each.shape == thing.shape)
            for thing, each in zip(scene.things, found, strict=True)
            if each is not None
        )

    # Of two alike, the first of the permutations in which the relation holds.
    return max(
        permutations(candidates, len(scene.things)),
        key=lambda found: (fit(found), _in_place(scene, found)),
    )


def _called(radius: float, things: int) -> str:
    sizes = SIZES if things == 1 else PAIR_SIZES
    return "small" if radius < (sizes["small"][1] + sizes["large"][0]) / 2 else "large"


def _in_place(scene: Scene, matched: tuple[Found | None, ...]) -> bool:
    found = [each for each in matched if each is not None]
    if len(found) < len(matched):
        return False
    if scene.relation is not None:
        across, down = RELATIONS[scene.relation]
        first, second = found
        apart = (first.x - second.x) * across + (first.y - second.y) * down
        aside = (first.x - second.x) * down + (first.y - second.y) * across
        return apart > max(APART, abs(aside))
    if scene.position is not None:
        return (_sign(found[0].x), _sign(found[0].y)) == POSITIONS[scene.position]
    return True


def _sign(offset: float) -> int:
    return 0 if abs(offset) <= CENTRAL else round(math.copysign(1, offset))
