"""Starting from a picture, and painting a mask over it."""

from __future__ import annotations

from typing import Any

from selenium.webdriver import ActionChains, Keys

from tests.browser.page import Page, until
from tests.pictures import picture


def job(page: Page) -> dict[str, Any]:
    """The newest job."""
    newest: dict[str, Any] = page.fetch("/v1/jobs")["jobs"][0]
    return newest


def start_from(page: Page, width: int = 128, height: int = 64) -> None:
    """Drop a picture to start from."""
    until(lambda: page.get("input").is_displayed())
    page.give("start.png", "drop", picture(size=(width, height)), target='[data-drop="input"]')
    until(lambda: page.get("input-filled").is_displayed())


def painted(page: Page) -> tuple[int, int]:
    """How many pixels of the mask on the painter are painted, and of how many."""
    script = """
        const canvas = document.querySelector("#painter canvas");
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [data.filter((value, place) => place % 4 === 3 && value > 127).length, canvas.width * canvas.height]
    """
    count, of = page.run(script)
    return int(count), int(of)


def across(page: Page) -> float:
    """How wide the mask is on the screen."""
    return float(page.run("return document.querySelector('#painter canvas').getBoundingClientRect().width"))


def stroke(page: Page, dx: int, dy: int, at: tuple[int, int] = (0, 0)) -> None:
    """Draw a line on the mask, from a place counted from its middle."""
    canvas = page.all("#painter canvas")[0]
    chain = ActionChains(page.driver, duration=20).move_to_element_with_offset(canvas, *at)
    chain.click_and_hold().move_by_offset(dx, dy).release().perform()


def test_a_dropped_picture_is_changed_by_the_strength_that_is_set(page: Page) -> None:
    start_from(page)
    page.slide("strength", 0.5)
    page.generate("a blue star")
    page.done()
    made = job(page)
    assert made["operation"] == "image_transform"
    assert (made["request"]["strength"], made["total"]) == (0.5, 10)
    assert made["request"]["image"].startswith("png, 128 x 64")
    page.press("Remove")
    page.get("generate").click()
    until(lambda: job(page)["operation"] == "image_generation")


def test_a_pasted_picture_is_one_to_start_from(page: Page) -> None:
    until(lambda: page.get("input").is_displayed())
    page.give("pasted.png", "paste", picture(size=(64, 64)))
    until(lambda: page.text("input-about").startswith("64 × 64"))


def test_a_picture_is_pasted_also_where_one_writes_and_text_stays_text(page: Page) -> None:
    until(lambda: page.get("input").is_displayed())
    prompt = page.get("prompt")
    # What word processors copy.
    page.copy(text=b"a red circle", html=b"<b>a red circle</b>", png=picture(size=(64, 64)))
    prompt.send_keys(Keys.CONTROL, "v")
    until(lambda: prompt.get_attribute("value") == "a red circle")
    # What browsers copy of a picture.
    addresses = {"text": b"https://example.org/a%20b", "html": b'<img src="https://example.org/a%20b">'}
    page.copy(**addresses, png=picture(size=(96, 64)))
    prompt.send_keys(Keys.CONTROL, "v")
    until(lambda: page.text("input-about"))
    assert page.text("input-about").startswith("96 × 64")
    assert prompt.get_attribute("value") == "a red circle"


def test_behind_a_dialog_nothing_changes(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    for kind in ("paste", "drop"):
        kept = page.give("other.png", kind, picture(size=(32, 32)))
        # The browser would leave the page to show a file that was dropped on it.
        assert kept == (kind == "drop")
        assert not page.get("dropping").is_displayed()
    stroke(page, 200, 0)
    page.press("Use this mask")
    page.give("broken.png", "paste", b"no picture")
    # Pictures are read one after the other: by now the others would have been.
    until(lambda: "no picture that can be read" in page.text("notice"))
    assert page.text("input-about").startswith("128 × 64")
    assert page.button("Change the mask").is_displayed()


HOLD = """
    const decode = HTMLImageElement.prototype.decode, revoke = URL.revokeObjectURL;
    const free = new Promise(done => { window.free = done });
    window.held = window.gone = "";
    HTMLImageElement.prototype.decode = async function () {
        HTMLImageElement.prototype.decode = decode;
        window.held = this.src;
        await free;
        return decode.call(this);
    };
    URL.revokeObjectURL = address => { revoke(address); if (address === window.held) window.gone = address; };
"""
"""The next picture is not read before `free()`; `gone` says that it was then let go."""


def test_of_two_pictures_the_newest_counts_however_long_the_other_takes(page: Page) -> None:
    until(lambda: page.get("input").is_displayed())
    page.run(HOLD)
    page.give("large.png", "drop", picture(size=(256, 256)))
    page.give("small.png", "drop", picture(size=(32, 32)))
    until(lambda: page.text("input-about").startswith("32 × 32"))
    page.run("window.free()")
    until(lambda: page.run("return window.gone"))
    assert page.text("input-about").startswith("32 × 32")


def test_a_picture_that_is_removed_is_not_followed_by_an_older_one(page: Page) -> None:
    start_from(page)
    page.run(HOLD)
    page.give("large.png", "drop", picture(size=(256, 256)))
    until(lambda: page.run("return window.held"))
    page.press("Remove")
    page.run("window.free()")
    until(lambda: page.run("return window.gone"))
    assert page.get("input-empty").is_displayed()


def test_a_file_that_is_no_picture_is_not_taken(page: Page) -> None:
    until(lambda: page.get("input").is_displayed())
    page.give("broken.png", "drop", b"no picture", target='[data-drop="input"]')
    until(lambda: "no picture that can be read" in page.text("notice"))
    assert page.get("input-empty").is_displayed()


def test_a_picture_of_the_gallery_is_one_to_start_from(page: Page) -> None:
    page.generate("a red circle")
    page.done()
    until(lambda: page.all("#tiles button"))[0].click()
    page.press("Start from it")
    until(lambda: page.text("input-about").startswith("64 × 64"))
    page.generate("a blue star")
    until(lambda: job(page)["operation"] == "image_transform")


def test_what_is_painted_is_white_in_the_mask_and_painted_anew(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 200, 0)
    count, of = painted(page)
    assert 0 < count < of / 2
    page.press("Use this mask")
    until(lambda: page.button("Change the mask"))
    page.run(
        "const send = window.fetch; window.fetch = (path, options) => {"
        "if (options?.method === 'POST') window.sent = JSON.parse(options.body); return send(path, options) }"
    )
    page.generate("a blue star")
    page.done()
    made = job(page)
    assert made["operation"] == "image_inpaint"
    assert made["request"]["mask"].startswith("png, 128 x 64")
    script = """
        const done = arguments[0], image = new Image();
        image.onload = () => {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.width, image.height];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
            const at = (x, y) => [...data.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4)];
            done([at(70, 32), at(5, 5), data.filter((value, place) => place % 4 === 0 && value > 127).length]);
        };
        image.src = window.sent.mask;
    """
    inside, outside, white = page.driver.execute_async_script(script)
    assert (inside, outside) == ([255, 255, 255, 255], [0, 0, 0, 255])
    assert abs(white - count) <= count / 20


def test_strokes_are_erased_undone_inverted_and_cleared(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 200, 0)
    first, of = painted(page)
    stroke(page, -200, 50)
    second, _ = painted(page)
    assert second > first
    page.press("Erase")
    stroke(page, 100, 0)
    assert painted(page)[0] < second
    page.press("Undo")
    assert painted(page)[0] == second
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert painted(page)[0] == first
    page.press("Invert")
    assert abs(painted(page)[0] - (of - first)) < of / 50
    page.press("Clear")
    assert painted(page)[0] == 0
    page.press("Undo")
    assert painted(page)[0] > of / 2
    page.press("Cancel")
    assert page.button("Paint a mask").is_displayed()


def test_a_mask_is_changed_later_and_taken_away(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 200, 0)
    first, _ = painted(page)
    page.press("Use this mask")
    page.press("Change the mask")
    assert abs(painted(page)[0] - first) <= first / 20
    page.press("Clear")
    page.press("Use this mask")
    assert page.button("Paint a mask").is_displayed()


def test_the_wheel_zooms_where_the_pointer_is_and_strokes_stay_in_place(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 1, 0)
    wide, _ = painted(page)
    page.press("Clear")
    before = across(page)
    page.run(
        "const t = document.querySelector('.table'), b = t.getBoundingClientRect();"
        "t.dispatchEvent(new WheelEvent('wheel', {deltaY: -600, cancelable: true,"
        "clientX: b.left + b.width / 2, clientY: b.top + b.height / 2}))"
    )
    assert across(page) > 3 * before
    page.run(
        "const t = document.querySelector('.table'), b = t.getBoundingClientRect();"
        "const c = document.querySelector('#painter canvas');"
        "const e = {bubbles: true, pointerId: 1, clientX: b.left + b.width / 2, clientY: b.top + b.height / 2};"
        "c.setPointerCapture = () => {};"
        "c.dispatchEvent(new PointerEvent('pointerdown', e)); c.dispatchEvent(new PointerEvent('pointerup', e))"
    )
    assert abs(painted(page)[0] - wide) < wide / 5
    middle = page.run(
        "const c = document.querySelector('#painter canvas');"
        "return c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data[3]"
    )
    assert middle == 255


def test_two_fingers_zoom_and_paint_nothing(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    before = across(page)
    page.run(
        "const c = document.querySelector('#painter canvas'), b = c.getBoundingClientRect();"
        "c.setPointerCapture = () => {};"
        "const at = (kind, id, x) => c.dispatchEvent(new PointerEvent(kind, {bubbles: true, pointerId: id,"
        "pointerType: 'touch', clientX: b.left + b.width / 2 + x, clientY: b.top + b.height / 2}));"
        "at('pointerdown', 1, -20); at('pointerdown', 2, 20); at('pointermove', 2, 60); at('pointermove', 1, -60);"
        "at('pointerup', 1, -60); at('pointerup', 2, 60)"
    )
    assert across(page) > 2 * before
    assert painted(page)[0] == 0


def test_a_finger_that_stays_after_zooming_does_not_go_on_with_an_older_stroke(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    stroke(page, 100, 0)
    before, _ = painted(page)
    page.run(
        "const c = document.querySelector('#painter canvas'), b = c.getBoundingClientRect();"
        "c.setPointerCapture = () => {};"
        "const at = (kind, id, y) => c.dispatchEvent(new PointerEvent(kind, {bubbles: true, pointerId: id,"
        "pointerType: 'touch', clientX: b.left + b.width / 2, clientY: b.top + b.height / 2 + y}));"
        "at('pointerdown', 1, -20); at('pointerdown', 2, 20); at('pointermove', 2, 21); at('pointerup', 1, -20);"
        "at('pointermove', 2, 150); at('pointerdown', 1, -20); at('pointermove', 1, -21); at('pointerup', 1, -20);"
        "at('pointermove', 2, -150); at('pointerup', 2, 150)"
    )
    assert painted(page)[0] == before


def test_a_mask_is_painted_with_the_keyboard(page: Page) -> None:
    start_from(page)
    page.press("Paint a mask")
    ActionChains(page.driver).send_keys(" ", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, " ").perform()
    assert painted(page)[0] > 50
