"""Making a picture, and watching it come."""

from __future__ import annotations

from selenium.webdriver import ActionChains, Keys

from tests.browser.conftest import MakePage
from tests.browser.page import Page, until
from tests.conftest import Faults

REFUSED = "status of 400"
"""What the console says of an answer that the page shows at a field."""


def test_a_picture_is_made_and_shown(page: Page) -> None:
    page.generate("a red circle")
    page.done()
    assert "/images/0" in page.sources()[0]
    assert page.text("state") == "done"
    until(lambda: len(page.all("#tiles li")) == 1)


def test_previews_change_in_place_while_the_steps_are_counted(page: Page, faults: Faults) -> None:
    faults.on("slow", "0.1")
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    until(lambda: page.sources()[0].startswith("data:image/jpeg"))
    assert "of 20" in page.text("state")
    until(lambda: " left" in page.text("state"))
    assert page.driver.title.split()[1] == "%"
    page.done()
    assert page.driver.title == "rbee-sd studio"


def test_nothing_moves_while_a_picture_comes(page: Page, faults: Faults) -> None:
    until(lambda: page.fetch("/v1/capabilities")["defaults"])
    page.run(
        "window.shifts = []; new PerformanceObserver(list => {"
        "for (const entry of list.getEntries()) window.shifts.push(entry.value)"
        "}).observe({type: 'layout-shift'})"
    )
    faults.on("slow", "0.05")
    page.generate("a red circle")
    page.done()
    assert sum(page.run("return window.shifts")) < 0.02


def test_stop_stops_at_once(page: Page, faults: Faults) -> None:
    faults.on("slow", "0.1")
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    page.press("Stop")
    until(lambda: page.state() == "cancelled")
    assert page.text("state") == "stopped"
    assert not page.get("stop").is_displayed()


def test_control_and_enter_generate_and_the_settings_are_there_after_a_reload(page: Page) -> None:
    page.type("prompt", "a blue square")
    page.type("negative_prompt", "red")
    page.type("width", "128")
    page.slide("steps", 7)
    page.get("prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    page.done()
    page.open()
    (job,) = page.fetch("/v1/jobs")["jobs"]
    asked = {name: job["request"][name] for name in ("prompt", "negative_prompt", "width", "steps")}
    assert asked == {"prompt": "a blue square", "negative_prompt": "red", "width": 128, "steps": 7}
    assert "height" not in job["request"]
    assert page.get("prompt").get_attribute("value") == "a blue square"
    assert page.get("width").get_attribute("value") == "128"
    assert page.get("steps").get_attribute("value") == "7"
    page.done()


def test_a_reload_in_mid_job_goes_on_where_it_was(page: Page, faults: Faults) -> None:
    faults.on("slow", "0.15")
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    before = page.fetch("/v1/jobs")["jobs"][0]
    page.open()
    until(lambda: page.text("state").startswith("step "))
    page.done()
    (after,) = page.fetch("/v1/jobs")["jobs"]
    assert (after["job_id"], after["state"], after["attempt"]) == (before["job_id"], "completed", 1)


def test_closing_the_page_stops_its_job(make_page: MakePage, faults: Faults) -> None:
    page = make_page(disconnect_grace=0.2)
    page.open()
    faults.on("slow", "0.1")
    page.slide("steps", 60)
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    page.leave()
    until(lambda: page.fetch("/v1/jobs")["jobs"][0]["state"] == "cancelled")


def test_a_job_that_is_to_finish_without_me_does(make_page: MakePage, faults: Faults) -> None:
    page = make_page(disconnect_grace=0.2)
    page.open()
    faults.on("slow", "0.05")
    page.get("finish").click()
    page.slide("steps", 30)
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    page.leave()
    until(lambda: page.fetch("/v1/jobs")["jobs"][0]["state"] == "completed")


def test_a_second_job_of_the_page_is_kept_as_well_as_the_first(make_page: MakePage, faults: Faults) -> None:
    page = make_page(disconnect_grace=0)
    page.open()
    faults.on("slow", "0.05")
    for prompt in ("one", "two", "three"):
        page.generate(prompt)
        until(lambda: page.text("generate").startswith("Generate"))
    until(lambda: len(page.fetch("/v1/jobs?state=completed")["jobs"]) == 3)


def test_a_worker_that_is_restarted_under_the_page_is_found_again(make_page: MakePage, faults: Faults) -> None:
    page = make_page(drain_timeout=0, disconnect_grace=5)
    page.open()
    page.expected += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET"]
    faults.on("slow", "0.1")
    page.slide("steps", 40)
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    page.worker.process.kill()
    until(lambda: page.get("engine").get_attribute("data-state") == "lost")
    page.restart()
    until(lambda: page.get("engine").get_attribute("data-state") == "ready")
    until(lambda: page.text("state").startswith("step "))
    page.done()
    (job,) = page.fetch("/v1/jobs")["jobs"]
    assert (job["state"], job["attempt"]) == ("completed", 2)


def test_while_the_model_loads_the_page_says_so_and_the_job_waits(make_page: MakePage, faults: Faults) -> None:
    faults.on("slow-start", "3")
    page = make_page()
    page.open()
    assert "loading" in page.text("engine")
    page.generate("a red circle")
    until(lambda: page.text("state") == "waiting, next in turn")
    page.done()
    until(lambda: page.text("engine") == "fake · cpu")


def test_errors_appear_at_their_fields_and_go_away(page: Page) -> None:
    page.expected.append(REFUSED)
    page.type("prompt", "")
    page.type("width", "100")
    page.type("height", "4096")
    page.get("generate").click()
    until(lambda: len(page.all("#form .error")) == 3)
    assert "multiple of 8" in page.all("#error-width")[0].text
    assert "at most 2048" in page.all("#error-height")[0].text
    assert page.all("#error-prompt")
    assert page.get("width").get_attribute("aria-invalid") == "true"
    assert page.driver.switch_to.active_element.get_attribute("id") == "prompt"
    page.type("width", "")
    page.type("height", "")
    page.generate("a red circle")
    page.done()
    assert page.all("#form .error") == []
    assert page.get("width").get_attribute("aria-invalid") is None


def test_what_is_too_much_in_all_is_said_where_it_is_sent(make_page: MakePage) -> None:
    page = make_page(max_megapixel_steps=0.01)
    page.open()
    page.expected.append(REFUSED)
    page.generate("a red circle")
    until(lambda: "million" in page.all("#refused")[0].text)


def test_a_seed_is_used_again_until_it_is_unlocked(page: Page) -> None:
    page.generate("a red circle")
    page.done()
    page.press("Use this seed again")
    first = page.get("seed").get_attribute("value")
    page.get("generate").click()
    until(lambda: len(page.fetch("/v1/jobs?state=completed")["jobs"]) == 2)
    page.press("Locked")
    page.get("generate").click()
    until(lambda: len(page.fetch("/v1/jobs?state=completed")["jobs"]) == 3)
    seeds = [str(job["seed"]) for job in reversed(page.fetch("/v1/jobs")["jobs"])]
    assert seeds[:2] == [first, first]
    assert seeds[2] != first


def test_the_lock_keeps_the_seed_of_the_picture_in_sight(page: Page) -> None:
    page.generate("a red circle")
    page.done()
    seed = str(page.fetch("/v1/jobs")["jobs"][0]["seed"])
    page.run(
        "fetch('/v1/jobs', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        "body: JSON.stringify({prompt: 'of somebody else', on_disconnect: 'finish'})})"
    )
    until(lambda: len(page.all("#tiles li")) == 2)
    page.press("Lock")
    assert page.get("seed").get_attribute("value") == seed
    page.press("Locked")
    page.open()
    page.done()
    page.press("Lock")
    assert page.get("seed").get_attribute("value") == seed


def test_several_pictures_come_side_by_side(page: Page) -> None:
    page.slide("count", 4)
    page.generate("a red circle")
    page.done()
    assert len(page.sources()) == 4
    until(lambda: len(page.all("#tiles li")) == 4)


def test_the_form_offers_what_the_worker_does(make_page: MakePage) -> None:
    page = make_page(max_side=512, max_steps=30, max_count=2)
    page.open()
    until(lambda: page.get("steps").get_attribute("max") == "30")
    assert page.get("width").get_attribute("max") == "512"
    assert page.get("count").get_attribute("max") == "2"
    offered = page.run("return [...document.getElementById('scheduler').options].map(each => each.value)")
    assert offered == ["", *page.fetch("/v1/capabilities")["schedulers"]]
    page.press("16:9")
    width, height = (int(page.get(side).get_attribute("value") or 0) for side in ("width", "height"))
    assert width > height >= 64


def test_the_whole_page_can_be_used_with_the_keyboard_alone(page: Page) -> None:
    # First is the link to the API.
    keys = ActionChains(page.driver).send_keys(Keys.TAB, Keys.TAB, "a red circle")
    keys.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.done()
    until(lambda: len(page.all("#tiles li")) == 1)
    for _ in range(60):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        if page.run("return document.activeElement.closest('#tiles') !== null"):
            break
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    until(lambda: page.get("viewer").is_displayed())
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    until(lambda: not page.get("viewer").is_displayed())


def test_the_key_is_asked_for_and_kept_for_the_visit(make_page: MakePage) -> None:
    page = make_page(api_key="secret")
    page.expected.append("status of 401")
    page.driver.get(f"{page.worker.url}/")
    until(lambda: page.get("key").is_displayed())
    for text in ("wrong", "secret"):
        page.type("key-text", text)
        page.press("Open the studio")
        if text == "wrong":
            until(lambda: page.text("key-wrong") == "That key is not right.")
    until(lambda: page.text("engine") == "fake · cpu")
    page.generate("a red circle")
    page.done()
    until(lambda: page.sources()[0].startswith("blob:"))
    until(lambda: len(page.all("#tiles img[src^='blob:']")) == 1)
    page.console()
    page.expected.clear()
    page.open()
    assert not page.get("key").is_displayed()


def test_what_was_set_for_another_worker_is_brought_within_what_this_one_does(make_page: MakePage) -> None:
    page = make_page(max_steps=30)
    page.open()
    kept = '{"prompt": "a red circle", "steps": 90, "scheduler": "none", "loras": [{"name": "gone", "scale": 1}]}'
    page.run("localStorage.setItem('rbee-sd.form', arguments[0])", kept)
    page.open()
    until(lambda: page.get("steps").get_attribute("value") == "30")
    assert page.text("notice") == "Not to be had with this model: scheduler none, steps 90, LoRA gone."
    page.get("generate").click()
    page.done()
    assert page.fetch("/v1/jobs")["jobs"][0]["request"]["steps"] == 30
