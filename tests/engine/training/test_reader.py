"""The questions that teach the text encoder to read."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rbee_sd.engine.training.reader import ANSWERS, NO_ANSWER, answers
from rbee_sd.engine.training.scenes import random_scene
from tests.engine.training.test_scoring import LONE, PAIR, change


def said(scene: object) -> dict[str, str | None]:
    """The answers in words; questions without one are left out."""
    numbers = answers(scene)  # type: ignore[arg-type]
    return {question: ANSWERS[question][number] for question, number in numbers.items() if number != NO_ANSWER}


def test_the_answers_on_a_lone_thing_leave_out_the_second() -> None:
    assert said(LONE) == {
        "background": "white",
        "place": "left",
        "colour 0": "red",
        "shape 0": "star",
        "size 0": "small",
    }
    assert said(replace(LONE, position=None))["place"] is None


@pytest.mark.parametrize("relation", ["left of", "right of"])
def test_of_two_the_left_one_is_the_first_however_it_is_said(relation: str) -> None:
    scene = PAIR if relation == "left of" else replace(PAIR, relation=relation, things=PAIR.things[::-1])
    assert said(scene) == {
        "background": "black",
        "place": "across",
        "colour 0": "green",
        "shape 0": "circle",
        "size 0": "large",
        "colour 1": "pink",
        "shape 1": "heart",
        "size 1": "small",
    }


def test_of_two_the_upper_one_is_the_first() -> None:
    below = replace(change(change(PAIR, 0, x=0.0, y=0.25), 1, x=0.02, y=-0.25), relation="below")
    assert said(below)["place"] == "down"
    assert said(below)["shape 0"] == "heart"


def test_every_scene_has_answers_that_exist() -> None:
    chance = random.Random(8)
    for _ in range(500):
        for question, number in answers(random_scene(chance)).items():
            assert number == NO_ANSWER or 0 <= number < len(ANSWERS[question])
