"""The gallery, one picture in full, and what can be done with it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Keys

from rbee_sd.engine.outputs import picture_file
from tests.browser.conftest import MakePage
from tests.browser.page import Page, until
from tests.pictures import chunk, picture, png


def make(page: Page, *prompts: str) -> None:
    """Have these made, one after the other."""
    for prompt in prompts:
        page.generate(prompt)
        until(lambda wanted=prompt: titles(page)[:1] == [wanted])  # type: ignore[misc]


def titles(page: Page) -> list[str]:
    """The prompts of the tiles, in the order in which they are shown."""
    script = """
        const tiles = [...document.querySelectorAll("#tiles li")];
        tiles.sort((one, other) => one.dataset.place - other.dataset.place);
        return tiles.map(tile => tile.querySelector("button").title);
    """
    return list(page.run(script))


def open_tile(page: Page, place: int) -> None:
    """Open a picture of the gallery."""
    until(lambda: page.all(f'#tiles [data-place="{place}"] button'))[0].click()
    until(lambda: page.get("viewer").is_displayed())


def test_the_gallery_holds_finished_pictures_newest_first_also_after_a_reload(page: Page) -> None:
    make(page, "one", "two", "three")
    until(lambda: titles(page) == ["three", "two", "one"])
    page.open()
    until(lambda: titles(page) == ["three", "two", "one"])
    until(lambda: page.text("gallery-count") == "3")


def test_a_picture_in_full_says_how_it_was_made_and_its_settings_can_be_used_again(page: Page) -> None:
    page.type("negative_prompt", "blue")
    page.type("seed", "4711")
    page.type("width", "128")
    page.slide("steps", 9)
    make(page, "a red circle")
    page.press("The model's defaults")
    page.type("prompt", "another")
    open_tile(page, 0)
    told = page.get("viewer").text
    for part in ("a red circle", "blue", "4711", "128 × 64", "9", "euler"):
        assert part in told
    page.press("Reuse settings")
    until(lambda: not page.get("viewer").is_displayed())
    values = {
        name: page.get(name).get_attribute("value") for name in ("prompt", "negative_prompt", "seed", "width", "steps")
    }
    assert values == {"prompt": "a red circle", "negative_prompt": "blue", "seed": "4711", "width": "128", "steps": "9"}


def test_the_seed_of_any_picture_of_a_job_can_be_used_again(page: Page) -> None:
    page.type("seed", "100")
    page.slide("count", 3)
    make(page, "a red circle")
    open_tile(page, 2)
    page.press("Reuse seed")
    assert page.get("seed").get_attribute("value") == "102"


def test_the_arrow_keys_go_from_picture_to_picture(page: Page) -> None:
    make(page, "one", "two")
    open_tile(page, 0)
    assert "two" in page.get("viewer").text
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    until(lambda: "one" in page.get("viewer").text)


def test_a_picture_is_downloaded_as_a_file(page: Page, profile: Path) -> None:
    make(page, "a red circle")
    open_tile(page, 0)
    page.press("Download")
    folder = profile / "downloads"
    job_id = page.fetch("/v1/jobs")["jobs"][0]["job_id"]
    until(lambda: (folder / f"{job_id}-0.png").exists())
    assert (folder / f"{job_id}-0.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_is_deleted_when_that_is_said_twice(page: Page) -> None:
    make(page, "one", "two")
    open_tile(page, 0)
    page.press("Delete")
    assert len(page.fetch("/v1/jobs")["jobs"]) == 2
    page.press("Delete for good?")
    until(lambda: len(page.fetch("/v1/jobs")["jobs"]) == 1)
    until(lambda: "one" in page.get("viewer").text)
    page.press("Close")
    assert titles(page) == ["one"]


def test_deleting_one_of_several_pictures_says_that_all_of_the_job_go(page: Page) -> None:
    page.slide("count", 3)
    make(page, "one")
    open_tile(page, 0)
    page.press("Delete")
    page.press("Delete all 3 pictures of this job for good?")
    until(lambda: page.fetch("/v1/jobs")["jobs"] == [])
    until(lambda: titles(page) == [])


def test_a_picture_whose_settings_are_nonsense_harms_nothing(page: Page) -> None:
    nonsense = {"prompt": {"a": 1}, "width": {"toString": 1}, "steps": [3], "loras": [None, 5], "seed": "x", "count": 2}
    text = b"rbee-sd\0" + json.dumps(nonsense).encode()
    page.give("nonsense.png", "drop", png(chunk(b"tEXt", text)), target='[data-drop="settings"]')
    until(lambda: page.get("count").get_attribute("value") == "2")
    page.open()
    assert page.get("count").get_attribute("value") == "2"
    page.generate("a red circle")
    page.done()


def test_two_pictures_are_compared_side_by_side(page: Page) -> None:
    make(page, "one", "two")
    open_tile(page, 0)
    page.press("Compare with …")
    open_tile(page, 1)
    assert len(page.all("#viewer figure")) == 2
    assert page.all("#viewer figure")[0].rect["y"] == page.all("#viewer figure")[1].rect["y"]
    page.press("End comparing")
    assert len(page.all("#viewer figure")) == 1


def test_a_png_of_another_tool_fills_the_form(page: Page) -> None:
    text = (
        "a castle, (snow:1.2)\nsecond line\nNegative prompt: people, cars\n"
        "Steps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 123456789012, Size: 192x128, "
        'Model: "a, b", Version: v1.10'
    )
    page.give(
        "castle.png", "drop", png(chunk(b"tEXt", b"parameters\0" + text.encode())), target='[data-drop="settings"]'
    )
    until(lambda: page.get("prompt").get_attribute("value") == "a castle, (snow:1.2)\nsecond line")
    names = ("negative_prompt", "steps", "guidance_scale", "seed", "width", "height", "scheduler")
    assert [page.get(name).get_attribute("value") for name in names] == [
        "people, cars",
        "12",
        "5.5",
        "123456789012",
        "192",
        "128",
        "dpmpp_2m_karras",
    ]


def test_a_png_whose_text_has_no_end_is_read_at_once(page: Page) -> None:
    text = b'parameters\0a castle\nSteps: 12, Note: "' + b"\\" * 2000 + b" " * 2000
    page.give("castle.png", "drop", png(chunk(b"tEXt", text)), target='[data-drop="settings"]')
    until(lambda: page.get("prompt").get_attribute("value") == "a castle")
    assert page.get("steps").get_attribute("value") == "12"


INFOTEXT = (
    "a castle in the snow ❄\nNegative prompt: people\n"
    "Steps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 123, Size: 192x128"
)
ORDERS = {"big": "utf-16-be", "little": "utf-16-le"}


@pytest.mark.parametrize(("kind", "order"), [("JPEG", "big"), ("JPEG", "little"), ("WEBP", "big"), ("WEBP", "little")])
def test_a_jpeg_or_webp_of_another_tool_fills_the_form(page: Page, kind: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif[0x010E] = "a description"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + INFOTEXT.encode(ORDERS[order])
    data = picture(kind, exif=exif)
    page.give("castle", "drop", data, f"image/{kind.lower()}", '[data-drop="settings"]')
    until(lambda: page.get("prompt").get_attribute("value") == "a castle in the snow ❄")
    values = [
        page.get(name).get_attribute("value") for name in ("negative_prompt", "steps", "seed", "width", "scheduler")
    ]
    assert values == ["people", "12", "123", "192", "dpmpp_2m_karras"]


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_a_jpeg_or_webp_of_this_worker_fills_the_form(page: Page, kind: str) -> None:
    made_by = {"operation": "image_generation", "prompt": "a red circle", "negative_prompt": "blue", "seed": 7}
    made_by |= {"steps": 9, "width": 64, "height": 128, "guidance_scale": 5.5, "scheduler": "euler_a", "model": "demo"}
    made_by |= {"loras": []}
    data = picture_file(Image.new("RGB", (64, 128)), made_by, kind)
    page.give(f"circle.{kind}", "drop", data, f"image/{kind}", '[data-drop="settings"]')
    until(lambda: page.get("prompt").get_attribute("value") == "a red circle")
    names = ("negative_prompt", "seed", "steps", "width", "height", "guidance_scale", "scheduler")
    values = [page.get(name).get_attribute("value") for name in names]
    assert values == ["blue", "7", "9", "64", "128", "5.5", "euler_a"]


def test_a_photograph_with_a_comment_and_files_that_are_cut_off_change_nothing(page: Page) -> None:
    page.type("prompt", "mine")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0Summer"
    for kind in ("JPEG", "WEBP"):
        whole = picture(kind, exif=exif)
        for data in (whole, whole[:60], whole[: whole.index(b"ASCII") + 6], whole[:3]):
            page.run("document.getElementById('notice').textContent = ''")
            page.give("photograph", "drop", data, f"image/{kind.lower()}", '[data-drop="settings"]')
            until(lambda: page.text("notice") == "That file does not say how it was made.")
    assert page.get("prompt").get_attribute("value") == "mine"


def test_a_png_that_says_nothing_changes_nothing(page: Page) -> None:
    page.type("prompt", "mine")
    page.give("plain.png", "drop", png(), target='[data-drop="settings"]')
    until(lambda: page.text("notice") == "That file does not say how it was made.")
    assert page.get("prompt").get_attribute("value") == "mine"


def test_the_gallery_shows_thumbnails_of_what_is_large_and_gives_the_whole_picture(page: Page) -> None:
    page.type("width", "512")
    page.type("height", "512")
    make(page, "a red circle")
    wide = "return document.querySelector(arguments[0])?.naturalWidth"
    until(lambda: page.run(wide, "#tiles img") == 256)
    dragged = """
        const data = new DataTransfer();
        document.querySelector("#tiles li").dispatchEvent(new DragEvent("dragstart", {dataTransfer: data}));
        return data.getData("text/uri-list");
    """
    url = page.run(dragged)
    assert page.fetch("/v1/jobs")["jobs"][0]["images"][0]["url"] in url
    assert "thumbnail" not in url
    open_tile(page, 0)
    until(lambda: page.run(wide, "#viewer img") == 512)


MakeFull = Callable[[int], Page]


@pytest.fixture
def make_full(make_page: MakePage, tmp_path: Path) -> MakeFull:
    """The page of a worker that has so many pictures, open: `make_full(5000)`."""

    def full(pictures: int) -> Page:
        page = make_page(drain_timeout=0)
        page.open()
        make(page, "a red circle")
        page.leave()
        page.worker.process.terminate()
        page.worker.wait()
        multiply(tmp_path / "state0", pictures)
        page.restart()
        page.open()
        until(lambda: page.all("#tiles li"))
        return page

    return full


def at_the_end(page: Page, pictures: int) -> bool:
    """Whether going to the end of the gallery has come to the last of so many."""
    page.run("scrollTo(0, document.body.scrollHeight)")
    return page.text("gallery-count") == str(pictures) and bool(page.all(f'#tiles [data-place="{pictures - 1}"]'))


def count_lists(page: Page) -> None:
    """Have the page keep the statuses of the lists that it asks for, in `lists`."""
    page.run("""
        window.lists = [];
        const real = fetch;
        window.fetch = async (path, options) => {
            const answer = await real(path, options);
            if (path.includes("state=completed")) window.lists.push(answer.status);
            return answer;
        };
    """)


def test_the_gallery_goes_on_when_the_last_picture_it_knew_was_deleted_elsewhere(make_full: MakeFull) -> None:
    page = make_full(350)
    page.expected.append("status of 410")
    # The one that was made by this page is the oldest.
    until(lambda: page.text("gallery-count") == "201 or more")
    last = page.fetch("/v1/jobs?state=completed&limit=200")["next"]
    forget = "fetch(`/v1/jobs/${arguments[0]}?forget=true`, {method: 'DELETE'}).then(() => arguments[1]())"
    # Before, since the page may read on at any time.
    count_lists(page)
    page.driver.execute_async_script(forget, last)
    until(lambda: at_the_end(page, 350))
    assert page.run("return lists") == [410, 200, 200, 200]


def test_a_gallery_that_is_known_is_not_read_again_after_a_restart(make_full: MakeFull) -> None:
    page = make_full(550)
    page.expected += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET"]
    until(lambda: at_the_end(page, 550))
    place = page.run("return scrollY")
    count_lists(page)
    page.restart()
    until(lambda: page.run("return lists") and page.text("gallery-count") == "550")
    assert page.run("return lists") == [200]
    assert page.run("return scrollY") == place


def test_thousands_of_pictures_are_scrolled_through_with_a_screenful_in_the_page(make_full: MakeFull) -> None:
    page = make_full(5000)
    most = 0

    def scrolled_to_the_end() -> bool:
        nonlocal most
        found = at_the_end(page, 5000)
        most = max(most, int(page.run("return document.querySelectorAll('#tiles li').length")))
        return found

    until(scrolled_to_the_end)
    assert most < 150
    page.run("scrollTo(0, 0)")
    until(lambda: [tile.get_property("naturalWidth") for tile in page.all('#tiles [data-place="0"] img')] == [64])


def multiply(state: Path, jobs: int) -> None:
    """Make the one job in a worker's state folder, which has ended, so many."""
    database = sqlite3.connect(state / "jobs.sqlite")
    names = [row[1] for row in database.execute("PRAGMA table_info(jobs)") if row[1] not in ("number", "id", "key")]
    (first,) = database.execute("SELECT id FROM jobs").fetchone()
    for _ in range(jobs - 1):
        other = f"job_{uuid.uuid4()}"
        rest = ", ".join(names)
        database.execute(f"INSERT INTO jobs (id, {rest}) SELECT ?, {rest} FROM jobs WHERE id = ?", (other, first))  # noqa: S608
        shutil.copytree(state / "images" / first, state / "images" / other, copy_function=os.link)
    database.commit()
    database.close()
