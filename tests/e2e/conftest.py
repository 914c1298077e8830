"""The scripts in bin/, run as a person runs them, and a live worker for those that want one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def environ(home: Path) -> dict[str, str]:
    """This environment without settings of ours, and with a home of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_SD_")}
    return {**kept, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script of bin/ to its end, in a folder of its own: `run("rbee-sd", "--version")`."""

    def call(script: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "bin" / script), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environ(tmp_path), capture_output=True, text=True, timeout=timeout, check=False
        )

    return call


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class LiveWorker:
    """A worker started with bin/rbee-sd serve."""

    url: str
    port: int
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def serving(home: Path, *options: str) -> Iterator[LiveWorker]:
    """A worker with the demo model, ready, with this home; it must stop as it should."""
    port = free_port()
    log = home / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(ROOT / "bin" / "rbee-sd"), "serve", "--port", str(port), "--disconnect-grace", "1", *options],
            env=environ(home),
            stdin=subprocess.DEVNULL,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        yield LiveWorker(url, port, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def live_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveWorker]:
    """A worker with the demo model, shared by the tests of a module; ready."""
    with serving(tmp_path_factory.mktemp("worker")) as worker:
        yield worker


def wait_until_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    """Wait until /ready is 200; the model takes some seconds to load."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the worker did not become ready: {log.read_text()}")


def readme_blocks(name: str) -> list[str]:
    """The blocks of the README that are marked `<!-- run: NAME -->`: for a shell, or in Python."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"<!-- run: {name} -->\n```(?:bash|python)\n(.*?)```", text, flags=re.S)
