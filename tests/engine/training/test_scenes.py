"""Scenes, their drawings and their captions: what the demo model is taught, and what it is never shown."""

from __future__ import annotations

import random

import pytest

from rbee_sd.engine.training.captions import (
    BEHIND,
    COLOUR_WORDS,
    PLACE_WORDS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    WORDS,
    caption,
)
from rbee_sd.engine.training.drawing import draw
from rbee_sd.engine.training.scenes import (
    COLOURS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    held_out,
    outline,
    random_scene,
)

MANY = 4000


@pytest.fixture(scope="module")
def seen() -> list[Scene]:
    """Scenes as training has them."""
    chance = random.Random(1)
    return [random_scene(chance) for _ in range(MANY)]


@pytest.fixture(scope="module")
def unseen() -> list[Scene]:
    """Scenes as the evaluation has them."""
    chance = random.Random(2)
    return [random_scene(chance, unseen=True) for _ in range(MANY)]


def kinds(scene: Scene) -> list[bool]:
    """For each thing of a scene, whether its combination is kept from training."""
    return [held_out(thing.shape, thing.colour, scene.background) for thing in scene.things]


def words_of(text: str) -> set[str]:
    return set(text.replace(",", " ").replace(".", " ").split())


def test_training_sees_no_combination_that_is_held_out(seen: list[Scene]) -> None:
    assert not any(any(kinds(scene)) for scene in seen)


def test_the_evaluation_has_one_in_every_scene(unseen: list[Scene]) -> None:
    assert all(kinds(scene)[0] for scene in unseen)


def test_about_a_tenth_is_held_out_and_every_shape_and_colour_is_seen_and_tested(
    seen: list[Scene], unseen: list[Scene]
) -> None:
    combinations = [(shape, colour, ground) for shape in SHAPES for colour in COLOURS for ground in COLOURS]
    kept = [each for each in combinations if each[1] != each[2] and held_out(*each)]
    assert 0.07 < len(kept) / (len(SHAPES) * len(COLOURS) * (len(COLOURS) - 1)) < 0.15
    for scenes in (seen, unseen):
        things = [thing for scene in scenes for thing in scene.things]
        assert {thing.shape for thing in things} == set(SHAPES)
        assert {thing.colour for thing in things} == set(COLOURS)
        assert {thing.size for thing in things} == {*SIZES, None}
        assert {scene.background for scene in scenes} == set(COLOURS)
        assert {scene.position for scene in scenes} == {*POSITIONS, None}
        assert {scene.relation for scene in scenes} == {*RELATIONS, None}


def test_nothing_has_the_colour_of_what_is_behind_it(seen: list[Scene]) -> None:
    assert all(thing.colour != scene.background for scene in seen for thing in scene.things)


def test_the_same_numbers_give_the_same_scene_picture_and_caption() -> None:
    chances = random.Random(3), random.Random(3)
    first, second = (random_scene(chance) for chance in chances)
    assert first == second
    assert draw(first, 128, 96).tobytes() == draw(second, 128, 96).tobytes()
    assert caption(first, chances[0]) == caption(second, chances[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_outline_stays_near_one_unit(shape: str) -> None:
    points = [point for polygon in outline(shape) for point in polygon]
    assert 0.75 < max(abs(x) for x, _ in points) < 1.15
    assert 0.8 < max(abs(y) for _, y in points) < 1.15


def test_a_shape_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="no shape dragon"):
        outline("dragon")


@pytest.mark.parametrize("complete", [True, False])
def test_a_caption_says_nothing_that_is_not_so(seen: list[Scene], complete: bool) -> None:
    chance = random.Random(4)
    for scene in seen[:1500]:
        said = words_of(caption(scene, chance, complete=complete))
        colours = {scene.background, *(thing.colour for thing in scene.things)}
        shapes = {thing.shape for thing in scene.things}
        for colour, words in COLOUR_WORDS.items():
            assert colour in colours or not said & set(words), (scene, said)
        for shape, words in SHAPE_WORDS.items():
            assert shape in shapes or not said & set(words), (scene, said)


def test_a_complete_caption_leaves_out_nothing_that_is_scored(seen: list[Scene]) -> None:
    chance = random.Random(5)
    for scene in seen[:1500]:
        text = caption(scene, chance, complete=True)
        said = words_of(text)
        assert said & set(COLOUR_WORDS[scene.background]), text
        for thing in scene.things:
            assert said & set(COLOUR_WORDS[thing.colour]), text
            assert any(said >= set(words.split()) for words in SHAPE_WORDS[thing.shape]), text
            assert thing.size is None or said & set(SIZE_WORDS[thing.size]), text
        if scene.position is not None:
            assert any(said >= set(words.split()) for words in PLACE_WORDS[scene.position]), text


def test_one_scene_is_said_in_very_many_ways(seen: list[Scene]) -> None:
    chance = random.Random(6)
    scene = next(scene for scene in seen if scene.position is not None)
    assert len({caption(scene, chance) for _ in range(1000)}) > 500


def test_captions_may_leave_out_everything_but_not_all_of_it(seen: list[Scene]) -> None:
    chance = random.Random(7)
    assert all(words_of(caption(scene, chance)) & set(WORDS) for scene in seen)


def test_the_vocabulary_holds_every_word_that_means_something() -> None:
    for table in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, PLACE_WORDS, RELATION_WORDS):
        for ways in table.values():
            assert {word for way in ways for word in way.split()} <= set(WORDS)
    assert {"background", "backdrop", "two", "an"} <= set(WORDS)
    assert not any("{" in word for word in WORDS)
    assert BEHIND
