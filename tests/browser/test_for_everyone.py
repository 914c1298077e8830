"""Narrow and wide, light and dark, and what axe-core finds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import axe
from tests.browser.page import Page, until
from tests.conftest import Faults
from tests.pictures import picture

NARROW = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="module")
def script() -> str:
    """axe-core."""
    return axe.source()


@pytest.fixture
def small(page: Page) -> Iterator[Page]:
    """The page on a telephone of 360 pixels."""
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", NARROW)
    page.open()
    yield page
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(params=["light", "dark"])
def coloured(page: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in light and in dark colours."""

    def prefer(value: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": value}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    prefer(request.param)
    yield page
    prefer("")


def fits(page: Page) -> bool:
    """Whether nothing is wider than the screen."""
    return bool(page.run("return document.documentElement.scrollWidth <= innerWidth"))


def test_all_of_it_works_on_360_pixels(small: Page, faults: Faults) -> None:
    assert fits(small)
    assert not small.get("settings").get_property("open")
    faults.on("slow", "0.05")
    small.generate("a red circle, and a prompt_that_is_as_long_as_a_whole_line_and_has_no_spaces_in_it")
    until(lambda: small.text("state").startswith("step "))
    assert fits(small)
    small.done()
    small.run("document.getElementById('settings').open = document.getElementById('machine-details').open = true")
    assert fits(small)
    until(lambda: small.all("#tiles button"))
    small.run("document.querySelector('#tiles button').click()")
    until(lambda: small.get("viewer").is_displayed())
    assert small.run("const v = document.getElementById('viewer'); return v.scrollWidth <= v.clientWidth")
    small.press("Start from it")
    small.press("Paint a mask")
    assert small.run("const p = document.getElementById('painter'); return p.scrollWidth <= p.clientWidth")
    assert small.button("Use this mask").is_displayed()


@pytest.mark.parametrize("width", [600, 800, 1000, 1240, 2400])
def test_nothing_is_cut_off_at_any_width(page: Page, width: int) -> None:
    page.driver.set_window_size(width, 900)
    assert fits(page)


def test_axe_finds_nothing_on_the_page_in_its_states(coloured: Page, script: str, faults: Faults) -> None:
    page = coloured
    until(lambda: page.get("input").is_displayed())
    page.expected.append("status of 400")
    assert axe.violations(page.driver, script) == []
    page.get("generate").click()
    until(lambda: page.all("#form .error"))
    assert axe.violations(page.driver, script) == []
    faults.on("slow", "0.3")
    page.give("start.png", "paste", picture())
    for prompt in ("one", "two"):
        page.generate(prompt)
    until(lambda: page.all('#queue li[data-state="running"]') and page.all('#queue li[data-state="queued"]'))
    until(lambda: page.sources()[0].startswith("data:") or page.text("state").startswith("waiting"))
    assert axe.violations(page.driver, script) == []
    faults.off("slow")
    until(lambda: len(page.all("#tiles img")) == 2)
    page.press("Paint a mask")
    assert axe.violations(page.driver, script) == []
    page.press("Cancel")
    page.all("#tiles button")[0].click()
    until(lambda: page.get("viewer").is_displayed())
    assert axe.violations(page.driver, script) == []
    page.press("Compare with …")
    page.all("#tiles button")[1].click()
    until(lambda: page.all("#viewer.pair"))
    assert axe.violations(page.driver, script) == []


def test_axe_finds_nothing_on_a_narrow_screen(small: Page, script: str) -> None:
    assert axe.violations(small.driver, script) == []
    small.run("document.getElementById('settings').open = document.getElementById('machine-details').open = true")
    assert axe.violations(small.driver, script) == []
