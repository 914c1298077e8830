"""Workers as processes of their own: `python -m rbee_sd serve`, with the fake pipeline, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tornado.ioloop import IOLoop

from rbee_sd.settings import flag_name
from tests.conftest import Client, Faults


class WorkerProcess:
    """A running `serve`, with what it has logged so far."""

    def __init__(self, arguments: list[str]) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_SD_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rbee_sd", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()
        assert self._listening.wait(30), self.log

    @property
    def log(self) -> str:
        """Everything logged so far."""
        return "".join(self.lines)

    def children(self) -> list[psutil.Process]:
        """The worker's child processes: the engine, and Python's own helper for spawning."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def signal(self, number: int) -> None:
        """Send the front a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(timeout)
        self._thread.join(timeout)
        return status

    def close(self) -> None:
        """Kill what is left of the worker's session."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _collect(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line)
            if match := re.search(r"listens on (http://[^\s,]+)", line):
                self.url = match[1]
                self._listening.set()
        self._listening.set()


StartWorker = Callable[..., tuple[WorkerProcess, Client]]


@pytest.fixture
def start_worker(io_loop: IOLoop, tmp_path: Path, faults: Faults) -> Iterator[StartWorker]:
    """Start a worker process: `start_worker(drain_timeout=5)` -> it, and a client of it."""
    started: list[tuple[WorkerProcess, Client]] = []

    def start(**changes: Any) -> tuple[WorkerProcess, Client]:
        settings = {
            "port": 0,
            "state_dir": tmp_path / f"state{len(started)}",
            "fake_pipeline": faults.folder,
            "model": "fake",
            **changes,
        }
        arguments = [part for name, value in settings.items() for part in (flag_name(name), str(value))]
        worker = WorkerProcess(arguments)
        client = Client(worker.url or "http://127.0.0.1:9")
        started.append((worker, client))
        return worker, client

    yield start
    for worker, client in started:
        io_loop.run_sync(client.http.aclose)
        worker.close()
