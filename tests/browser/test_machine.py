"""The queue with all jobs, and the machine's figures."""

from __future__ import annotations

from tests.browser.conftest import MakePage
from tests.browser.page import Page, until
from tests.conftest import Faults


def rows(page: Page, state: str) -> int:
    """How many jobs the queue shows in a state."""
    return len(page.all(f'#queue li[data-state="{state}"]'))


def figure(page: Page, name: str) -> str:
    """A figure of the machine."""
    script = (
        "return [...document.querySelectorAll('#figures div')].find(d => d.firstChild.textContent === arguments[0])"
    )
    found = page.run(f"{script}?.lastChild.textContent", name)
    return str(found)


def test_jobs_that_share_steps_each_have_their_progress_and_those_that_wait_a_position(
    make_page: MakePage, faults: Faults
) -> None:
    faults.on("capacity", "2")
    faults.on("slow", "0.15")
    page = make_page(disconnect_grace=30)
    page.open()
    page.slide("steps", 100)
    for prompt in ("one", "two", "three", "four"):
        page.generate(prompt)
    until(lambda: (rows(page, "running"), rows(page, "queued")) == (2, 2))
    moved = "return [...document.querySelectorAll('#queue progress')].filter(bar => bar.value > 0).length"
    until(lambda: page.run(moved) == 2)
    texts = [row.text for row in page.all("#queue li")]
    assert [text.splitlines()[0] for text in texts] == ["one", "two", "three", "four"]
    until(lambda: "1 before it" in page.all("#queue li")[-1].text)
    until(lambda: figure(page, "Rows a step") == "4.0")
    assert figure(page, "Jobs in it") == "2"
    assert figure(page, "Engine") == "ready"
    faults.off("slow")
    until(lambda: rows(page, "completed") == 4)


def test_any_job_is_cancelled_by_its_own_button(page: Page, faults: Faults) -> None:
    faults.on("slow", "0.15")
    for prompt in ("one", "two"):
        page.generate(prompt)
    until(lambda: (rows(page, "running"), rows(page, "queued")) == (1, 1))
    page.run("document.querySelector('[aria-label=\"Cancel: two\"]').click()")
    until(lambda: rows(page, "cancelled") == 1)
    assert rows(page, "running") == 1
    page.run("document.querySelector('[aria-label=\"Cancel: one\"]').click()")
    until(lambda: rows(page, "cancelled") == 2)


def test_jobs_of_others_are_seen_too_and_can_be_looked_at(page: Page, faults: Faults) -> None:
    faults.on("slow", "0.1")
    page.run(
        "return fetch('/v1/jobs', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        "body: JSON.stringify({prompt: 'of somebody else', on_disconnect: 'finish'})}).then(r => r.ok)"
    )
    until(lambda: page.all("#queue li") and "of somebody else" in page.all("#queue li")[0].text)
    page.all("#queue .what")[0].click()
    until(lambda: page.text("state").startswith("step "))
    page.done()


def test_a_job_that_fails_says_why(page: Page, faults: Faults) -> None:
    faults.on("oom", "once")
    page.generate("a red circle")
    until(lambda: page.state() == "failed")
    assert "memory" in page.text("state")
    until(lambda: "memory" in page.all('#queue li[data-state="failed"]')[0].text)


def test_an_engine_that_dies_is_seen_and_its_job_goes_on(page: Page, faults: Faults) -> None:
    faults.on("slow", "0.1")
    page.generate("a red circle")
    until(lambda: page.text("state").startswith("step "))
    faults.on("crash", "once")
    until(lambda: figure(page, "Starts") == "2")
    page.done()
