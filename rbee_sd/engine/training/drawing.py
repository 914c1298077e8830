"""Draws scenes: flat colours, smooth edges. CPU, one thread."""

from __future__ import annotations

import math

from PIL import Image, ImageChops, ImageDraw

from rbee_sd.engine.training.scenes import Scene, Thing, outline

OVERSAMPLING = 4
"""Shapes are drawn so many times as large and reduced, which makes their edges smooth."""


def draw(scene: Scene, width: int, height: int) -> Image.Image:
    """The picture, RGB."""
    picture = Image.new("RGB", (width, height), scene.rgb)
    unit = min(width, height)
    for thing in scene.things:
        mask, left, top = silhouette(thing, width / 2 + thing.x * unit, height / 2 + thing.y * unit, unit)
        picture.paste(thing.rgb, (left, top), mask)
    return picture


def silhouette(thing: Thing, x: float, y: float, unit: float) -> tuple[Image.Image, int, int]:
    """How much of each pixel a thing covers that is centred at (`x`, `y`), and where those pixels begin."""
    radius = thing.radius * unit
    reach = math.ceil(radius * 1.3) + 1
    left, top = math.floor(x) - reach, math.floor(y) - reach
    side = 2 * reach + 1
    turn = math.radians(thing.angle)
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    mask = Image.new("1", (side * OVERSAMPLING, side * OVERSAMPLING))
    for polygon in outline(thing.shape):
        points = [
            ((x - left + cos * px - sin * py) * OVERSAMPLING, (y - top + sin * px + cos * py) * OVERSAMPLING)
            for px, py in polygon
        ]
        part = Image.new("1", mask.size)
        ImageDraw.Draw(part).polygon(points, fill=1)
        mask = ImageChops.logical_xor(mask, part)
    return mask.convert("L").reduce(OVERSAMPLING), left, top
