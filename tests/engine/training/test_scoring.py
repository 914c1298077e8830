"""The scorer: full marks for what the drawing code draws, and a mark less for exactly what is wrong."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rbee_sd.engine.training.drawing import draw
from rbee_sd.engine.training.scenes import COLOURS, RELATIONS, Scene, Thing, random_scene
from rbee_sd.engine.training.scoring import look, score

LONE = Scene(
    "white", COLOURS["white"], (Thing("star", "red", "small", 0.13, -0.3, 0.0, 5.0, COLOURS["red"]),), "left", None
)
PAIR = Scene(
    "black",
    COLOURS["black"],
    (
        Thing("circle", "green", "large", 0.18, -0.25, 0.0, 0.0, COLOURS["green"]),
        Thing("heart", "pink", "small", 0.11, 0.25, 0.02, 0.0, COLOURS["pink"]),
    ),
    None,
    "left of",
)


def marks(asked: Scene, drawn: Scene, width: int = 128, height: int = 128) -> Counter[str]:
    return +score(asked, look(draw(drawn, width, height)))


def wrong(counts: Counter[str]) -> set[str]:
    """What has fewer marks than it might have."""
    asked = [what for what in counts if what.endswith(" of")]
    return {what.removesuffix(" of") for what in asked if counts[what.removesuffix(" of")] < counts[what]}


def change(scene: Scene, number: int = 0, **changes: object) -> Scene:
    """The scene with one of its things changed."""
    things = list(scene.things)
    things[number] = replace(things[number], **changes)  # type: ignore[arg-type]
    return replace(scene, things=tuple(things))


@pytest.mark.parametrize(("width", "height"), [(128, 128), (160, 96), (96, 160), (256, 256)])
def test_every_drawn_scene_has_full_marks(width: int, height: int) -> None:
    chance = random.Random(width)
    for number in range(150):
        scene = random_scene(chance, width / height, unseen=number % 2 == 0)
        assert wrong(marks(scene, scene, width, height)) == set(), scene


def test_marks_are_counted_by_thing_and_by_picture() -> None:
    kinds = ("background", "colour", "shape", "size", "position", "all")
    assert marks(LONE, LONE) == Counter([*kinds, *(f"{what} of" for what in kinds)])
    assert marks(PAIR, PAIR)["colour of"] == 2
    assert marks(PAIR, PAIR)["shape"] == 2


def test_what_a_caption_does_not_say_is_not_counted() -> None:
    silent = change(replace(LONE, position=None), size=None)
    counts = marks(silent, LONE)
    assert counts["size of"] == counts["position of"] == 0
    assert counts["all"] == 1


@pytest.mark.parametrize(
    ("drawn", "lost"),
    [
        (change(LONE, colour="blue", rgb=COLOURS["blue"]), {"colour"}),
        (replace(LONE, background="yellow", rgb=COLOURS["yellow"]), {"background"}),
        (change(LONE, shape="circle"), {"shape"}),
        (change(LONE, radius=0.26, x=-0.2), {"size"}),
        (change(LONE, x=0.0), {"position"}),
        (change(LONE, x=0.3), {"position"}),
        (change(LONE, y=-0.3), {"position"}),
        (replace(LONE, things=()), {"colour", "shape", "size", "position"}),
        (replace(LONE, things=(*LONE.things, replace(LONE.things[0], x=0.3))), set()),
    ],
)
def test_a_lone_thing_loses_the_marks_of_what_is_wrong(drawn: Scene, lost: set[str]) -> None:
    assert wrong(marks(LONE, drawn)) == lost | {"all"}


@pytest.mark.parametrize(
    ("drawn", "lost"),
    [
        (replace(PAIR, things=PAIR.things[:1]), {"colour": 1, "shape": 1, "size": 1, "position": 0}),
        (change(change(PAIR, 0, x=0.25), 1, x=-0.25), {"position": 0}),
        (change(change(PAIR, 0, x=0.0, y=-0.25), 1, x=0.0, y=0.25), {"position": 0}),
        (change(PAIR, 1, shape="star"), {"shape": 1}),
        (change(PAIR, 1, colour="white", rgb=COLOURS["white"]), {"colour": 1}),
        (change(PAIR, 0, radius=0.11), {"size": 1}),
    ],
)
def test_a_pair_loses_the_marks_of_what_is_wrong(drawn: Scene, lost: dict[str, int]) -> None:
    full = marks(PAIR, PAIR)
    assert marks(PAIR, drawn) == +Counter({**full, **lost, "all": 0})


def test_the_right_colours_on_the_wrong_shapes_are_wrong() -> None:
    swapped = change(change(PAIR, 0, colour="pink", rgb=COLOURS["pink"]), 1, colour="green", rgb=COLOURS["green"])
    counts = marks(PAIR, swapped)
    assert counts["colour"] + counts["shape"] == 2
    assert counts["all"] == 0


@pytest.mark.parametrize("relation", RELATIONS)
def test_two_alike_are_in_relation_whichever_is_first(relation: str) -> None:
    alike = change(PAIR, 1, shape="circle", colour="green", rgb=COLOURS["green"], size=None)
    across, down = RELATIONS[relation]
    alike = change(change(alike, 0, x=0.25 * across, y=0.25 * down, size=None), 1, x=-0.25 * across, y=-0.25 * down)
    alike = replace(alike, relation=relation)
    swapped = replace(alike, things=alike.things[::-1])
    assert wrong(marks(alike, swapped)) == set()


def chequers() -> Image.Image:
    squares = np.indices((16, 16)).sum(axis=0) % 2 * 255
    return Image.fromarray(squares.astype(np.uint8)).resize((128, 128), Image.Resampling.NEAREST)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))


@pytest.mark.parametrize(
    "picture",
    [lambda: Image.new("RGB", (128, 128)), lambda: Image.linear_gradient("L").resize((128, 128)), noise, chequers],
    ids=["black", "ramp", "noise", "chequers"],
)
def test_a_picture_of_nothing_in_particular_gets_no_marks_and_does_no_harm(
    picture: Callable[[], Image.Image],
) -> None:
    counts = score(PAIR, look(picture()))
    assert counts["all"] == 0
    assert counts["all of"] == 1
