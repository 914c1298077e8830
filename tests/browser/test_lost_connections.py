"""What becomes of the page, and of what it has asked for, where answers and connections are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.conftest import MakePage
from tests.browser.line import Line
from tests.browser.page import Page, until
from tests.conftest import Faults

LOST = ["ERR_EMPTY_RESPONSE", "ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_SOCKET_NOT_CONNECTED"]
"""What the console says of it."""
SUBMIT = b"POST /v1/jobs"
FEED = b"GET /v1/events"

MakeLine = Callable[..., tuple[Page, Line]]


@pytest.fixture
def make_line(make_page: MakePage) -> Iterator[MakeLine]:
    """A page whose worker, with these settings, is reached through a line: `make_line(disconnect_grace=0)`."""
    lines: list[Line] = []

    def make(**changes: Any) -> tuple[Page, Line]:
        page = make_page(**changes)
        line = Line(int(page.url.rpartition(":")[2]))
        lines.append(line)
        page.url = line.url
        page.expected += LOST
        return page, line

    yield make
    for line in lines:
        line.close()


def jobs(page: Page) -> list[tuple[str, str]]:
    """The prompts and states of the worker's jobs, newest first."""
    return [(job["request"]["prompt"], job["state"]) for job in page.fetch("/v1/jobs")["jobs"]]


def sending_again(page: Page) -> bool:
    """Whether the button says that there was no answer yet."""
    return page.text("generate").startswith("Sending it again")


def before_every_page(page: Page, script: str) -> Callable[[], object]:
    """Have a script run before the page's own; returns what ends that."""
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    return lambda: page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_one_job_comes_of_a_request_whose_answers_are_lost(make_line: MakeLine) -> None:
    page, line = make_line()
    # It is not there where a page comes over plain HTTP from another machine.
    stop = before_every_page(page, "delete Crypto.prototype.randomUUID")
    page.open()
    stop()
    line.lose = SUBMIT
    page.generate("a red circle")
    until(lambda: sending_again(page) and line.lost > 2)
    page.get("generate").click()
    line.lose = None
    page.done()
    until(lambda: page.text("generate").startswith("Generate"))
    assert page.text("notice") == ""
    assert jobs(page) == [("a red circle", "completed")]


def test_one_job_comes_of_a_request_during_which_the_worker_dies(make_line: MakeLine) -> None:
    page, line = make_line()
    page.open()
    line.lose = SUBMIT
    page.generate("a red circle")
    until(lambda: line.lost)
    page.worker.process.kill()
    line.lose = None
    page.restart()
    page.done()
    assert jobs(page) == [("a red circle", "completed")]


def test_a_request_waits_for_a_worker_that_is_started_again(make_line: MakeLine) -> None:
    page, _ = make_line()
    page.open()
    page.worker.process.kill()
    page.worker.wait()
    page.generate("a red circle")
    until(lambda: sending_again(page))
    page.restart()
    page.done()
    assert jobs(page) == [("a red circle", "completed")]


def test_a_request_waits_for_the_next_worker_where_this_one_is_about_to_leave(
    make_line: MakeLine, faults: Faults
) -> None:
    page, _ = make_line(drain_timeout=2, disconnect_grace=30)
    page.open()
    page.expected.append("status of 503")
    faults.on("slow", "0.3")
    page.generate("one")
    until(lambda: page.text("state").startswith("step "))
    page.worker.process.terminate()
    until(lambda: page.fetch("/ready")["reason"] == "draining")
    page.generate("two")
    until(lambda: sending_again(page))
    page.worker.wait()
    faults.off("slow")
    page.restart()
    until(lambda: jobs(page) == [("two", "completed"), ("one", "completed")])


def test_where_the_worker_stays_away_the_page_says_so_and_the_same_request_later_makes_no_second_job(
    make_line: MakeLine,
) -> None:
    page, line = make_line()
    # Its clock goes twenty times as fast.
    stop = before_every_page(page, "const now = performance.now; performance.now = () => 20 * now.call(performance)")
    page.open()
    stop()
    line.lose = SUBMIT
    page.generate("a red circle")
    until(lambda: "cannot be reached" in page.text("notice"))
    line.lose = None
    assert page.get("generate").get_attribute("aria-disabled") == "false"
    page.get("generate").click()
    page.done()
    assert jobs(page) == [("a red circle", "completed")]
    page.get("generate").click()
    until(lambda: len(jobs(page)) == 2)


def test_a_request_that_is_never_answered_is_given_up_and_can_be_sent_again(make_line: MakeLine) -> None:
    page, line = make_line()
    # A second in place of the 60 that the page waits for an answer.
    shorter = """
        const give = AbortSignal.timeout.bind(AbortSignal);
        AbortSignal.timeout = ms => give(ms === 60000 ? 1000 : ms);
    """
    stop = before_every_page(page, shorter)
    page.open()
    stop()
    line.hold = SUBMIT
    page.generate("a red circle")
    until(lambda: "cannot be reached" in page.text("notice"))
    line.hold = None
    page.generate("a red circle")
    until(lambda: page.sources() and "/images/" in page.sources()[0])
    assert [prompt for prompt, _ in jobs(page)] == ["a red circle"]


def test_a_picture_that_could_not_be_fetched_comes_with_the_next_connection(make_line: MakeLine) -> None:
    page, _ = make_line()
    page.expected.append("ERR_BLOCKED_BY_CLIENT")
    page.open()
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/images/*"]})
    page.generate("a red circle")
    page.done()
    until(lambda: page.run("return document.querySelector('#tiles img')?.complete"))
    widths = "return [...document.querySelectorAll('#pictures img, #tiles img')].map(each => each.naturalWidth)"
    until(lambda: page.run(widths) == [0, 0])
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.restart()
    until(lambda: page.run(widths) == [64, 64])


def test_no_job_is_left_while_the_stream_that_names_it_is_opened(make_line: MakeLine, faults: Faults) -> None:
    page, line = make_line(disconnect_grace=0)
    page.open()
    faults.on("slow", "0.05")
    line.hold = FEED
    for prompt in ("one", "two", "three"):
        page.generate(prompt)
        until(lambda wanted=prompt: [each for each, _ in jobs(page)][:1] == [wanted])  # type: ignore[misc]
    line.hold = None
    until(lambda: [state for _, state in jobs(page)] == ["completed"] * 3)


def test_a_connection_that_dies_without_a_word_is_noticed_and_opened_again(make_line: MakeLine, faults: Faults) -> None:
    page, line = make_line(heartbeat=0.2, disconnect_grace=30)
    # A second in place of the 25 that the page waits for a heartbeat, and of the 20 that it waits for an answer.
    shorter = """
        const wait = setTimeout, give = AbortSignal.timeout.bind(AbortSignal);
        window.setTimeout = (act, ms) => wait(act, ms === 25000 ? 1000 : ms);
        AbortSignal.timeout = ms => give(ms / 20);
    """
    stop = before_every_page(page, shorter)
    page.open()
    stop()
    faults.on("slow", "0.4")
    page.slide("steps", 100)
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    line.die(b"")
    until(lambda: page.get("engine").get_attribute("data-state") == "lost")
    until(lambda: page.get("engine").get_attribute("data-state") == "ready")
    before = page.text("state")
    until(lambda: page.text("state").startswith("step ") and page.text("state") != before)
    faults.off("slow")
    page.done()


def made(page: Page, *prompts: str) -> None:
    """Have these made, and the newest opened in full."""
    for number, prompt in enumerate(prompts):
        page.generate(prompt)
        until(lambda wanted=number + 1: len(page.all("#tiles button")) == wanted)  # type: ignore[misc]
    page.all('#tiles [data-place="0"] button')[0].click()
    until(lambda: page.get("viewer").is_displayed())


def told(page: Page) -> str:
    """What is said in the dialog went wrong."""
    return page.all("#viewer [role=alert]")[0].text


def no_cache(page: Page) -> None:
    """What the browser has of pictures is forgotten."""
    page.driver.execute_cdp_cmd("Network.clearBrowserCache", {})


def test_what_cannot_be_done_with_a_picture_while_the_worker_is_away_is_said_beside_it(make_line: MakeLine) -> None:
    page, _ = make_line()
    page.open()
    made(page, "a red circle")
    page.worker.process.kill()
    page.worker.wait()
    no_cache(page)
    for action in ("Start from it", "Download", "Delete"):
        page.run("document.querySelector('#viewer [role=alert]').textContent = ''")
        page.press(action)
        if action == "Delete":
            page.press("Delete for good?")
        until(lambda: "cannot be reached" in told(page))
    page.press("Close")
    page.all("#pictures button")[0].click()
    until(lambda: "cannot be reached" in page.text("notice"))


def test_what_cannot_be_done_with_a_picture_that_is_gone_is_said_beside_it(make_page: MakePage) -> None:
    page = make_page()
    page.open()
    page.expected.append("status of 410")
    made(page, "one", "two")
    job_id = page.fetch("/v1/jobs")["jobs"][0]["job_id"]
    page.run("return fetch(arguments[0], {method: 'DELETE'}).then(() => 0)", f"/v1/jobs/{job_id}?forget=true")
    no_cache(page)
    for action in ("Start from it", "Download"):
        page.run("document.querySelector('#viewer [role=alert]').textContent = ''")
        page.press(action)
        until(lambda: "It is gone" in told(page))
    page.press("Close")
    page.all('#tiles [data-place="0"] button')[0].click()
    until(lambda: "gone" in told(page))
    page.press("Delete")
    page.press("Delete for good?")
    until(lambda: "one" in page.get("viewer").text)
    page.press("Close")
    page.all("#pictures button")[0].click()
    until(lambda: "It is gone" in page.text("notice"))


def test_what_cannot_be_stopped_is_said_where_that_was_asked(make_line: MakeLine, faults: Faults) -> None:
    page, line = make_line(disconnect_grace=30)
    page.open()
    faults.on("slow", "0.2")
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    line.refuse = b"DELETE "
    page.press("Stop")
    until(lambda: page.text("narration").startswith("Not stopped. The worker cannot be reached"))
    page.press("✕")
    until(lambda: "Not cancelled. The worker cannot be reached" in page.get("queue").text)
    line.refuse = None
    page.press("Stop")
    until(lambda: page.state() == "cancelled")
    assert page.text("narration") == ""
    assert "Not cancelled" not in page.get("queue").text


SHOW = """
    const [first, second, done] = arguments;
    const revoke = URL.revokeObjectURL, create = URL.createObjectURL;
    window.kept = 0;
    URL.createObjectURL = file => { window.kept++; return create(file) };
    URL.revokeObjectURL = address => { window.kept--; revoke(address) };
    import("/studio/api.js").then(({show}) => {
        window.image = document.body.appendChild(new Image());
        window.first = show(image, first).then(() => "shown", () => "failed");
        window.second = show(image, second).then(() => "shown", () => "failed");
        done();
    });
"""


def test_the_picture_that_was_asked_for_last_is_shown_and_none_is_kept_in_memory(make_line: MakeLine) -> None:
    page, line = make_line(api_key="secret")
    page.expected.append("status of 401")
    page.driver.get(f"{page.url}/")
    until(lambda: page.get("key").is_displayed())
    page.type("key-text", "secret")
    page.press("Open the studio")
    until(lambda: page.text("engine") == "fake · cpu")
    for number, width in enumerate((64, 128)):
        page.type("width", str(width))
        page.generate("a red circle")
        until(lambda wanted=number + 1: len(page.all("#tiles button")) == wanted)  # type: ignore[misc]
    script = "return performance.getEntriesByType('resource').map(each => each.name.split('?')[0])"

    def shown() -> list[str]:
        return list(dict.fromkeys(name for name in page.run(script) if "/images/" in name))

    until(lambda: len(shown()) == 2)
    narrow, wide = shown()
    no_cache(page)
    line.hold = f"GET {narrow.removeprefix(page.url)}".encode()
    page.driver.execute_async_script(SHOW, narrow, wide)
    until(lambda: page.run("return window.image.naturalWidth") == 128)
    line.hold = None
    outcome = "const done = arguments[0]; Promise.all([window.first, window.second]).then(done)"
    assert page.driver.execute_async_script(outcome) == ["shown", "shown"]
    assert page.run("return [window.image.naturalWidth, window.kept]") == [128, 0]
    page.driver.execute_async_script(SHOW, narrow, "/v1/status")
    assert page.driver.execute_async_script(outcome) == ["shown", "failed"]
    assert page.run("return window.kept") == 0
