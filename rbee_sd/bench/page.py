"""The studio in a browser, and what is measured inside of it by `scripts` that run in the page until they are done.

Blocks: whoever calls it from a loop does so in a thread. Needs selenium; see `chromium`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome

from rbee_sd.bench import scripts
from rbee_sd.bench.wire import BenchError

PATIENCE = 60.0
LOOK_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class Scrolled:
    """What a way through the gallery was like. `gaps` are milliseconds between frames."""

    gaps: Sequence[float]
    seen: int
    """Tiles that were in sight, looked at four times a second."""
    there: int
    """Those of them that had their picture."""
    all: bool
    """Whether it came to the end of all jobs."""
    pixels: float


class StudioPage:
    """The studio of the worker on this port."""

    def __init__(self, driver: Chrome, port: int) -> None:
        self._driver = driver
        self._url = f"http://127.0.0.1:{port}/"
        driver.set_script_timeout(300)

    def open(self) -> None:
        """Go there, as for the first time, and wait until the page has heard of the worker."""
        self._driver.get("about:blank")
        self._driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        self._driver.get(self._url)
        state = "return document.getElementById('engine').dataset.state;"
        self._until(lambda: self._run(state) in ("ready", "busy"), "the page did not hear of the worker")

    def files(self) -> dict[str, int]:
        """The files that the page consists of, and the bytes of each, not compressed."""
        return dict(self._run(scripts.FILES))

    def painted(self) -> float:
        """Milliseconds from asking for the page to the first paint with something on it."""
        self._until(lambda: self._run(scripts.PAINT) is not None, "nothing was painted")
        return float(self._run(scripts.PAINT))

    def generate(self, prompts: Sequence[str], **settings: int) -> None:
        """Have these made, and wait until all of them run."""
        self._wait_for(scripts.GENERATE, prompts, settings)
        self._until(lambda: self._run(scripts.RUNNING) == len(prompts), "the jobs did not all run at once")

    def watch(self, seconds: float) -> tuple[list[float], int]:
        """Milliseconds between frames for so long, and how many previews the stage showed."""
        found = self._wait_for(scripts.WATCH, seconds)
        return list(found["gaps"]), int(found["previews"])

    def scroll(self, jobs: int, speed: float, seconds: float) -> Scrolled:
        """Scroll from the top to the end of a gallery of so many, at `speed` pixels a second, for so long at most."""
        return Scrolled(**self._wait_for(scripts.SCROLL, jobs, speed, seconds))

    def jump(self, share: float) -> float:
        """Milliseconds from going to a place (0 is the top, 1 the end) until all tiles there have their pictures."""
        return float(self._wait_for(scripts.JUMP, share))

    def elements(self) -> int:
        """How many there are in the page."""
        return int(self._run("return document.querySelectorAll('*').length;"))

    def heap(self) -> int:
        """Bytes of JavaScript's objects, without what is garbage."""
        self._driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        self._driver.execute_cdp_cmd("Performance.enable", {})
        metrics = self._driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return int(next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize"))

    def resident(self) -> int:
        """Resident bytes of the browser's process for the page, decoded pictures included."""
        browser = psutil.Process(self._driver.service.process.pid)
        shown = [each for each in browser.children(recursive=True) if "--type=renderer" in each.cmdline()]
        return max(int(each.memory_info().rss) for each in shown)

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def _wait_for(self, script: str, *arguments: Any) -> Any:
        try:
            return self._driver.execute_async_script(script, *arguments)
        except WebDriverException as error:
            raise BenchError(f"the browser failed: {error.msg}") from error

    def _until(self, check: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not check():
            if time.monotonic() > deadline:
                raise BenchError(otherwise)
            time.sleep(LOOK_AGAIN)
