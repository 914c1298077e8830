"""The studio as a test sees it: what a person finds there and does with it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, TypeVar

from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.process.conftest import WorkerProcess

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds; the first start of a browser and a worker on a busy machine take most of them."""


def until(check: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Wait until `check()` is true and return it; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := check()):
        assert time.monotonic() < deadline, f"not so within {timeout} s: {check}"
        time.sleep(0.03)
    return value


class Page:
    """The studio as a person sees it. What is named by an id is found when it is asked for."""

    def __init__(self, driver: Chrome, worker: WorkerProcess) -> None:
        self.driver = driver
        self.worker = worker
        self.url = worker.url
        self.expected: list[str] = []

    def open(self) -> None:
        """Go to the page, and wait until it has heard of the worker."""
        self.driver.get(f"{self.url}/")
        until(lambda: self.get("engine").get_attribute("data-state") in ("ready", "busy"))

    def leave(self) -> None:
        """Go to something of the worker's that is not the page; `fetch` still works there."""
        self.expected.append("favicon.ico")
        self.driver.get(f"{self.worker.url}/studio/icon.svg")

    def give(self, name: str, kind: str, data: bytes, mime: str = "image/png", target: str = "body") -> bool:
        """Drop (`kind` "drop") or paste (`kind` "paste") a file of this name onto what the selector `target` finds.

        Returns whether the browser is kept from doing with it what it would by itself.
        """
        script = """
            const [name, kind, base64, mime, target] = arguments;
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], name, {type: mime}));
            const options = {bubbles: true, cancelable: true};
            const place = document.querySelector(target);
            if (kind === "paste") {
                return !place.dispatchEvent(new ClipboardEvent("paste", {...options, clipboardData: data}));
            }
            document.body.dispatchEvent(new DragEvent("dragover", {...options, dataTransfer: data}));
            return !place.dispatchEvent(new DragEvent("drop", {...options, dataTransfer: data}));
        """
        return bool(self.run(script, name, kind, base64.b64encode(data).decode(), mime, target))

    def copy(self, **contents: bytes) -> None:
        """Put this on the browser's clipboard: `copy(text=…, html=…, png=…)`."""
        permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": self.url}
        self.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
        kinds = {"text": "text/plain", "html": "text/html", "png": "image/png"}
        script = """
            const [contents, done] = arguments;
            const items = Object.entries(contents).map(([kind, base64]) =>
                [kind, new Blob([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], {type: kind})]);
            const item = new ClipboardItem(Object.fromEntries(items));
            navigator.clipboard.write([item]).then(() => done(""), e => done(String(e)));
        """
        coded = {kinds[kind]: base64.b64encode(content).decode() for kind, content in contents.items()}
        failed = self.driver.execute_async_script(script, coded)
        assert not failed, failed

    def restart(self) -> None:
        """Start the worker again, on the port and in the state folder that it had."""
        self.worker.close()
        arguments = list(self.worker.process.args[4:])  # type: ignore[index]
        arguments[arguments.index("--port") + 1] = self.worker.url.rpartition(":")[2]
        self.worker = WorkerProcess(arguments)

    def get(self, name: str) -> WebElement:
        """An element by its id."""
        return self.driver.find_element(By.ID, name)

    def all(self, selector: str) -> list[WebElement]:
        """Elements by a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, name: str) -> str:
        """What an element says."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def text_of(self, selector: str) -> str:
        """What the first that a CSS selector finds says, whether it is in sight or not."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def type(self, name: str, text: str) -> None:
        """Write into a field, in place of what is there."""
        field = self.get(name)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE)

    def slide(self, name: str, value: float) -> None:
        """Bring a slider to a value."""
        self.run(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('input', {bubbles: true}))",
            name,
            value,
        )

    def press(self, label: str, within: str = "") -> None:
        """Press the button of this label."""
        self.button(label, within).click()

    def button(self, label: str, within: str = "") -> WebElement:
        """The visible button of this label, once it is there."""

        script = """
            const [label, within] = arguments;
            const shown = each => each.checkVisibility() && each.innerText.trim() === label;
            return [...document.querySelectorAll(`${within} button`)].find(shown);
        """
        button: WebElement = until(lambda: self.run(script, label, within))
        return button

    def generate(self, prompt: str) -> None:
        """Ask for a picture, when the request before is answered."""
        self.type("prompt", prompt)
        until(lambda: self.get("generate").get_attribute("aria-disabled") != "true")
        self.get("generate").click()

    def state(self) -> str:
        """Where the job on the stage is."""
        return self.get("stage").get_attribute("data-state") or ""

    def done(self) -> None:
        """Wait until the job on the stage is done."""
        until(lambda: self.state() == "completed")

    def sources(self) -> list[str]:
        """Where the pictures on the stage come from."""
        return [str(image.get_attribute("src")) for image in self.all("#pictures img")]

    def fetch(self, path: str) -> Any:
        """What the worker answers to the page: JSON."""
        script = "const done = arguments[1]; fetch(arguments[0]).then(r => r.json()).then(done, e => done(String(e)))"
        return self.driver.execute_async_script(script, path)

    def console(self) -> list[str]:
        """What went wrong in the browser since this was asked last, but for what is expected."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        texts = [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
        return [text for text in texts if not any(each in text for each in self.expected)]
