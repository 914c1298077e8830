"""What the form offers: what the chosen model can do, and nothing that the worker would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests.browser.conftest import MakePage
from tests.browser.page import Page, until
from tests.browser.test_edit import start_from, stroke
from tests.conftest import Faults
from tests.pictures import chunk, picture, png

FLOW = {
    "operations": ["image_generation"],
    "schedulers": ["euler", "heun"],
    "multiple": 16,
    "width": 128,
    "height": 128,
    "steps": 28,
    "guidance_scale": 3.5,
    "negative": False,
}
"""What a model says of itself that can do less than most."""


@pytest.fixture
def models(faults: Faults, tmp_path: Path) -> Path:
    """A folder of models with the model `flow` in it."""
    faults.on("model-flow", json.dumps(FLOW))
    folder = tmp_path / "models"
    (folder / "flow").mkdir(parents=True)
    (folder / "flow" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    return folder


def choose(page: Page, name: str, value: str) -> None:
    """Choose from a list, once that is in it; "" is its first."""
    until(lambda: value in offered(page, name))
    Select(page.get(name)).select_by_value(value)


def offered(page: Page, name: str) -> list[str]:
    """What there is to choose from."""
    return list(page.run("return [...document.getElementById(arguments[0]).options].map(each => each.value)", name))


def values(page: Page, *names: str) -> list[str]:
    """What stands in fields."""
    return [page.get(name).get_attribute("value") or "" for name in names]


def load(page: Page, model: str) -> None:
    """Have the worker load a model, and wait until the page knows."""
    body = {"operation": "model_load", "model": model, "on_disconnect": "finish"}
    httpx2.post(f"{page.worker.url}/v1/jobs", json=body).raise_for_status()
    choose(page, "model", model)
    until(lambda: page.get("width").get_attribute("placeholder") == "128")


def newest(page: Page) -> dict[str, Any]:
    """The newest job, in Python's numbers."""
    job: dict[str, Any] = httpx2.get(f"{page.worker.url}/v1/jobs").json()["jobs"][0]
    return job


def drop_settings(page: Page, **settings: Any) -> None:
    """Drop a PNG that says that it was made so."""
    text = b"rbee-sd\0" + json.dumps(settings).encode()
    page.give("made.png", "drop", png(chunk(b"tEXt", text)), target='[data-drop="settings"]')
    until(lambda: page.text("notice").startswith("The settings are taken over."))


def test_the_form_follows_the_model_that_is_chosen(make_page: MakePage, models: Path) -> None:
    page = make_page(models_dir=models)
    page.open()
    everything = page.fetch("/v1/capabilities")["schedulers"]
    choose(page, "model", "flow")
    assert page.get("width").get_attribute("placeholder") == ""
    load(page, "flow")
    assert page.get("height").get_attribute("step") == "16"
    assert [page.text_of(f'output[for="{name}"]') for name in ("steps", "guidance_scale")] == ["28", "3.5"]
    assert offered(page, "scheduler") == ["", "euler", "heun"]
    assert not page.get("input").is_displayed()
    assert not page.get("negative_prompt").is_enabled()
    page.press("16:9")
    assert values(page, "width", "height") == ["176", "96"]
    page.press("The model's defaults")
    assert values(page, "model", "width") == ["flow", ""]
    choose(page, "model", "")
    until(lambda: page.get("input").is_displayed())
    assert offered(page, "scheduler") == ["", *everything]
    assert page.get("negative_prompt").is_enabled()


def test_what_was_set_and_the_chosen_model_cannot_do_is_let_go_and_said(make_page: MakePage, models: Path) -> None:
    page = make_page(models_dir=models)
    page.open()
    load(page, "flow")
    choose(page, "model", "")
    start_from(page)
    choose(page, "scheduler", "lms")
    page.type("negative_prompt", "blue")
    page.type("width", "72")
    choose(page, "model", "flow")
    told = "Not to be had with this model: scheduler lms, width 72, starting from a picture."
    until(lambda: page.text("notice") == told)
    assert values(page, "scheduler", "width") == ["", "80"]
    page.generate("a red circle")
    page.done()
    request = newest(page)["request"]
    assert (request["operation"], request["model"], request["width"]) == ("image_generation", "flow", 80)
    assert request.keys() & {"scheduler", "negative_prompt", "image"} == set()
    page.give("start.png", "paste", picture(size=(64, 64)))
    until(lambda: page.text("notice") == "The chosen model starts from no picture.")
    choose(page, "model", "")
    until(lambda: page.text("input-about").startswith("64 × 64"))


def test_the_settings_of_a_picture_are_held_against_the_model_that_made_it(
    make_page: MakePage, models: Path, faults: Faults
) -> None:
    faults.on("model-fake", json.dumps({"schedulers": ["euler"]}))
    page = make_page(models_dir=models)
    page.open()
    load(page, "flow")
    choose(page, "model", "")
    until(lambda: offered(page, "scheduler") == ["", "euler"])
    drop_settings(page, prompt="a red circle", model="flow", scheduler="heun", width=80)
    assert page.text("notice") == "The settings are taken over."
    assert values(page, "model", "scheduler", "width") == ["flow", "heun", "80"]
    drop_settings(page, model="gone", scheduler="heun", width=20, steps=7.5, loras=[{"name": "none"}])
    lost = "Not to be had here: model gone, scheduler heun, width 20, steps 7.5, LoRA none."
    until(lambda: lost in page.text("notice"))
    page.generate("a red circle")
    page.done()
    request = newest(page)["request"]
    assert (request["width"], request["steps"]) == (64, 8)


def test_a_mask_is_said_to_be_of_no_use_to_a_model_that_cannot_paint_it(
    make_page: MakePage, models: Path, faults: Faults
) -> None:
    faults.on("model-flow", json.dumps(FLOW | {"operations": ["image_generation", "image_transform"]}))
    page = make_page(models_dir=models)
    page.open()
    load(page, "flow")
    choose(page, "model", "")
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 200, 0)
    page.press("Use this mask")
    choose(page, "model", "flow")
    until(lambda: page.text("notice") == "Not to be had with this model: a mask.")
    assert not page.get("input-paint").is_displayed()
    page.generate("a blue star")
    page.done()
    request = newest(page)["request"]
    assert (request["operation"], request["width"], request["height"]) == ("image_transform", 128, 64)


def test_a_model_that_only_inpaints_asks_for_a_picture_and_a_mask(make_page: MakePage, faults: Faults) -> None:
    faults.on("model-fake", json.dumps({"operations": ["image_inpaint"]}))
    page = make_page()
    page.open()
    until(lambda: page.fetch("/v1/capabilities")["defaults"])
    page.open()
    page.expected.append("status of 400")
    page.generate("a blue star")
    until(lambda: page.all("#error-image"))
    assert page.driver.switch_to.active_element.get_attribute("id") == "input-choose"
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 200, 0)
    page.press("Use this mask")
    page.generate("a blue star")
    page.done()
    assert newest(page)["operation"] == "image_inpaint"


def test_a_picture_of_a_size_that_cannot_be_made_gives_its_shape(make_page: MakePage) -> None:
    page = make_page(max_side=256)
    page.open()
    until(lambda: page.get("width").get_attribute("placeholder") == "64")
    start_from(page, 600, 200)
    page.generate("a blue star")
    page.done()
    request = newest(page)["request"]
    assert (request["width"], request["height"]) == (112, 64)


def test_a_step_is_always_left_to_do(page: Page) -> None:
    start_from(page)
    page.slide("strength", 0.05)
    page.slide("steps", 2)
    page.generate("a blue star")
    page.done()
    made = newest(page)
    assert (made["request"]["strength"], made["total"]) == (0.5, 1)


def test_no_more_work_can_be_set_than_the_worker_takes_at_once(make_page: MakePage) -> None:
    page = make_page(max_megapixel_steps=1)
    page.open()
    until(lambda: page.get("count").get_attribute("max") == "8")
    page.slide("steps", 30)
    page.slide("count", 4)
    page.type("width", "256")
    page.type("height", "512")
    assert values(page, "steps", "count") == ["7", "1"]
    page.generate("a red circle")
    page.done()
    request = newest(page)["request"]
    assert (request["steps"], request["count"]) == (7, 1)
    page.type("width", "64")
    page.type("height", "64")
    assert values(page, "steps", "count") == ["30", "4"]


def test_loras_are_added_weighed_and_taken_away(make_page: MakePage, tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("ink", "pixel art", *"abcdefg"):
        (folder / f"{name}.safetensors").touch()
    page = make_page(lora_dir=folder)
    page.open()
    for name in ("pixel art", "ink"):
        choose(page, "lora-add", name)
    weigh = (
        "const s = document.querySelector(`[aria-label='Weight of ${arguments[0]}']`); s.value = arguments[1];"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.run(weigh, "pixel art", 0.5)
    page.run(weigh, "ink", -1.25)
    shown = page.run("return [...document.querySelectorAll('#lora-list span')].map(each => each.textContent)")
    assert shown == ["pixel art 0.5", "ink -1.25"]
    page.generate("a red circle")
    page.done()
    assert newest(page)["request"]["loras"] == [{"name": "pixel art", "scale": 0.5}, {"name": "ink", "scale": -1.25}]
    page.open()
    until(lambda: len(page.all("#lora-list li")) == 2)
    page.driver.find_element(By.CSS_SELECTOR, "[aria-label='Remove pixel art']").click()
    assert "pixel art" in offered(page, "lora-add")
    page.get("generate").click()
    until(lambda: newest(page)["request"]["loras"] == [{"name": "ink", "scale": -1.25}])
    for name in "abcdefg":
        choose(page, "lora-add", name)
    assert not page.get("lora-add").is_enabled()
    page.done()
    drop_settings(page, loras=[{"name": "ink", "scale": 3}, {"name": "ink"}, {"name": "a", "scale": 9}])
    assert "Not to be had here: LoRA a at 9." in page.text("notice")
    page.generate("a red circle")
    until(lambda: newest(page)["request"]["loras"] == [{"name": "ink", "scale": 3}, {"name": "a", "scale": 4}])
    page.done()


def test_the_largest_seeds_are_used_again_digit_by_digit(page: Page) -> None:
    seed = 2**63 - 3
    page.type("seed", str(seed))
    page.slide("count", 2)
    page.generate("a red circle")
    page.done()
    page.press("Locked")
    page.press("Use this seed again")
    assert values(page, "seed") == [str(seed)]
    page.press("Locked")
    page.open()
    page.press("Use this seed again")
    assert values(page, "seed") == [str(seed)]
    until(lambda: page.all('#tiles [data-place="1"] button'))[0].click()
    page.press("Reuse seed")
    assert values(page, "seed") == [str(seed + 1)]
    page.get("generate").click()
    until(lambda: newest(page)["seed"] == seed + 1)
    page.done()
    drop_settings(page, prompt="a red circle", seed=seed)
    assert values(page, "seed") == [str(seed)]
    page.type("seed", "007")
    page.get("generate").click()
    until(lambda: newest(page)["seed"] == 7)
    page.done()
