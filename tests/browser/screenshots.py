"""Takes the pictures of the studio that are in the documents; run by `bin/screenshots [FOLDER]`, else into docs/."""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium.webdriver import ActionChains

from rbee_sd.bench.chromium import start_chromium
from tests.browser.page import Page, until
from tests.process.conftest import WorkerProcess

PROMPTS = (
    "a large green heart on a white background",
    "a red circle on a blue background",
    "a large yellow star on a black background",
    "a small blue square on a pink background",
    "a large orange triangle on a white background",
    "a small red circle above a large blue square",
    "a large purple heart on a yellow background",
    "a green square left of a yellow circle",
    "a large blue star on a white background",
    "a pink circle on a green background",
)
LAST = "a large red heart on a yellow background"
WIDE = {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False}
NARROW = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}


def main(folder: Path) -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as home:
        driver = start_chromium(Path(home))
        worker = WorkerProcess(["--port", "0", "--state-dir", f"{home}/state", "--model", "demo"])
        try:
            take(Page(driver, worker), folder)
        finally:
            driver.quit()
            worker.close()


def take(page: Page, folder: Path) -> None:
    """Make pictures, and take pictures of that."""
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", WIDE)
    page.open()
    until(lambda: page.get("engine").get_attribute("data-state") == "ready", 120)
    for seed, prompt in enumerate(PROMPTS):
        page.type("seed", str(seed))
        page.generate(prompt)
        until(lambda wanted=seed + 1: len(page.fetch("/v1/jobs?state=completed")["jobs"]) == wanted)  # type: ignore[misc]
    page.press("Locked")
    page.slide("steps", 150)
    page.generate("a large white star on a blue background")
    page.generate(LAST)
    until(lambda: page.run("return document.getElementById('progress').value") > 80)
    save(page, folder / "studio.webp")
    colours(page, "dark")
    save(page, folder / "studio-dark.webp")
    colours(page, "")
    page.done()
    page.all("#tiles button")[0].click()
    page.press("Start from it")
    page.press("Paint a mask")
    page.slide("brush-size", 40)
    canvas = page.all("#painter canvas")[0]
    chain = ActionChains(page.driver, duration=30).move_to_element_with_offset(canvas, -90, -60)
    chain.click_and_hold().move_by_offset(90, 90).move_by_offset(90, -90).release().perform()
    save(page, folder / "studio-mask.webp")
    page.press("Use this mask")
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", NARROW)
    page.open()
    until(lambda: page.all("#pictures img"))
    page.run("document.getElementById('stage').scrollIntoView({block: 'end'})")
    save(page, folder / "studio-narrow.webp")


def colours(page: Page, value: str) -> None:
    """Prefer `light` or `dark`."""
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": value}]}
    )


def save(page: Page, path: Path) -> None:
    """Take a picture of the page when it has settled."""
    time.sleep(0.5)
    picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    picture.save(path, quality=90, method=6)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
