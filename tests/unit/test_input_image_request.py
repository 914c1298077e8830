"""`operations.transform` and `inpaint`: what may be asked of an input image, and what the engine is told."""

from __future__ import annotations

from typing import Any

import pytest

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.messages import Generate, Ready
from rbee_sd.operations.body import validate
from rbee_sd.operations.image import order_image
from rbee_sd.operations.inpaint import ImageInpaint
from rbee_sd.operations.input_image import InputImageRequest
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.transform import ImageTransform
from rbee_sd.settings import Settings
from tests.pictures import picture, text

READY = Ready("demo", "sd", "cpu", "float32", 1, 128, 128, 10, 5.0)
LIMITS = Limits(Settings(), ("demo",), lambda: READY)
IMAGE = picture("PNG", (101, 75))
MASK = picture("PNG", (101, 75), mode="L")
MODELS: dict[str, type[InputImageRequest]] = {"image_transform": ImageTransform, "image_inpaint": ImageInpaint}
both = pytest.mark.parametrize("operation", MODELS)


def accept(name: str, limits: Limits = LIMITS, **fields: Any) -> InputImageRequest:
    """Validate a good request with these fields changed; `...` leaves one out."""
    good = {"operation": name, "prompt": "a red circle", "image": text(IMAGE)}
    if name == "image_inpaint":
        good["mask"] = text(MASK)
    sent = {field: value for field, value in (good | fields).items() if value is not ...}
    return validate(MODELS[name], sent, limits)


def errors(name: str, limits: Limits = LIMITS, **fields: Any) -> dict[str, FieldError]:
    """The wrong fields of such a request, by name."""
    with pytest.raises(RequestError) as caught:
        accept(name, limits, **fields)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return {field.field: field for field in caught.value.fields}


def test_the_engine_gets_the_image_its_mask_and_the_strength() -> None:
    order = order_image(accept("image_inpaint", seed=5, strength=0.5), LIMITS)
    assert order.work == Generate(
        "", "a red circle", "", 5, operation="image_inpaint", strength=0.5, inputs=(IMAGE, MASK)
    )
    order = order_image(accept("image_transform", seed=5, width=64), LIMITS)
    # What is left open is settled where the image is decoded.
    assert order.work == Generate(
        "", "a red circle", "", 5, operation="image_transform", strength=0.8, width=64, inputs=(IMAGE,)
    )
    assert order.operation == "image_transform"


def test_the_strength_left_out_is_what_users_of_diffusers_expect() -> None:
    assert accept("image_transform").strength == 0.8
    assert accept("image_inpaint").strength == 1.0


@both
def test_what_is_shown_of_a_request_is_what_was_sent_but_no_image(operation: str) -> None:
    request = order_image(accept(operation, strength=1, image=..., init_image=text(IMAGE)), LIMITS).request
    described = f"png, 101 x 75, {len(IMAGE)} bytes"
    assert request["image"] == described
    assert set(request) - {"mask"} == {"operation", "prompt", "image", "strength"}


@both
def test_the_fields_of_image_generation_are_taken_too(operation: str) -> None:
    request = accept(operation, negative_prompt="x", count=2, scheduler="ddim", exclusive=True, worker_id="w")
    assert (request.count, request.exclusive) == (2, True)
    assert set(errors(operation, prompt=1, steps=0, count=99, colour="red")) == {"prompt", "steps", "count", "colour"}


def test_only_a_transform_can_be_left_to_the_image() -> None:
    for prompt in ("", ...):
        assert accept("image_transform", prompt=prompt).prompt == ""
        assert set(errors("image_inpaint", prompt=prompt)) == {"prompt"}


@both
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("strength", value) for value in (0, 0.0, -0.1, 1.01, 2, "0.5", True, None, 1e-300)],
        *[("image", value) for value in (None, "", 7, "http://127.0.0.1:1/x.png", "file:///etc/passwd", [1])],
        ("image", ...),
        ("image", text(picture("GIF"))),
        ("image", text(IMAGE[:-20])),
        ("operation", "image_generation"),
    ],
)
def test_a_wrong_value_is_refused_and_only_its_field_named(operation: str, field: str, value: Any) -> None:
    changed: dict[str, Any] = {field: value}
    assert set(errors(operation, **changed)) == {field}


@pytest.mark.parametrize("value", [None, "", 7, "http://127.0.0.1:1/x.png", text(IMAGE[:-20]), ...])
def test_a_wrong_mask_is_refused_and_only_it_named(value: Any) -> None:
    assert set(errors("image_inpaint", mask=value)) == {"mask"}


def test_a_transform_takes_no_mask() -> None:
    assert set(errors("image_transform", mask=text(MASK))) == {"mask"}
    assert set(errors("image_transform", mask_image=text(MASK))) == {"mask_image"}


@both
@pytest.mark.parametrize("alias", ["input_image", "init_image"])
def test_older_names_of_the_image_are_taken_once(operation: str, alias: str) -> None:
    renamed: dict[str, Any] = {alias: text(IMAGE)}
    assert accept(operation, image=..., **renamed).image.data == IMAGE
    assert set(errors(operation, **renamed)) == {alias}
    wrong: dict[str, Any] = {alias: "http://127.0.0.1:1/"}
    assert set(errors(operation, image=..., **wrong)) == {alias}
    assert set(errors(operation, image=..., input_image=text(IMAGE), init_image=text(IMAGE))) == {"init_image"}


def test_the_older_name_of_the_mask_is_taken_once() -> None:
    request = accept("image_inpaint", mask=..., mask_image=text(MASK))
    assert isinstance(request, ImageInpaint)
    assert request.mask is not None
    assert request.mask.data == MASK
    assert set(errors("image_inpaint", mask_image=text(MASK))) == {"mask_image"}


def test_a_mask_says_white_unless_it_is_told_to_mean_something_else() -> None:
    for means in ("white", "black", "alpha"):
        request = accept("image_inpaint", mask_means=means)
        assert request.treatment()["mask_means"] == means
    assert accept("image_inpaint").treatment()["mask_means"] == "white"
    assert set(errors("image_inpaint", mask_means="grey")) == {"mask_means"}
    assert set(errors("image_transform", mask_means="white")) == {"mask_means"}


def test_by_transparency_an_image_may_be_its_own_mask_and_the_engine_settles_how_much_is_changed() -> None:
    work = order_image(accept("image_inpaint", mask=..., mask_means="alpha"), LIMITS).work
    assert work is not None
    assert (work.inputs, work.mask_means, work.strength) == ((IMAGE,), "alpha", None)
    work = order_image(accept("image_inpaint", mask=..., mask_means="alpha", strength=0.4), LIMITS).work
    assert work is not None
    assert work.strength == 0.4
    for means in ("white", "black"):
        assert errors("image_inpaint", mask=..., mask_means=means)["mask"].constraint == "missing"


def test_a_mask_of_another_size_is_refused() -> None:
    for size in ((75, 101), (100, 75), (202, 150)):
        error = errors("image_inpaint", mask=text(picture("PNG", size, mode="L")))["mask"]
        assert "101 x 75" in error.message
    accept("image_inpaint", mask=text(picture("JPEG", (101, 75))))


def test_a_mask_may_stand_upright_where_a_photograph_may_lie_on_its_side() -> None:
    photo = text(picture("JPEG", (101, 75)))
    accept("image_inpaint", image=photo, mask=text(picture("PNG", (75, 101), mode="L")))
    assert set(errors("image_inpaint", image=photo, mask=text(picture("PNG", (75, 75), mode="L")))) == {"mask"}


@both
def test_a_strength_that_leaves_no_step_is_refused(operation: str) -> None:
    # The model wants 10 steps.
    assert accept(operation, strength=0.1)
    assert set(errors(operation, strength=0.09)) == {"strength"}
    assert accept(operation, strength=0.09, steps=12)
    assert set(errors(operation, strength=0.5, steps=1)) == {"strength"}
    # 0.29 x 100 is less than 29 for a computer; diffusers does 28 steps then, and so it is counted here.
    assert accept(operation, strength=0.29, steps=100).work(LIMITS)[2] == 28


@both
@pytest.mark.parametrize("size", [(63, 100), (100, 63), (1, 1), (2056, 64)])
def test_an_image_of_a_size_that_cannot_be_made_needs_width_and_height(operation: str, size: tuple[int, int]) -> None:
    images: dict[str, Any] = {"image": text(picture("PNG", size))}
    if operation == "image_inpaint":
        images["mask"] = text(picture("PNG", size, mode="L"))
    error = errors(operation, **images)["image"]
    assert "give width and height" in error.message
    accept(operation, **images, width=64, height=64)


@both
def test_one_side_given_leaves_the_other_to_the_image_however_it_lies(operation: str) -> None:
    assert accept(operation).work(LIMITS)[:2] == (96, 72)
    assert accept(operation, width=512).work(LIMITS)[:2] == (512, 96)
    assert accept(operation, height=512).work(LIMITS)[:2] == (96, 512)


@both
def test_the_budget_counts_the_size_of_the_image_and_the_steps_that_are_done(operation: str) -> None:
    # 96 x 72 x 5 steps is 34,560.
    limits = Limits(Settings(max_megapixel_steps=0.0346), ("demo",), lambda: READY)
    accept(operation, limits, strength=0.5)
    assert set(errors(operation, limits, strength=0.6)) == {"request"}
    assert set(errors(operation, limits, strength=0.5, count=2)) == {"request"}
    accept(operation, limits, strength=1, width=64, height=64, steps=8)


def test_everything_that_is_wrong_with_the_images_is_told_at_once() -> None:
    small, mask = text(picture("PNG", (8, 8))), text(MASK)
    assert set(errors("image_inpaint", image=small, mask=mask, strength=0.01)) == {"image", "mask", "strength"}
    assert set(errors("image_inpaint", image="x", mask="y", strength=0)) == {"image", "mask", "strength"}
