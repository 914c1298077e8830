"""The worker under measurement: the real command in a process group of its own, in a temporary folder."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from rbee_sd.bench.wire import HOST, BenchError, Connection, request

LISTENS = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")
LISTEN_DEADLINE = 30.0
READY_DEADLINE = 90.0
LOOK_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class BenchedWorker:
    """A process that was started as a worker. `began` is the monotonic clock right before that."""

    process: asyncio.subprocess.Process
    log: Path
    began: float

    @property
    def front(self) -> psutil.Process:
        """The front process, to look at its memory."""
        return psutil.Process(self.process.pid)

    async def port(self) -> int:
        """The port, once it listens. Raises `BenchError`."""
        async with asyncio.timeout(LISTEN_DEADLINE):
            while not (found := LISTENS.search(_text(self.log))):
                self.check()
                await asyncio.sleep(LOOK_AGAIN)
        return int(found[1])

    async def ready(self, port: int) -> None:
        """Wait until the engine takes jobs. Raises `BenchError`."""
        connection = await Connection.open(port)
        asked = request("GET", "/ready")
        try:
            async with asyncio.timeout(READY_DEADLINE):
                while (await connection.exchange(asked))[0] != 200:
                    self.check()
                    await asyncio.sleep(LOOK_AGAIN)
        finally:
            connection.close()

    def check(self) -> None:
        """Raise `BenchError` if it has ended."""
        if self.process.returncode is not None:
            tail = "\n".join(_text(self.log).splitlines()[-15:])
            raise BenchError(f"the worker ended with status {self.process.returncode}:\n{tail}")


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def launch(log: BinaryIO, *flags: str) -> asyncio.subprocess.Process:
    """Start `rbee-sd serve` with these flags alone, in a process group of its own."""
    # The settings of whoever runs this must not change what the worker does.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_SD_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "rbee_sd", "serve", *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=log,
        env=environ,
        start_new_session=True,
    )


@asynccontextmanager
async def started(*flags: str, port: int = 0) -> AsyncIterator[BenchedWorker]:
    """Start a worker with defaults and these flags; on leaving, it, its engine and its folder are gone."""
    with tempfile.TemporaryDirectory(prefix="rbee-sd-bench-") as folder:
        log = Path(folder) / "log"
        state = str(Path(folder) / "state")
        with log.open("xb") as output:
            began = time.monotonic()
            process = await launch(output, "--port", str(port), "--state-dir", state, *flags)
        try:
            yield BenchedWorker(process, log, began)
        finally:
            # The whole group: the front, its engine, and what multiprocessing started for them.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
