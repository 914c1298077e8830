"""The studio in a real Chromium, over a worker that is a process of its own.

Each test has a worker on a port of its own, and so a page that has nothing in its storage. At its end the console
must be empty, but for answers and lost connections that the test has announced.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from rbee_sd.bench.chromium import start_chromium
from rbee_sd.settings import flag_name
from tests.browser.page import Page
from tests.conftest import Faults
from tests.process.conftest import WorkerProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The browser's folder."""
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="session")
def chromium() -> None:
    """There is a browser to start, however these tests were called: installed, or said what to install."""
    subprocess.run([ROOT / "bin" / "browser"], check=True)


@pytest.fixture(scope="session")
def driver(chromium: None, profile: Path) -> Iterator[Chrome]:
    """The browser."""
    driver = start_chromium(profile)
    yield driver
    driver.quit()


MakePage = Callable[..., Page]


@pytest.fixture
def make_page(driver: Chrome, faults: Faults, tmp_path: Path) -> Iterator[MakePage]:
    """The page of a worker with these settings, `make_page(model="demo")`; without a model, with the fake pipeline."""
    pages: list[Page] = []

    def make(**changes: Any) -> Page:
        settings = {"port": 0, "state_dir": tmp_path / f"state{len(pages)}", "disconnect_grace": 1, **changes}
        if settings.get("model", "fake") == "fake":
            settings |= {"model": "fake", "fake_pipeline": faults.folder}
        worker = WorkerProcess([part for name, value in settings.items() for part in (flag_name(name), str(value))])
        page = Page(driver, worker)
        pages.append(page)
        return page

    driver.set_window_size(1440, 1000)
    yield make
    wrong = [text for page in pages for text in page.console()]
    driver.get("about:blank")
    driver.get_log("browser")  # type: ignore[no-untyped-call]
    for page in pages:
        page.worker.close()
    assert wrong == []


@pytest.fixture
def page(make_page: MakePage) -> Page:
    """The page of a worker with the fake pipeline, open."""
    page = make_page()
    page.open()
    return page
