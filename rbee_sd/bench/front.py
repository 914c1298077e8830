"""`bench front`: what the front process needs and how soon it answers, on the real engine with the model demo."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace

import click

from rbee_sd.bench import latency, memory, start, worker
from rbee_sd.bench.measure import Figure
from rbee_sd.bench.progress import progress
from rbee_sd.bench.report import json_option, quick_option, report

DEADLINE = 170.0
"""Seconds the whole of it may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `health_s` and `settle_s` are seconds."""

    starts: int = 9
    jobs: int = 20
    posts: int = 500
    followed: int = 25
    concurrent: int = 100
    health_s: float = 6.0
    streams: int = 1000
    settle_s: float = 12.0


QUICK = Plan(starts=3, posts=150, followed=8, health_s=2.0, settle_s=2.0)


@click.command("front", short_help="Start, memory and latency of the front process.")
@click.option("--streams", type=click.IntRange(100, 50_000), help="Idle streams to open.  [default: 1000]")
@quick_option
@json_option
def command(streams: int | None, quick: bool, target: str | None) -> None:
    """Measure the front process of a worker on this machine. Takes a minute, three at most.

    Progress goes to standard error; a table and then JSON to standard output. A missed aim is no failure.
    """
    plan = QUICK if quick else Plan()
    if streams is not None:
        plan = replace(plan, streams=streams)
    report("front", asdict(plan), lambda: measure(plan), target)


async def measure(plan: Plan) -> list[Figure]:
    """Everything, in order: what is timed to the millisecond never shares the machine with a worker that starts."""
    async with asyncio.timeout(DEADLINE):
        figures = await start.measure(plan.starts)
        async with worker.started() as benched:
            with progress("starting a worker and waiting for its model", 1) as tick:
                port = await benched.port()
                await benched.ready(port)
                tick()
            figures += await memory.measure_front(benched, port, plan.jobs)
            figures += await latency.measure_posts(port, plan.posts)
            figures += await latency.measure_events(port, plan.followed)
            figures += await latency.measure_health(benched, port, plan.concurrent, plan.health_s)
        return figures + await memory.measure_streams(plan.streams, plan.settle_s)
