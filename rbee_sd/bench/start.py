"""Time from starting the process to its first answer on `/health`."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import time

from rbee_sd.bench import worker
from rbee_sd.bench.measure import Figure
from rbee_sd.bench.progress import progress
from rbee_sd.bench.wire import HOST, Connection, request
from rbee_sd.bench.worker import LISTEN_DEADLINE, BenchedWorker, free_port

AIM = 0.5
POLL = 0.002
"""Seconds between two attempts to connect; the figure is that much too large at most."""


async def measure(starts: int) -> list[Figure]:
    """Start a worker `starts` times, one after the other."""
    seconds: list[float] = []
    loading = 0
    with progress(f"starting a worker {starts} times, up to its first /health", starts) as tick:
        for _ in range(starts):
            took, still_loading = await first_answer()
            seconds.append(took)
            loading += still_loading
            tick()
    return [
        Figure("start_median_s", f"start to first /health, median of {starts}", statistics.median(seconds), "s", AIM),
        Figure("start_worst_s", "start to first /health, worst", max(seconds), "s", AIM),
        Figure("start_loading", "starts with the model still loading then", loading, f"of {starts}"),
    ]


async def first_answer(*flags: str) -> tuple[float, bool]:
    """Seconds to the first 200 of `/health`, and whether the model was still loading then."""
    port = free_port()
    async with worker.started(*flags, port=port) as benched, asyncio.timeout(LISTEN_DEADLINE):
        connection = await _connected(benched, port)
        status, _ = await connection.exchange(request("GET", "/health"))
        took = time.monotonic() - benched.began
        _, answer = await connection.exchange(request("GET", "/ready"))
        connection.close()
        return took if status == 200 else float("inf"), json.loads(answer).get("reason") == "model loading"


async def _connected(benched: BenchedWorker, port: int) -> Connection:
    """Knock until somebody opens. Sockets without streams around them, so that knocking takes little of the CPU."""
    while True:
        knock = socket.socket()
        knock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(knock, (HOST, port))
        except OSError:
            knock.close()
            benched.check()
            await asyncio.sleep(POLL)
        else:
            return Connection(*await asyncio.open_connection(sock=knock))
