"""The page over the real model: what it shows are its pictures."""

from __future__ import annotations

from pathlib import Path

from tests.browser.conftest import MakePage
from tests.browser.page import until

COLOUR = """
    const image = document.querySelector("#pictures img"), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3);
"""


def test_the_picture_grows_before_ones_eyes_and_says_how_it_was_made(make_page: MakePage, profile: Path) -> None:
    page = make_page(model="demo", disconnect_grace=10)
    page.open()
    until(lambda: page.get("engine").get_attribute("data-state") == "ready", 120)
    page.slide("steps", 60)
    page.type("seed", "3")
    page.run(
        "window.seen = new Set();"
        "new MutationObserver(() => { for (const image of document.querySelectorAll('#pictures img'))"
        "if (image.src.startsWith('data:')) window.seen.add(image.src) })"
        ".observe(document.getElementById('pictures'), {subtree: true, attributes: true, childList: true})"
    )
    page.generate("a large green heart on a white background")
    page.done()
    assert page.run("return window.seen.size") >= 3
    until(lambda: page.run("return document.querySelector('#pictures img').naturalWidth") == 128)
    red, green, blue = page.run(COLOUR)
    assert green > red + 40
    assert green > blue + 40

    until(lambda: page.all("#tiles button"))[0].click()
    page.press("Download")
    job_id = page.fetch("/v1/jobs")["jobs"][0]["job_id"]
    folder = profile / "downloads"
    file = folder / f"{job_id}-0.png"
    until(file.exists)
    page.press("Close")
    page.press("The model's defaults")
    page.type("prompt", "")
    page.give("heart.png", "drop", file.read_bytes())
    until(lambda: page.get("prompt").get_attribute("value") == "a large green heart on a white background")
    assert [page.get(name).get_attribute("value") for name in ("seed", "steps", "width")] == ["3", "60", "128"]
