"""`http.openai`: which previews are passed on, and what requests become."""

from __future__ import annotations

from typing import Any

import pytest

from rbee_sd.errors import RequestError, SettingsError
from rbee_sd.http.openai.answers import Partials
from rbee_sd.http.openai.models import ModelNames
from rbee_sd.http.openai.requests import EditRequest, GenerationRequest, VariationRequest
from rbee_sd.messages import Ready
from rbee_sd.operations.body import validate
from rbee_sd.operations.limits import Limits
from rbee_sd.settings import Settings

LIMITS = Limits(Settings(), ("demo",), lambda: Ready("demo", "sd", "cpu", "float32", 1, 128, 128, 4, 1.0))
LOADING = Limits(Settings(), ("demo",), lambda: None)


def passed(count: int, steps: list[int], total: int = 20, index: int = 0) -> list[int]:
    """The steps whose previews are passed on, of those that there are previews of."""
    partials = Partials(count)
    numbers = [partials.number({"index": index, "step": step, "total": total}) for step in steps]
    assert [number for number in numbers if number is not None] == list(range(sum(n is not None for n in numbers)))
    return [step for step, number in zip(steps, numbers, strict=True) if number is not None]


def test_previews_are_passed_on_in_equal_parts_of_the_way() -> None:
    every = list(range(1, 20))
    assert passed(0, every) == []
    assert passed(1, every) == [10]
    assert passed(2, every) == [7, 14]
    assert passed(3, every) == [5, 10, 15]


def test_where_previews_are_few_those_there_are_are_passed_on_once() -> None:
    assert passed(3, [17, 19]) == [17]
    assert passed(3, [6, 8, 19]) == [6, 19]
    assert passed(3, [1, 2, 3]) == []
    assert passed(3, [1], total=2) == [1]


def test_each_image_has_its_own() -> None:
    partials = Partials(2)
    numbers = [partials.number({"index": n % 2, "step": 7 + n // 2, "total": 20}) for n in range(4)]
    assert numbers == [0, 0, None, None]


def asked(limits: Limits = LIMITS, **fields: Any) -> dict[str, Any]:
    """What a generation becomes."""
    return validate(GenerationRequest, {"prompt": "a"} | fields, limits).fields(limits)


def test_nothing_is_named_that_was_left_open() -> None:
    assert asked() == {"operation": "image_generation", "prompt": "a", "count": 1, "format": "png"}
    assert asked(size="auto", quality="auto", seed=5)["seed"] == 5


def test_quality_scales_the_steps_of_the_model_within_what_is_allowed() -> None:
    assert [asked(quality=quality)["steps"] for quality in ("low", "high", "max")] == [2, 6, 12]
    one = Limits(Settings(max_steps=5), ("demo",), LIMITS.loaded)
    assert asked(one, quality="max")["steps"] == 5
    assert asked(quality="max", steps=1)["steps"] == 1
    assert "steps" not in asked(LOADING, quality="max")


def test_previews_are_made_only_for_a_stream_that_wants_them() -> None:
    assert "preview" not in asked(stream=True)
    assert "preview" not in asked(partial_images=3)
    assert asked(stream=True, partial_images=1)["preview"] is True


@pytest.mark.parametrize(
    ("operations", "operation"),
    [
        (("image_generation", "image_transform", "image_inpaint"), "image_inpaint"),
        (("image_inpaint",), "image_inpaint"),
        (("image_generation", "image_transform"), "image_transform"),
    ],
)
def test_an_edit_without_a_mask_is_what_the_model_can_do(operations: tuple[str, ...], operation: str) -> None:
    ready = Ready("demo", "sd", "cpu", "float32", 1, 128, 128, 4, 1.0, operations=operations)
    limits = Limits(Settings(), ("demo",), lambda: ready)
    fields = validate(EditRequest, {"prompt": "a", "image": b"png"}, limits).fields(limits)
    assert fields["operation"] == operation
    assert fields.get("mask_means") == ("alpha" if operation == "image_inpaint" else None)


def test_texts_of_a_form_are_the_numbers_that_they_say() -> None:
    fields = {
        "image": b"png",
        "n": "2",
        "strength": "0.5",
        "seed": "7",
        "exclusive": "true",
        "loras": '[{"name": "x"}]',
    }
    found = validate(VariationRequest, fields, LIMITS).fields(LIMITS)
    assert found == {
        "operation": "image_transform",
        "image": b"png",
        "count": 2,
        "strength": 0.5,
        "seed": 7,
        "exclusive": True,
        "loras": [{"name": "x"}],
    }


def names(*aliases: str) -> ModelNames:
    """The names that are taken with these `model_aliases`."""
    return ModelNames(Limits(Settings(model_aliases=aliases), ("demo", "other"), lambda: None))


def test_an_alias_goes_before_what_a_name_would_mean_otherwise() -> None:
    assert names().resolve(None) is None
    assert names().resolve("other") == "other"
    assert names().resolve("gpt-image-1") is None
    assert names("gpt-image-1 = other").resolve("gpt-image-1") == "other"
    assert names("mine=dall-e-3").resolve("mine") is None


@pytest.mark.parametrize("name", ["", "gpt-4o", "gpt-images", "Demo", "demo ", "dall-e-" + "x" * 60, "dall-e-3\n"])
def test_any_other_name_is_unknown(name: str) -> None:
    with pytest.raises(RequestError) as unknown:
        names("mine=gone").resolve(name)
    assert (unknown.value.status, unknown.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("entry", ["demo", "=demo", "mine=", "="])
def test_an_alias_that_is_none_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="gpt-image-1=demo"):
        names(entry)
