"""More connections than the process may have open files: a worker of its own, because the limit is the process's."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Faults
from tests.http.wire import request

LIMIT = 160
"""Open files that the worker may have."""


@dataclass
class Limited:
    """A worker with few files, and where its log goes."""

    port: int
    log: Path

    def connect(self) -> socket.socket:
        """A connection, at least as far as the kernel is concerned."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=2)


def healthy(connection: socket.socket) -> bool:
    """Whether `/health` is answered on a connection."""
    try:
        connection.sendall(request("GET", "/health"))
        return connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
    except OSError:
        return False


@pytest.fixture
def limited(tmp_path: Path, faults: Faults) -> Iterator[Limited]:
    """Start a worker that may have few files."""
    log = tmp_path / "log"
    arguments = {"port": 0, "state-dir": tmp_path / "state", "fake-pipeline": faults.folder, "model": "fake"}
    command = [sys.executable, "-m", "rbee_sd", "serve", *(f"--{name}={value}" for name, value in arguments.items())]
    with (
        log.open("w") as file,
        subprocess.Popen(["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *command], stderr=file) as process,
    ):
        deadline = time.monotonic() + 15
        while (match := re.search(r"listens on http://127\.0\.0\.1:([0-9]+)", log.read_text())) is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield Limited(int(match[1]), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_running_out_of_files_neither_floods_the_log_nor_lasts(limited: Limited) -> None:
    with closing(limited.connect()) as first, ExitStack() as crowd:
        assert healthy(first)
        before = limited.log.stat().st_size
        for _ in range(2 * LIMIT):
            try:
                crowd.enter_context(limited.connect())
            except OSError:
                # Refused, or no room in the kernel's queue either: as good.
                break
        # Time enough to write thousands of tracebacks.
        time.sleep(0.5)
        assert limited.log.stat().st_size - before < 20_000
        # Who is in is served meanwhile, and so is who comes when the others have gone.
        assert healthy(first)
        crowd.close()
        deadline = time.monotonic() + 2
        while not comes_in(limited):
            assert time.monotonic() < deadline


def comes_in(limited: Limited) -> bool:
    """Whether a new client is served."""
    with limited.connect() as connection:
        return healthy(connection)
