"""`bench serve`: what is left of the engine's throughput for clients of a real worker, and how soon it reacts."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace

import click

from rbee_sd.bench import child, clients, engine, memory, worker
from rbee_sd.bench.measure import Figure
from rbee_sd.bench.progress import progress
from rbee_sd.bench.report import json_option, quick_option, report
from rbee_sd.bench.ways import served

DEADLINE = 900.0
"""Seconds the whole of it may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. In each round each of `clients` has `jobs` images made, one after the other."""

    threads: int = 0
    max_rows: int = 0
    steps: int = 20
    clients: int = 8
    jobs: int = 3
    rounds: int = 8
    sequential: int = 6
    newcomers: int = 100
    cancels: int = 40


PLAN = Plan()
QUICK = Plan(rounds=2, sequential=2, newcomers=10, cancels=5)


@click.command("serve", short_help="Eight clients of a real worker beside the plain pipe() of diffusers.")
@click.option("--threads", default=PLAN.threads, show_default=True, help="CPU threads; 0: as the worker would.")
@click.option("--max-rows", default=PLAN.max_rows, show_default=True, help="Rows of a forward at most; 0: measured.")
@quick_option
@json_option
def command(quick: bool, target: str | None, threads: int, max_rows: int) -> None:
    """Load a worker with the model demo from eight clients, and compare with pipe() in a plain loop before and after.

    Takes three minutes. Progress goes to standard error; a table and then JSON to standard output. A missed aim is no
    failure.
    """
    plan = replace(QUICK if quick else PLAN, threads=threads, max_rows=max_rows)
    report("serve", asdict(plan), lambda: measure(plan), target)


async def measure(plan: Plan) -> list[Figure]:
    """The plain loop, the worker, and the plain loop again: the machine may have changed meanwhile."""
    async with asyncio.timeout(DEADLINE):
        before = await _sequential(plan)
        flags = ("--threads", str(plan.threads), "--max-rows", str(plan.max_rows))
        async with worker.started(*flags) as benched:
            with progress("starting a worker and waiting for its model", 1) as tick:
                port = await benched.port()
                await benched.ready(port)
                tick()
            load = clients.Load(port, plan.steps)
            rounds = await load.rounds(plan.clients, plan.jobs, plan.rounds)
            places = await load.places(plan.clients)
            figures = [Figure("places", f"of {plan.clients} jobs, the engine takes at once", places, "jobs")]
            if places > 1:
                figures += await load.newcomers(places, plan.newcomers)
                figures += await load.cancels(places, plan.cancels)
            peaks = await memory.measure_peaks(benched, port)
        after = await _sequential(plan)
    return served(before + after, engine.PLAN.images, rounds) + figures + peaks


async def _sequential(plan: Plan) -> list[float]:
    """Seconds of each round of the plain loop, in a process with the same threads."""
    asked = replace(
        engine.PLAN,
        threads=plan.threads,
        steps=plan.steps,
        ways=("sequential",),
        rounds=plan.sequential,
        rows=(),
        variants=(),
        moments=0,
        dtypes=(),
        # Nothing is shared here, so nothing need be known of it.
        max_rows=1,
    )
    found = await child.measured(asdict(asked))
    return [float(sample["seconds"]) for sample in found["rounds"]["sequential"]]
