"""`bench front`: what the front process needs and how soon it answers, on the real engine with the model demo."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from rbee_sd.bench import latency, machine, memory, start, worker
from rbee_sd.bench.measure import Figure, table
from rbee_sd.bench.progress import progress
from rbee_sd.bench.wire import BenchError

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
@click.option("--quick", is_flag=True, help="Fewer samples: a glance, not a result.")
@click.option(
    "--json",
    "target",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    help="Write the JSON to FILE too; - prints nothing but the JSON.",
)
def command(quick: bool, target: str | None) -> None:
    """Measure the front process of a worker on this machine. Takes a minute, three at most.

    Progress goes to standard error; a table and then JSON to standard output. A missed aim is no failure.
    """
    plan = QUICK if quick else Plan()
    described = machine.describe()
    began = time.monotonic()
    figures = _run(plan)
    result = {
        "benchmark": "front",
        "plan": asdict(plan),
        "machine": described,
        "took_s": round(time.monotonic() - began, 1),
        "figures": [figure.to_json() for figure in figures],
    }
    _show(figures, result, target)


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


def _run(plan: Plan) -> list[Figure]:
    """Measure; ends the process, with everything cleaned up, when that fails or is interrupted."""
    try:
        return asyncio.run(_interruptible(plan))
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        sys.exit(128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM))
    except (BenchError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
        raise click.ClickException(f"the measurement failed: {error or 'it took too long'}") from error


async def _interruptible(plan: Plan) -> list[Figure]:
    task = asyncio.create_task(measure(plan))
    # As Ctrl-C does already: unwind, so that no worker is left behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _show(figures: list[Figure], result: dict[str, Any], target: str | None) -> None:
    text = json.dumps(result, indent=2)
    if target != "-":
        click.echo(f"{machine.sentence(result['machine'])}\n\n{table(figures)}\n")
    click.echo(text)
    if target not in (None, "-"):
        Path(target).write_text(text + "\n", encoding="utf-8")
