"""The worker under the chaos: started, killed and started again, on one port and one state folder."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil

from rbee_sd.bench.worker import free_port, launch
from rbee_sd.chaos.measures import Measures

START_DEADLINE = 60.0
STOP_DEADLINE = 45.0
LOOK_AGAIN = 0.05
WEIGH_EVERY = 20
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
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self.measures = Measures()
        self._moment = 0
        """Changes whenever the front itself is started, stopped or killed."""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it listens. Raises `TimeoutError`."""
        settings = SETTINGS | {"fake_pipeline": str(self.faults), "model": "fake", "state_dir": str(self.state)}
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        with self.log.open("ab") as output:
            self._process = await launch(output, "--port", str(self.port), *flags)
        self.starts += 1
        self._disturbed()
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
        self._disturbed()
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def end(self, number: signal.Signals) -> int | None:
        """Have the front end by a signal; its exit status. What it leaves behind is counted as an error by `left`."""
        process = self._process
        if process is None:
            return None
        self._disturbed()
        with suppress(ProcessLookupError):
            process.send_signal(number)
        async with asyncio.timeout(STOP_DEADLINE):
            return await process.wait()

    async def left(self, seconds: float) -> list[int]:
        """Processes of the group that are still there after so long."""
        if self._process is None:
            return []
        group, loop = self._process.pid, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (found := _members(group)) and loop.time() < deadline:
            await asyncio.sleep(LOOK_AGAIN)
        return found

    async def probe(self) -> None:
        """Ask for `/health` and weigh the processes, again and again, until cancelled."""
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as http:
            for number in itertools.count():
                moment, began = self._moment, time.monotonic()
                with suppress(httpx2.TransportError):
                    answer = await http.get("/health")
                    if moment == self._moment and answer.status_code == 200:
                        self.measures.health.append(time.monotonic() - began)
                if number % WEIGH_EVERY == 0:
                    self._weigh()
                await asyncio.sleep(LOOK_AGAIN)

    def footprint(self) -> tuple[int, int]:
        """Open files and threads of the front."""
        front = self.front
        return (0, 0) if front is None else (front.num_fds(), front.num_threads())

    def _disturbed(self) -> None:
        self._moment += 1
        self.measures.disturbed()

    def _weigh(self) -> None:
        front, engine = self.front, self.engine()
        with suppress(psutil.NoSuchProcess):
            if front is not None:
                self.measures.front_size(self.starts, front.memory_info().rss)
            if engine is not None:
                self.measures.engine_size = max(self.measures.engine_size, engine.memory_info().rss)


def _members(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
