"""After anything hostile: open files, threads, tasks and processes are back where they were."""

from __future__ import annotations

import asyncio
import threading

import psutil

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import works
from tests.http.wire import request, submission


def held() -> tuple[int, int, int]:
    """Open files, threads and child processes of this process."""
    process = psutil.Process()
    return process.num_fds(), threading.active_count(), len(process.children())


async def test_hostile_clients_leave_nothing_open(server: Server, client: Client, dial: Dial, faults: Faults) -> None:
    await client.ready()
    # Once for what is made on first use.
    await works(client)
    before, tasks = held(), len(asyncio.all_tasks())
    faults.on("slow", "0.01")
    job_id = await client.submit(steps=100, on_disconnect="finish")
    hostile = (
        request("GET", f"/v1/jobs/{job_id}/stream"),
        request("GET", "/v1/events"),
        request("GET", f"/v1/jobs/{job_id}/stream") + b"stray",
        submission(b'{"prompt"'),
        submission(b"", "Content-Length: 50") + b"{",
        request("POST", "/v1/jobs", "Transfer-Encoding: chunked", "Content-Type: application/json") + b"zz\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /health",
        request("GET", "/health", "Host: evil.example"),
        b"",
    )
    for round_number in range(5):
        wires = [await dial(server) for _ in hostile]
        for wire, data in zip(wires, hostile, strict=True):
            await wire.send(data)
        await client.http.get("/health")
        for place, wire in enumerate(wires):
            (wire.close, wire.reset)[(place + round_number) % 2]()
    await client.http.delete(f"/v1/jobs/{job_id}")
    faults.off("slow")
    await eventually(lambda: server.watcher.total == 0)
    await works(client)
    await eventually(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), timeout=5)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, timeout=5)
