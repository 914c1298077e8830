"""How soon the front answers, and how soon an engine's step is with a listener, while a job runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rbee_sd.bench.cpu import CpuTimes, shares
from rbee_sd.bench.measure import Figure, latency
from rbee_sd.bench.progress import Tick, progress
from rbee_sd.bench.wire import BenchError, Connection, Listener, request
from rbee_sd.bench.worker import BenchedWorker

POST_AIM = 25.0
EVENT_AIM = 20.0
HEALTH_AIM = 50.0
"""Milliseconds, all three, of the 99th percentile."""
POST_PAUSE = 0.005
"""Seconds between two POSTs, so that they fall anywhere within a step."""
STEPS = 20
TICKS = 20
LONG = {"prompt": "a red circle on a blue background", "steps": 150, "seed": 1}
JOB_DEADLINE = 120.0


class Busy:
    """Keeps the engine at work: one long job after the other, each with a listener. Counts the steps seen."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.steps = 0
        self.working = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; the job in hand is cancelled then, too. Raises `BenchError` when a job fails."""
        while True:
            job_id = await self._call("POST", "/v1/jobs", LONG)
            try:
                await self._follow(job_id)
            finally:
                await self._call("DELETE", f"/v1/jobs/{job_id}")

    async def _follow(self, job_id: str) -> None:
        async for event in (await Listener.open(self._port, job_id)).events():
            if event.name == "progress":
                self.steps += 1
                self.working.set()
            elif event.name == "error":
                raise BenchError(f"a job failed: {event.data['message']}")

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        connection = await Connection.open(self._port)
        answer = await connection.call(method, path, body)
        connection.close()
        return str(answer["job_id"])


@asynccontextmanager
async def generating(port: int) -> AsyncIterator[None]:
    """A job runs as long as this is open. Raises `BenchError` if the engine did no step meanwhile."""
    busy = Busy(port)
    task = asyncio.create_task(busy.run())
    working = asyncio.create_task(busy.working.wait())
    try:
        await asyncio.wait([task, working], timeout=JOB_DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        before = busy.steps
        yield
        if task.done():
            task.result()
        if busy.steps == before:
            raise BenchError("the engine did not work while the front was measured")
    finally:
        task.cancel()
        working.cancel()
        await asyncio.gather(task, working, return_exceptions=True)


async def measure_posts(port: int, posts: int) -> list[Figure]:
    """Time of `POST /v1/jobs` on one connection; each job is taken back, untimed, so that the queue stays short."""
    sent = request("POST", "/v1/jobs", {"prompt": "a red circle", "steps": STEPS})
    seconds = []
    async with generating(port):
        timed, other = await Connection.open(port), await Connection.open(port)
        with progress(f"submitting {posts} jobs while one runs", posts) as tick:
            for _ in range(posts):
                began = time.perf_counter()
                status, answer = await timed.exchange(sent)
                seconds.append(time.perf_counter() - began)
                if status != 200:
                    raise BenchError(f"a job was answered {status}")
                await other.call("DELETE", f"/v1/jobs/{_job_id(answer)}")
                await asyncio.sleep(POST_PAUSE)
                tick()
        timed.close()
        other.close()
    return latency("post", "POST /v1/jobs while a job runs", seconds, POST_AIM)


async def measure_events(port: int, jobs: int) -> list[Figure]:
    """Age of each progress event, from the engine's clock at the step to this client's, over `jobs` jobs."""
    connection = await Connection.open(port)
    with progress(f"following the steps of {jobs} jobs", jobs) as tick:
        followed = []
        for seed in range(jobs):
            job_id = await connection.submit(prompt="a red circle", steps=STEPS, seed=seed)
            # There before the first step, so that no event is old because it was replayed.
            followed.append(_delays(await Listener.open(port, job_id), tick))
        async with asyncio.timeout(JOB_DEADLINE):
            delays = [delay for part in await asyncio.gather(*followed) for delay in part]
    connection.close()
    if len(delays) != jobs * STEPS:
        raise BenchError(f"{jobs} jobs of {STEPS} steps sent {len(delays)} progress events")
    return latency("event", "engine step to client event", delays, EVENT_AIM)


async def measure_health(benched: BenchedWorker, port: int, concurrent: int, seconds: float) -> list[Figure]:
    """Time of `/health` on `concurrent` connections that each ask again as soon as they are answered."""
    samples: list[float] = []
    async with generating(port):
        connections = [await Connection.open(port) for _ in range(concurrent)]
        with progress(f"asking for /health, {concurrent} at once, for {seconds:g} s while a job runs", TICKS) as tick:
            before = CpuTimes.now(benched)
            ticking = asyncio.create_task(_tick(tick, seconds))
            end = time.perf_counter() + seconds
            await asyncio.gather(*(_ask(connection, end, samples) for connection in connections))
            after = CpuTimes.now(benched)
            await ticking
        for connection in connections:
            connection.close()
    cost = (after.front - before.front) / len(samples)
    return [
        *latency("health", f"/health, {concurrent} at once while a job runs", samples, HEALTH_AIM),
        Figure("health_per_s", "/health answers a second then", len(samples) / seconds, "/s"),
        Figure("health_cpu_us", "/health, CPU of the front for one answer", 1e6 * cost, "us"),
        *shares("health", "CPU then", before, after),
    ]


async def _delays(listener: Listener, tick: Tick) -> list[float]:
    delays = [event.at - event.data["at"] async for event in listener.events() if event.name == "progress"]
    tick()
    return delays


async def _ask(connection: Connection, end: float, samples: list[float]) -> None:
    sent = request("GET", "/health")
    while (began := time.perf_counter()) < end:
        status, _ = await connection.exchange(sent)
        samples.append(time.perf_counter() - began)
        if status != 200:
            raise BenchError(f"/health was answered {status}")


async def _tick(tick: Tick, seconds: float) -> None:
    for _ in range(TICKS):
        await asyncio.sleep(seconds / TICKS)
        tick()


def _job_id(answer: bytes) -> str:
    """The id in the answer to a POST, without decoding the rest."""
    return answer.partition(b'"job_id":"')[2].partition(b'"')[0].decode()
