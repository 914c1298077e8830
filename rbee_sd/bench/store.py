"""`bench store`: what a worker with many ended jobs behind it needs to start and to answer."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from rbee_sd.bench import start, worker
from rbee_sd.bench.measure import Figure, latency
from rbee_sd.bench.progress import progress
from rbee_sd.bench.report import json_option, quick_option, report
from rbee_sd.bench.wire import BenchError, Connection, Listener, request
from rbee_sd.jobs.store import DATABASE

START_AIM = 2.0
"""Seconds."""
ACCEPT_AIM = 25.0
"""Milliseconds of the 99th percentile."""
AT_ONCE = 1000
"""Jobs copied between two looks at the clock."""
DEADLINE = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    jobs: int = 100_000
    starts: int = 5
    calls: int = 300


@click.command("store", short_help="What many ended jobs behind it cost a worker.")
@click.option("--jobs", type=click.IntRange(AT_ONCE), help="Ended jobs in the store.  [default: 100000]")
@quick_option
@json_option
def command(jobs: int | None, quick: bool, target: str | None) -> None:
    """Measure a worker that has ended many jobs: how soon it starts, lists them, tells of one, and accepts another."""
    plan = Plan(jobs=2000, starts=2, calls=50) if quick else Plan()
    if jobs is not None:
        plan = replace(plan, jobs=jobs)
    report("store", asdict(plan), lambda: measure(plan), target)


async def measure(plan: Plan) -> list[Figure]:
    """Do one job for real, keep it as often as `plan` says, and start a worker on that."""
    with tempfile.TemporaryDirectory(prefix="rbee-sd-bench-") as folder:
        faults, state = Path(folder) / "faults", Path(folder) / "state"
        faults.mkdir()
        flags = [
            *("--fake-pipeline", str(faults), "--model", "fake", "--state-dir", str(state)),
            *("--job-history", str(2 * plan.jobs), "--job-bytes", str(2**40), "--queue-size", str(plan.calls)),
        ]
        async with asyncio.timeout(DEADLINE):
            await _one_job(flags)
            ids = await _copied(state / DATABASE, plan.jobs)
            figures = [
                Figure("jobs", "ended jobs in the store", len(ids), "jobs"),
                Figure("database_mb", "size of the database", (state / DATABASE).stat().st_size / 1e6, "MB"),
            ]
            figures += await _starts(flags, plan)
            return figures + await _answers(flags, plan, ids)


async def _one_job(flags: Sequence[str]) -> None:
    async with worker.started(*flags) as benched:
        port = await benched.port()
        connection = await Connection.open(port)
        listener = await Listener.open(port, await connection.submit(prompt="a red circle"))
        async for _ in listener.events():
            pass
        connection.close()


async def _copied(database: Path, jobs: int) -> list[str]:
    """The ids of all jobs, once the one that is there was copied often enough, under ids of their own."""
    with closing(sqlite3.connect(database)) as connection, progress(f"keeping {jobs} jobs", jobs // AT_ONCE) as tick:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)") if row[1] not in ("number", "id")]
        names = ", ".join(columns)
        copy = f"INSERT INTO jobs (id, {names}) SELECT ?, {names} FROM jobs LIMIT 1"  # noqa: S608
        for _ in range(jobs // AT_ONCE):
            connection.executemany(copy, [(f"job_{uuid.uuid4()}",) for _ in range(AT_ONCE)])
            connection.commit()
            tick()
            await asyncio.sleep(0)
        # The first alone has its images on disk.
        connection.execute("UPDATE jobs SET bytes = 0 WHERE number > 1")
        connection.commit()
        return [str(row[0]) for row in connection.execute("SELECT id FROM jobs WHERE number > 1")]


async def _starts(flags: Sequence[str], plan: Plan) -> list[Figure]:
    seconds = []
    with progress(f"starting a worker on them {plan.starts} times", plan.starts) as tick:
        for _ in range(plan.starts):
            took, _ = await start.first_answer(*flags)
            seconds.append(took)
            tick()
    return [Figure("start_worst_s", f"start to first /health, worst of {plan.starts}", max(seconds), "s", START_AIM)]


async def _answers(flags: Sequence[str], plan: Plan, ids: Sequence[str]) -> list[Figure]:
    chance = random.Random(0)  # noqa: S311  (which jobs are looked at is no secret)
    async with worker.started(*flags) as benched:
        port = await benched.port()
        await benched.ready(port)
        connection = await Connection.open(port)

        async def timed(name: str, text: str, make: Callable[[], bytes], aim: float | None = None) -> list[Figure]:
            seconds = []
            with progress(text, plan.calls) as tick:
                for _ in range(plan.calls):
                    sent = make()
                    began = time.perf_counter()
                    status, _ = await connection.exchange(sent)
                    seconds.append(time.perf_counter() - began)
                    if status != 200:
                        raise BenchError(f"{text} was answered {status}")
                    tick()
            return latency(name, text, seconds, aim)

        post = request("POST", "/v1/jobs", {"prompt": "a red circle", "steps": 1})
        figures = [
            *await timed(
                "page", "a page of 50 jobs", lambda: request("GET", f"/v1/jobs?limit=50&before={chance.choice(ids)}")
            ),
            *await timed("job", "one job", lambda: request("GET", f"/v1/jobs/{chance.choice(ids)}")),
            *await timed("accept", "POST /v1/jobs, one after the other", lambda: post, ACCEPT_AIM),
        ]
        connection.close()
    return figures
