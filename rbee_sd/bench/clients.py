"""Clients of a worker: in closed loops, as newcomers among others that run, and as those who change their mind."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rbee_sd.bench.measure import Figure, latency, steps
from rbee_sd.bench.progress import progress
from rbee_sd.bench.ways import CANCEL_AIM, NEWCOMER_AIM, Round
from rbee_sd.bench.wire import BenchError, Connection, Listener

LONG = 150
"""Steps of jobs that are company for others."""
SHORT = 2
"""Steps of a newcomer."""
ROWS = 2
"""Rows of a job in a forward: the demo model is guided."""
SCHEDULER = "euler"
"""One forward for each step."""
DEADLINE = 120.0
"""Seconds any job may take."""
POLL = 0.005


@dataclass(slots=True)
class Job:
    """A job and what its stream has said so far: the engine's clock at each step, and when the end was read."""

    id: str
    listener: Listener
    steps: list[float] = field(default_factory=list)
    ended: str = ""
    ended_at: float = 0.0
    stepping: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Read the stream to its end. Raises `BenchError` for a job that failed."""
        async with asyncio.timeout(DEADLINE):
            async for event in self.listener.events():
                if event.name == "progress":
                    self.steps.append(event.data["at"])
                    self.stepping.set()
                elif event.name == "error":
                    raise BenchError(f"a job failed: {event.data['message']}")
                self.ended, self.ended_at = event.name, event.at


class Load:
    """Puts jobs on the worker at this port. No two have the same prompt."""

    def __init__(self, port: int, steps: int) -> None:
        self._port = port
        self._steps = steps
        self._numbers = count(1)
        self._random = random.Random(1)  # noqa: S311  (nothing secret is made of it)

    async def rounds(self, clients: int, jobs: int, rounds: int) -> list[Round]:
        """Each client has its jobs done one after the other; time of each round, and what the engine says of it."""
        # The first round is for all that is done once.
        await asyncio.gather(*(self._client(1) for _ in range(clients)))
        found = []
        with progress(f"{rounds} rounds of {clients} clients with {jobs} jobs each", rounds) as tick:
            for _ in range(rounds):
                before = await self._engine()
                began = time.perf_counter()
                waits = await asyncio.gather(*(self._client(jobs) for _ in range(clients)))
                took = time.perf_counter() - began
                after = await self._engine()
                pulse = {name: after[name] - before[name] for name in ("forwards", "rows", "worked", "elapsed")}
                found.append(Round(took, clients * jobs, pulse, [each for part in waits for each in part]))
                tick()
        return found

    async def places(self, wanted: int) -> int:
        """How many of so many jobs the engine takes at once."""
        connection = await Connection.open(self._port)
        jobs = [await self._begin(LONG) for _ in range(wanted)]
        tasks = [asyncio.create_task(job.follow()) for job in jobs]
        async with asyncio.timeout(DEADLINE):
            await jobs[0].stepping.wait()
        taken = int((await connection.status())["engine"]["jobs"])
        for job in jobs:
            await connection.call("DELETE", f"/v1/jobs/{job.id}")
        await asyncio.gather(*tasks)
        connection.close()
        return taken

    async def newcomers(self, clients: int, times: int) -> list[Figure]:
        """A job comes while all other places are taken by jobs that run: time and steps until its first progress.

        Steps count from when the front hands the job to the engine: until then it was being accepted, and put on disk.
        """
        seconds, forwards, since_sent, step_times = [], [], [], []
        connection = await Connection.open(self._port)
        async with self._company(clients - 1) as others:
            with progress(f"a job joins {clients - 1} others, {times} times", times) as tick:
                for _ in range(times):
                    await _all_stepping(others)
                    await asyncio.sleep(self._random.uniform(0, 0.1))
                    company = list(others)
                    sent = time.time()
                    job = await self._begin(SHORT)
                    following = asyncio.create_task(job.follow())
                    await job.stepping.wait()
                    seen = time.time()
                    await following
                    handed = float((await connection.call("GET", f"/v1/jobs/{job.id}"))["started_at"])
                    first, second = job.steps
                    seconds.append(seen - sent)
                    # Those who share its first step say so shortly before it or after.
                    shared = first + (second - first) / 2
                    forwards.append(statistics.median(_between(other.steps, handed, shared) for other in company))
                    since_sent.append(statistics.median(_between(other.steps, sent, shared) for other in company))
                    step_times.append(second - first)
                    tick()
        connection.close()
        text = f"first progress of a job that joins {clients - 1}"
        return [
            *latency("newcomer", f"from POST to the {text}", seconds),
            *steps("newcomer_steps", f"steps of the others up to the {text}", forwards, NEWCOMER_AIM),
            *steps("newcomer_post_steps", "the same, from the moment the POST was sent", since_sent),
            Figure("step_ms", f"one step of {clients} jobs", 1000 * statistics.median(step_times), "ms"),
        ]

    async def cancels(self, clients: int, times: int) -> list[Figure]:
        """One of the jobs that run is cancelled; the engine's rows tell how many forwards it had a part in.

        Whatever rows the others did not have were its own: the engine is asked before all begin and when all are gone.
        Forwards count from when the front tells the engine, which it does as soon as it has read the request.
        """
        seconds, forwards, since_sent = [], [], []
        connection = await Connection.open(self._port)
        with progress(f"cancelling one of {clients} jobs, {times} times", times) as tick:
            for _ in range(times):
                before = (await self._engine())["rows"]
                jobs = [await self._begin(self._steps) for _ in range(clients - 1)]
                leaver = await self._begin(LONG)
                tasks = [asyncio.create_task(job.follow()) for job in (*jobs, leaver)]
                await leaver.stepping.wait()
                await asyncio.sleep(self._random.uniform(0, 0.1))
                sent = time.time()
                await connection.call("DELETE", f"/v1/jobs/{leaver.id}")
                await asyncio.gather(*tasks)
                own = (await self._engine())["rows"] - before - ROWS * self._steps * len(jobs)
                if leaver.ended != "cancelled" or own % ROWS:
                    raise BenchError(f"a cancelled job ended with {leaver.ended} after {own} rows")
                seconds.append(leaver.ended_at - sent)
                told = float((await connection.call("GET", f"/v1/jobs/{leaver.id}"))["finished_at"])
                forwards.append(own // ROWS - sum(at <= told for at in leaver.steps))
                since_sent.append(own // ROWS - sum(at <= sent for at in leaver.steps))
                tick()
        connection.close()
        return [
            *latency("cancel", "from DELETE to the event `cancelled`", seconds),
            *steps("cancel_steps", "forwards that a job is in after the engine was told", forwards, CANCEL_AIM),
            *steps("cancel_delete_steps", "the same, from the moment the DELETE was sent", since_sent),
        ]

    async def _client(self, jobs: int) -> list[float]:
        """Seconds of each job, from POST to the end of its stream."""
        seconds = []
        connection = await Connection.open(self._port)
        for _ in range(jobs):
            began = time.perf_counter()
            job = await self._begin(self._steps, connection)
            await job.follow()
            if job.ended != "complete":
                raise BenchError(f"a job ended with {job.ended}")
            seconds.append(time.perf_counter() - began)
        connection.close()
        return seconds

    async def _begin(self, steps: int, connection: Connection | None = None) -> Job:
        used = connection or await Connection.open(self._port)
        number = next(self._numbers)
        job_id = await used.submit(
            prompt=f"a red circle, number {number}", seed=number, steps=steps, scheduler=SCHEDULER
        )
        if connection is None:
            used.close()
        return Job(job_id, await Listener.open(self._port, job_id))

    async def _engine(self) -> dict[str, Any]:
        """What the engine has done, once it has nothing to do."""
        connection = await Connection.open(self._port)
        async with asyncio.timeout(DEADLINE):
            while (engine := (await connection.status())["engine"])["jobs"]:
                await asyncio.sleep(POLL)
        connection.close()
        return dict(engine)

    @asynccontextmanager
    async def _company(self, jobs: int) -> AsyncIterator[list[Job]]:
        """As many jobs run as long as this is open; each that ends is followed by another."""
        others = [await self._begin(LONG) for _ in range(jobs)]
        tasks = [asyncio.create_task(self._again_and_again(others, place)) for place in range(jobs)]
        try:
            yield others
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            connection = await Connection.open(self._port)
            for job in others:
                await connection.call("DELETE", f"/v1/jobs/{job.id}")
            connection.close()

    async def _again_and_again(self, others: list[Job], place: int) -> None:
        while True:
            await others[place].follow()
            others[place] = await self._begin(LONG)


async def _all_stepping(jobs: list[Job]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not all(0 < len(job.steps) < LONG for job in jobs):
            await asyncio.sleep(POLL)


def _between(times: list[float], first: float, last: float) -> int:
    """How many are after the first moment and not after the last."""
    return sum(first < at <= last for at in times)
