"""The worker under the chaos: started, killed and started again, on one port and one state folder."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil

from rbee_sd.bench.worker import launch

START_DEADLINE = 60.0
STOP_DEADLINE = 45.0
LOOK_AGAIN = 0.05
SETTINGS = {
    "drain_timeout": "1",
    "step_timeout": "1.5",
    "cancel_timeout": "1",
    "disconnect_grace": "0.5",
    "heartbeat": "1",
    "queue_size": "200",
}
"""Short times, so that much happens in a minute."""


class ChaosWorker:
    """`rbee-sd serve` with the fake pipeline, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.faults = folder / "faults"
        self.log = folder / "log"
        self.faults.mkdir(parents=True)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self.statuses: list[int] = []
        self.largest: dict[str, int] = {"front": 0, "engine": 0}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it listens. Raises `TimeoutError`."""
        settings = SETTINGS | {"fake_pipeline": str(self.faults), "model": "fake", "state_dir": str(self.state)}
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        with self.log.open("ab") as output:
            self._process = await launch(output, "--port", str(self.port), *flags)
        self.starts += 1
        async with asyncio.timeout(START_DEADLINE), httpx2.AsyncClient(base_url=self.url, trust_env=False) as http:
            while True:
                with suppress(httpx2.TransportError):
                    if (await http.get("/health")).status_code == 200:
                        return
                if self._process.returncode is not None:
                    raise RuntimeError(f"the worker ended with status {self._process.returncode} as it started")
                await asyncio.sleep(LOOK_AGAIN)

    @property
    def front(self) -> psutil.Process | None:
        """The front, while it lives."""
        if self._process is None or self._process.returncode is not None:
            return None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid)
        return None

    def engine(self) -> psutil.Process | None:
        """The engine, while there is one."""
        front = self.front
        if front is not None:
            with suppress(psutil.NoSuchProcess):
                for child in front.children():
                    if "spawn_main" in " ".join(child.cmdline()):
                        return child
        return None

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the front, its engine, and what multiprocessing started for them."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def end(self, number: signal.Signals) -> int | None:
        """Have the front end by a signal; its exit status. What it leaves behind is counted as an error by `left`."""
        process = self._process
        if process is None:
            return None
        with suppress(ProcessLookupError):
            process.send_signal(number)
        async with asyncio.timeout(STOP_DEADLINE):
            status = await process.wait()
        self.statuses.append(status)
        return status

    async def left(self, seconds: float) -> list[int]:
        """Processes of the group that are still there after so long."""
        if self._process is None:
            return []
        group, loop = self._process.pid, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (found := _members(group)) and loop.time() < deadline:
            await asyncio.sleep(LOOK_AGAIN)
        return found

    def weigh(self) -> None:
        """Note how large the processes are."""
        for name, process in (("front", self.front), ("engine", self.engine())):
            if process is not None:
                with suppress(psutil.NoSuchProcess):
                    self.largest[name] = max(self.largest[name], process.memory_info().rss)


def _members(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
