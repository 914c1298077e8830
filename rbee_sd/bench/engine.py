"""`bench engine`: what sharing every denoise step brings, and what it costs, without HTTP."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import click

from rbee_sd.bench import child, ways
from rbee_sd.bench.measure import Figure
from rbee_sd.bench.report import json_option, quick_option, report


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, on what. See `rbee_sd/engine/bench/plan.py`, where it goes to."""

    model: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    max_rows: int = 0
    side: int = 0
    steps: int = 20
    images: int = 8
    ways: tuple[str, ...] = ("sequential", "single", "shared", "static")
    rounds: int = 12
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    forwards: int = 15
    variants: tuple[int, ...] = (2, 16)
    moments: int = 150
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")


PLAN = Plan()
QUICK = Plan(rounds=3, forwards=5, variants=(), moments=15, dtypes=("auto",))


MODEL = "Any that the worker takes; random:sd15 and random:sdxl are made of random weights."


class _Rows(click.ParamType[tuple[int, ...]]):
    """Numbers of rows with commas between them."""

    name = "rows"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        """See `click.ParamType`."""
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(word.strip().isdecimal() and 0 < int(word) <= 512 for word in words):
            self.fail("numbers from 1 to 512 with commas between them, such as 1,2,4,8", param, context)
        return tuple(sorted({int(word) for word in words}))


@click.command("engine", short_help="Shared steps beside the plain pipe() of diffusers, without HTTP.")
@click.option("--model", default=PLAN.model, show_default=True, help=MODEL)
@click.option("--device", default=PLAN.device, show_default=True, help="auto, cpu, mps, cuda or cuda:N.")
@click.option("--dtype", default=PLAN.dtype, show_default=True, help="auto, float32, float16 or bfloat16.")
@click.option("--threads", default=PLAN.threads, show_default=True, help="CPU threads; 0: as the worker would.")
@click.option("--max-rows", default=PLAN.max_rows, show_default=True, help="Rows of a forward at most; 0: measured.")
@click.option("--side", default=PLAN.side, show_default=True, help="Pixels; 0: as the model wants.")
@click.option("--steps", default=PLAN.steps, show_default=True, help="Denoise steps of an image.")
@click.option("--rounds", type=int, help="Rounds in which every way has its turn.")
@click.option("--rows", type=_Rows(), help="Rows of which a forward is timed, such as 1,2,4,8.")
@click.option("--moments", type=click.IntRange(0), help="How often one of eight jobs is cancelled and another begun.")
@quick_option
@json_option
def command(
    quick: bool,
    target: str | None,
    rounds: int | None,
    rows: tuple[int, ...] | None,
    moments: int | None,
    **settings: str | int,
) -> None:
    """Make the same kind of images with the engine and with the plain pipe() of diffusers, in turns.

    Takes two minutes with the model demo on a CPU. Progress goes to standard error; a table and then JSON to standard
    output. A missed aim is no failure.
    """
    plan = replace(QUICK if quick else PLAN, **settings)  # type: ignore[arg-type]
    plan = replace(plan, rounds=rounds or plan.rounds, rows=rows or plan.rows)
    plan = replace(plan, moments=plan.moments if moments is None else moments)
    report("engine", asdict(plan), lambda: measure(plan), target)


async def measure(plan: Plan) -> list[Figure]:
    """Everything, in a process that has torch."""
    found = await child.measured(asdict(plan))
    rounds = found["rounds"]
    return [
        *ways.compared(rounds, plan.images),
        *ways.counted(rounds),
        *ways.company(found["moments"]),
        *ways.peaks(rounds),
        *ways.curve(found["curve"]),
        *ways.variants(found["variants"]),
        *ways.differences(found["differences"], plan.images),
        Figure("cap", "rows that pay, as the engine has found", found["knee"]["cap"], "rows"),
        Figure("capacity", "jobs that it takes at once, therefore", found["model"]["capacity"], "jobs"),
        Figure("threads", "CPU threads", found["threads"], ""),
    ]
