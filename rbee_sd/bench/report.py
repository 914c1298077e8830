"""What every benchmark does around its measuring: end well whatever happens, and show what came of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from rbee_sd.bench import machine
from rbee_sd.bench.measure import Figure, table
from rbee_sd.bench.wire import BenchError

Measure = Callable[[], Coroutine[Any, Any, list[Figure]]]

quick_option = click.option("--quick", is_flag=True, help="Fewer samples: a glance, not a result.")
json_option = click.option(
    "--json",
    "target",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    help="Write the JSON to FILE too; - prints nothing but the JSON.",
)


def report(name: str, plan: dict[str, Any], measure: Measure, target: str | None) -> None:
    """Measure, then show the figures. Ends the process, with everything cleaned up, when that fails or is ended."""
    described = machine.describe()
    began = time.monotonic()
    figures = _run(measure)
    result = {
        "benchmark": name,
        "plan": plan,
        "machine": described,
        "took_s": round(time.monotonic() - began, 1),
        "figures": [figure.to_json() for figure in figures],
    }
    _show(figures, result, target)


def _run(measure: Measure) -> list[Figure]:
    try:
        return asyncio.run(_interruptible(measure))
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        sys.exit(128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM))
    except (BenchError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
        raise click.ClickException(f"the measurement failed: {error or 'it took too long'}") from error


async def _interruptible(measure: Measure) -> list[Figure]:
    task = asyncio.create_task(measure())
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
