"""`operations.image`: what an `image_generation`, and every other image operation, may ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.messages import FORMATS, SCHEDULERS, Generate, Ready
from rbee_sd.operations.body import validate
from rbee_sd.operations.generation import ImageGeneration
from rbee_sd.operations.image import order_image
from rbee_sd.operations.json_object import SHOWN
from rbee_sd.operations.limits import MAX_PROMPT, Limits
from rbee_sd.settings import Settings

READY = Ready("demo", "sd", "cpu", "float32", 1, 128, 96, 10, 5.0)
LORAS = ("pixel art", "watercolour")
LIMITS = Limits(Settings(), ("demo",), lambda: READY, LORAS)
PATHS = [
    "../x",
    "/etc/passwd",
    "..\\x",
    "%2e%2e",
    "",
    ".",
    "~",
    "x" * 300,
    "demo/",
    "./demo",
    "DEMO",
    "demo\0",
    " demo",
]


def accept(limits: Limits = LIMITS, **fields: Any) -> ImageGeneration:
    """Validate a request with a good prompt and these fields."""
    return validate(ImageGeneration, {"prompt": "a red circle"} | fields, limits)


def errors(limits: Limits = LIMITS, **fields: Any) -> dict[str, FieldError]:
    """The wrong fields of such a request, by name."""
    with pytest.raises(RequestError) as caught:
        accept(limits, **fields)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    found = {field.field: field for field in caught.value.fields}
    assert len(found) == len(caught.value.fields)
    return found


def limited(**changes: Any) -> Limits:
    """Limits with other settings."""
    return Limits(Settings(**changes), ("demo",), lambda: READY)


def test_all_but_the_prompt_is_optional() -> None:
    request = accept()
    assert (request.steps, request.width, request.height, request.guidance_scale) == (None, None, None, None)
    assert (request.count, request.on_disconnect, request.priority) == (1, "cancel", 0)


def test_the_request_of_the_contract_is_accepted() -> None:
    fields: dict[str, Any] = {
        "operation": "image_generation",
        "prompt": "a red circle on a blue background",
        "negative_prompt": "blurry",
        "steps": 20,
        "guidance_scale": 7.5,
        "seed": 42,
        "width": 128,
        "height": 128,
        "scheduler": "euler",
        "count": 1,
        "model": "demo",
        "on_disconnect": "cancel",
        "preview": True,
        "priority": 0,
    }
    assert accept(**fields).model_dump(exclude_unset=True) == fields
    assert accept(**fields, hive_id="localhost", worker_id="worker-1", timeout=30).timeout == 30.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", "a\0b"),
        ("prompt", "x" * (MAX_PROMPT + 1)),
        ("prompt", 1),
        ("prompt", ["a"]),
        ("prompt", None),
        ("negative_prompt", "\0"),
        ("negative_prompt", "x" * (MAX_PROMPT + 1)),
        ("negative_prompt", None),
        ("steps", 0),
        ("steps", -1),
        ("steps", 151),
        ("steps", 20.0),
        ("steps", "20"),
        ("steps", True),
        ("steps", None),
        ("steps", 2**62),
        ("guidance_scale", -0.1),
        ("guidance_scale", 50.1),
        ("guidance_scale", "7"),
        ("guidance_scale", True),
        ("guidance_scale", 1e308),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
        ("seed", True),
        ("seed", "42"),
        *[
            (side, value)
            for side in ("width", "height")
            for value in (7, 0, -8, 1, 63, 65, 100, 2056, 128.0, True, "128")
        ],
        ("scheduler", "Euler"),
        ("scheduler", ""),
        ("scheduler", "euler "),
        ("scheduler", 1),
        ("count", 0),
        ("count", -1),
        ("count", 9),
        ("count", True),
        ("count", 1.0),
        ("model", "other"),
        ("model", 1),
        ("on_disconnect", "Cancel"),
        ("on_disconnect", ""),
        ("on_disconnect", True),
        ("preview", 1),
        ("preview", "true"),
        ("exclusive", 1),
        ("exclusive", None),
        ("loras", "watercolour"),
        ("loras", {"name": "watercolour"}),
        ("loras", [{"name": "watercolour"}, {"name": "watercolour", "scale": 0.5}]),
        ("loras", [{"name": "watercolour"}] * 9),
        ("format", "gif"),
        ("format", "PNG"),
        ("format", None),
        ("quality", 0),
        ("quality", 101),
        ("quality", 50.0),
        ("quality", 50),
        ("strength", 0.5),
        ("image", "aGVsbG8="),
        ("init_image", "aGVsbG8="),
        ("priority", 101),
        ("priority", -101),
        ("priority", 0.0),
        ("priority", True),
        ("timeout", 0),
        ("timeout", 0.999),
        ("timeout", 86_401),
        ("timeout", -1),
        ("timeout", "30"),
        ("timeout", True),
        ("operation", "status"),
        ("hive_id", "other"),
        ("worker_id", 1),
        ("worker_id", "x" * 201),
        ("colour", "red"),
        ("Prompt", "a"),
        ("prompt ", "a"),
        ("work", {}),
        ("job_id", "job_1"),
    ],
)
def test_a_wrong_value_is_refused_and_only_its_field_named(name: str, value: Any) -> None:
    assert set(errors(**{name: value})) == {name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "x"),
        ("prompt", "x" * MAX_PROMPT),
        ("prompt", "🎉" * MAX_PROMPT),
        ("prompt", "a\r\nb\x1b[31m\u2028"),
        ("negative_prompt", ""),
        ("steps", 1),
        ("steps", 150),
        ("guidance_scale", 0),
        ("guidance_scale", 7),
        ("guidance_scale", 50.0),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("width", 64),
        ("height", 2048),
        ("count", 8),
        ("priority", -100),
        ("priority", 100),
        ("timeout", 1),
        ("timeout", 86_400.0),
        ("on_disconnect", "finish"),
        ("preview", False),
        ("exclusive", True),
        ("loras", []),
        ("worker_id", ""),
        *[("format", name) for name in FORMATS],
        *[("scheduler", name) for name in SCHEDULERS],
    ],
)
def test_values_at_the_edge_are_accepted(name: str, value: Any) -> None:
    assert getattr(accept(**{name: value}), name) == value


def test_all_wrong_fields_are_named_at_once() -> None:
    fields: dict[str, Any] = {
        "prompt": "",
        "negative_prompt": 5,
        "steps": 20.0,
        "guidance_scale": 51,
        "seed": -1,
        "width": 7,
        "height": 0,
        "scheduler": "q",
        "count": True,
        "model": "q",
        "on_disconnect": "x",
        "preview": 1,
        "priority": 101,
        "timeout": 0,
        "hive_id": "q",
        "worker_id": 1,
        "colour": "red",
    }
    assert set(errors(**fields)) == set(fields)


def test_four_thousand_characters_of_emoji_and_right_to_left_text_come_through() -> None:
    text = ("🎉👩‍🚀" + "שלום عالم \u202e") * 400
    text = text[:4000]
    request = accept(prompt=text, negative_prompt=text)
    order = order_image(request, LIMITS)
    assert order.request["prompt"] == text
    assert order.work is not None
    assert (order.work.prompt, order.work.negative_prompt) == (text, text)


@pytest.mark.parametrize("name", PATHS)
def test_a_model_named_like_a_path_gets_the_same_answer_as_an_unknown_one(name: str) -> None:
    unknown, strange = errors(model="unknown")["model"], errors(model=name)["model"]
    assert (strange.constraint, strange.message) == (unknown.constraint, unknown.message)
    assert "demo" in strange.message
    assert len(str(strange.value)) <= SHOWN + 1


@pytest.mark.parametrize("name", PATHS)
def test_a_scheduler_named_like_a_path_gets_the_same_answer_as_an_unknown_one(name: str) -> None:
    unknown, strange = errors(scheduler="unknown")["scheduler"], errors(scheduler=name)["scheduler"]
    assert (strange.constraint, strange.message) == (unknown.constraint, unknown.message)
    assert all(known in strange.message for known in SCHEDULERS)


def test_loras_go_to_the_engine_in_their_order() -> None:
    loras = [{"name": "watercolour", "scale": -4}, {"name": "pixel art"}]
    order = order_image(accept(loras=loras), LIMITS)
    assert order.work is not None
    assert (order.work.loras, order.work.lora_scales) == (("watercolour", "pixel art"), (-4.0, 1.0))
    assert order.request["loras"] == loras


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({}, "loras.0.name"),
        ({"name": 1}, "loras.0.name"),
        ({"name": None}, "loras.0.name"),
        ({"name": "watercolour", "scale": 4.01}, "loras.0.scale"),
        ({"name": "watercolour", "scale": -4.01}, "loras.0.scale"),
        ({"name": "watercolour", "scale": "1"}, "loras.0.scale"),
        ({"name": "watercolour", "scale": True}, "loras.0.scale"),
        ({"name": "watercolour", "scale": None}, "loras.0.scale"),
        ({"name": "watercolour", "path": "x"}, "loras.0.path"),
        ("watercolour", "loras.0"),
        (None, "loras.0"),
    ],
)
def test_a_wrong_lora_is_named_with_its_place(entry: Any, field: str) -> None:
    assert set(errors(loras=[entry, {"name": "pixel art"}])) == {field}


@pytest.mark.parametrize("name", [*PATHS, "Watercolour", "watercolour.safetensors", "pixel_art"])
def test_a_lora_named_like_a_path_gets_the_same_answer_as_an_unknown_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("something was opened")

    with monkeypatch.context() as patch:
        for place in ("builtins.open", "os.open", "os.stat", "os.scandir"):
            patch.setattr(place, opened)
        unknown = errors(loras=[{"name": "unknown"}])["loras.0.name"]
        strange = errors(loras=[{"name": name}])["loras.0.name"]
    assert (strange.constraint, strange.message) == (unknown.constraint, unknown.message)
    assert strange.message == "no such LoRA; there is pixel art, watercolour"


def test_very_many_loras_are_not_all_listed_in_a_message() -> None:
    many = replace(LIMITS, loras=tuple(f"lora {number}" for number in range(1000)))
    assert len(errors(many, loras=[{"name": "x"}])["loras.0.name"].message) < 300
    none = replace(LIMITS, loras=())
    assert errors(none, loras=[{"name": "x"}])["loras.0.name"].message == "no such LoRA; there is none"


def test_a_loaded_model_takes_its_own_schedulers_only() -> None:
    ready = replace(READY, schedulers=("euler", "ddim"))
    limits = replace(LIMITS, loaded=lambda: ready)
    accept(limits, scheduler="ddim")
    assert errors(limits, scheduler="heun")["scheduler"].message == "no such scheduler; there is euler, ddim"
    accept(replace(LIMITS, loaded=lambda: None), scheduler="heun")


@pytest.mark.parametrize(("field", "setting"), [("steps", "max_steps"), ("count", "max_count")])
def test_settings_bound_the_fields(field: str, setting: str) -> None:
    limits = limited(**{setting: 3})
    accept(limits, **{field: 3})
    assert "3" in errors(limits, **{field: 4})[field].message


def test_the_largest_side_is_a_setting() -> None:
    limits = limited(max_side=256)
    accept(limits, width=256, height=64)
    assert set(errors(limits, width=264, height=512)) == {"width", "height"}


def test_work_over_the_budget_is_refused_with_what_it_is_made_of() -> None:
    limits = limited(max_megapixel_steps=1.0)
    accept(limits, width=1000, height=1000, steps=1)
    (error,) = errors(limits, width=1000, height=1008, steps=1).values()
    for word in ("width", "height", "steps", "count"):
        assert word in error.message
    assert errors(limits, width=512, height=512, steps=2, count=2)


def test_what_is_left_open_counts_as_what_the_model_wants() -> None:
    # 128 x 96 x 10 steps is 0.12288 million.
    accept(limited(max_megapixel_steps=0.13))
    assert errors(limited(max_megapixel_steps=0.12))
    assert errors(limited(max_megapixel_steps=0.13), count=2)
    accept(limited(max_megapixel_steps=0.13), steps=5, count=2)


def test_until_the_model_is_loaded_a_usual_one_is_assumed() -> None:
    loading = Limits(Settings(max_megapixel_steps=5.0), ("demo",), lambda: None)
    assert errors(loading)
    accept(loading, width=64, height=64)
    accept(Limits(Settings(), ("demo",), lambda: None))


def test_the_order_carries_the_request_to_the_engine() -> None:
    request = accept(
        negative_prompt="blurry",
        steps=7,
        guidance_scale=3,
        seed=42,
        width=64,
        height=72,
        scheduler="ddim",
        count=2,
        on_disconnect="finish",
        priority=-3,
        timeout=12,
        exclusive=True,
        preview=True,
    )
    order = order_image(request, LIMITS)
    assert order.work == Generate(
        "",
        "a red circle",
        "blurry",
        42,
        count=2,
        steps=7,
        guidance_scale=3.0,
        width=64,
        height=72,
        scheduler="ddim",
        priority=-3,
        exclusive=True,
        preview=True,
    )
    assert (order.seed, order.priority, order.timeout, order.on_disconnect) == (42, -3, 12, "finish")
    assert order.operation == "image_generation"


def test_the_order_says_what_files_are_wanted() -> None:
    plain = order_image(accept(), LIMITS)
    assert plain.work is not None
    assert (plain.format, plain.work.quality) == ("png", None)
    small = order_image(accept(format="webp", quality=1), LIMITS)
    assert small.work is not None
    assert (small.format, small.work.quality) == ("webp", 1)
    assert accept(format="jpeg", quality=100).quality == 100


def test_the_order_repeats_what_was_sent_and_nothing_more() -> None:
    order = order_image(accept(steps=7), LIMITS)
    assert order.request == {"operation": "image_generation", "prompt": "a red circle", "steps": 7}


def test_a_seed_left_out_is_settled_when_the_order_is_made() -> None:
    orders = [order_image(accept(), LIMITS) for _ in range(20)]
    for order in orders:
        assert order.work is not None
        assert order.seed == order.work.seed
        assert order.seed is not None
        assert 0 <= order.seed < 2**32
    assert len({order.seed for order in orders}) > 15


def test_seed_zero_is_a_seed() -> None:
    assert order_image(accept(seed=0), LIMITS).seed == 0


def test_the_time_limit_left_out_is_the_setting() -> None:
    assert order_image(accept(), limited(job_timeout=77.0)).timeout == 77.0
    assert order_image(accept(timeout=5), limited(job_timeout=77.0)).timeout == 5


def test_a_model_that_wants_sides_of_sixteen_pixels_gets_no_others() -> None:
    limits = Limits(Settings(), ("demo",), lambda: replace(READY, multiple=16))
    accept(limits, width=80, height=96)
    assert set(errors(limits, width=72, height=88)) == {"width", "height"}


OTHERS = {
    "xl": replace(READY, model="xl", schedulers=("euler", "lcm"), multiple=16, width=1024, height=1024, steps=50),
    "demo": READY,
}
SEVERAL = Limits(Settings(max_megapixel_steps=20.0), ("demo", "xl", "new"), lambda: READY, (), OTHERS.get)


def test_what_a_request_may_ask_for_is_what_its_model_takes() -> None:
    for fields in ({"scheduler": "ddim"}, {"width": 72, "height": 72}):
        accept(SEVERAL, **fields)
        accept(SEVERAL, model="demo", **fields)
        # Nothing is known of it yet; the engine will say.
        accept(SEVERAL, model="new", **fields)
        assert set(errors(SEVERAL, model="xl", **fields)) == set(fields)
    accept(SEVERAL, model="xl", width=64, height=64, scheduler="lcm")


def test_the_work_of_a_request_is_counted_with_what_its_model_wants() -> None:
    accept(SEVERAL)
    assert set(errors(SEVERAL, model="xl")) == {"request"}
    accept(SEVERAL, model="xl", steps=10)


def test_the_order_names_the_model_and_is_open_when_the_request_is() -> None:
    made = [order_image(accept(SEVERAL, **fields), SEVERAL).work for fields in ({}, {"model": "new"})]
    assert [work.model for work in made if work is not None] == ["", "new"]
    assert [work.source for work in made if work is not None] == ["", ""]


@pytest.mark.parametrize("model", PATHS)
def test_a_model_that_is_none_is_the_only_thing_wrong_about_a_request(model: str) -> None:
    assert set(errors(SEVERAL, model=model, scheduler="ddim")) == {"model"}
