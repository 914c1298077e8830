"""A Chromium without a window, for `bench studio` and for the tests of the studio; `bin/browser` sees to it.

Needs selenium, which is among what the tests need and the worker does not: imported only by who wants a browser.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from rbee_sd.bench.wire import BenchError

BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chrome")
"""What it may be called, besides by the variable CHROMIUM."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,1000",
)


def start_chromium(folder: Path) -> Chrome:
    """Start one that keeps what it keeps in `folder`, and there puts what is downloaded into `downloads`.

    Raises `BenchError` when there is none.
    """
    options = ChromeOptions()
    options.binary_location = _found("CHROMIUM", *BROWSERS)
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=ChromeService(_found("CHROMEDRIVER", "chromedriver")))


def _found(variable: str, *names: str) -> str:
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise BenchError(f"there is no {names[0]}; bin/browser says what to install")
    return found
