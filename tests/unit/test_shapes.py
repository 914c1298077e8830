"""`engine.shapes`: what is remembered of the kinds of calls, and how much."""

from __future__ import annotations

from rbee_sd.engine.shapes import KEPT, Shapes


def test_calls_of_one_kind_have_one_shape() -> None:
    shapes = Shapes()
    assert shapes.of(("a", 1)) is shapes.of(("a", 1))
    assert shapes.of(("a", 1)) is not shapes.of(("a", 2))
    assert shapes.of(("a", 1)) is not Shapes().of(("a", 1))


def test_no_more_shapes_are_kept_than_there_is_room_for_and_those_used_last_stay() -> None:
    shapes = Shapes()
    first = shapes.of(0)
    for kind in range(1, 3 * KEPT):
        shapes.of(kind)
        assert shapes.of(0) is first
    assert len(shapes) == KEPT
    shapes.of(-1)
    assert len(shapes) == KEPT


def test_what_the_model_is_compiled_for_stays() -> None:
    shapes = Shapes()
    own = shapes.of("own")
    own.compiled.add(2)
    for kind in range(2 * KEPT):
        shapes.of(kind)
    assert shapes.of("own") is own
