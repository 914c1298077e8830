"""`bench studio`: what the page weighs, when it is there, and how smoothly it moves, in a real Chromium."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from rbee_sd.bench import gallery, worker
from rbee_sd.bench.measure import Figure, frames
from rbee_sd.bench.progress import progress
from rbee_sd.bench.report import json_option, quick_option, report
from rbee_sd.bench.wire import BenchError

if TYPE_CHECKING:
    from rbee_sd.bench.page import StudioPage

T = TypeVar("T")

PAGE_AIM = 120.0
"""KB, of 1000 bytes."""
PAINT_AIM = 300.0
"""Milliseconds."""
FRAME_AIM = 17.0
"""Milliseconds between two frames, of 60 in a second, rounded up; for 95 of 100."""
LATE_AIM = 5.0
"""Percent of the frames while one scrolls."""
SIDES = (128, 1024)
"""Pixels of the pictures in the gallery."""
AT_ONCE = 8
STEP = 0.05
"""Seconds; each second one has a preview, so that there are ten a second for each job: an engine sends no more."""
DEADLINE = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    loads: int = 9
    seconds: float = 5.0
    jobs: int = 5000
    speed: float = 6000.0
    """Pixels a second through the gallery: six screens."""
    jumps: int = 20


@click.command("studio", short_help="The page in a browser: bytes, first paint, frames, a large gallery.")
@click.option("--jobs", type=click.IntRange(gallery.AT_ONCE), help="Pictures in the gallery.  [default: 5000]")
@quick_option
@json_option
def command(jobs: int | None, quick: bool, target: str | None) -> None:
    """Measure the studio in Chromium: bytes, first paint, frames with eight jobs at once and in a large gallery."""
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError as error:
        text = "bin/bench studio needs what the tests need: pip install -r conf/requirements-test.txt"
        raise click.ClickException(text) from error
    plan = Plan(loads=3, seconds=2.0, jobs=300, jumps=3) if quick else Plan()
    if jobs is not None:
        plan = replace(plan, jobs=jobs)
    report("studio", asdict(plan), lambda: measure(plan), target)


async def measure(plan: Plan) -> list[Figure]:
    """Open the page of a new worker, have it watch jobs, and open that of one with a long history."""
    async with asyncio.timeout(DEADLINE):
        figures = await _new(plan)
        for side in SIDES:
            figures += await _long(plan, side)
    return figures


async def _new(plan: Plan) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="rbee-sd-bench-") as folder:
        async with _page(_flags(Path(folder))) as page:
            paints = []
            with progress(f"opening the page {plan.loads} times", plan.loads) as tick:
                for _ in range(plan.loads):
                    await _aside(page.open)
                    paints.append(await _aside(page.painted))
                    tick()
            files = await _aside(page.files)
            figures = [
                Figure("page_kb", "the page, not compressed", sum(files.values()) / 1000, "KB", PAGE_AIM),
                Figure("page_files", "files that it consists of", len(files), "files"),
                Figure("paint_ms", f"first paint, median of {len(paints)}", statistics.median(paints), "ms", PAINT_AIM),
                Figure("paint_worst_ms", "first paint, worst", max(paints), "ms", PAINT_AIM),
            ]
            prompts = [f"a picture that takes long, {number}" for number in range(AT_ONCE)]
            with progress(f"watching {AT_ONCE} jobs for {plan.seconds:g} s", 1) as tick:
                await _aside(partial(page.generate, prompts, steps=150, width=512, height=512))
                gaps, previews = await _aside(partial(page.watch, plan.seconds))
                tick()
            if not previews:
                raise BenchError("no preview came")
            shown = Figure("previews_shown", "previews on the stage meanwhile", previews / plan.seconds, "/s")
            return [*figures, *frames("watch", f"{AT_ONCE} jobs", gaps, aim=FRAME_AIM), shown]


async def _long(plan: Plan, side: int) -> list[Figure]:
    chance = random.Random(0)  # noqa: S311  (which pictures are looked at is no secret)
    with tempfile.TemporaryDirectory(prefix="rbee-sd-bench-") as folder:
        flags = _flags(Path(folder))
        flags += ["--job-history", str(2 * plan.jobs), "--job-bytes", str(2**40)]
        await gallery.fill(Path(folder) / "state", flags, plan.jobs, side)
        async with _page(flags) as page:
            await _aside(page.open)
            await _aside(partial(page.jump, 0.0))
            with progress(f"scrolling through {plan.jobs} pictures of {side} px", 1) as tick:
                way = await _aside(partial(page.scroll, plan.jobs, plan.speed, DEADLINE / 4))
                tick()
            if not way.all:
                raise BenchError(f"the gallery did not come to its end; {way.pixels:.0f} px were scrolled")
            waits = []
            with progress(f"going to {plan.jumps} places in it", plan.jumps) as tick:
                for _ in range(plan.jumps):
                    waits.append(await _aside(partial(page.jump, chance.random())))
                    tick()
            name, text = f"gallery_{side}", f"{plan.jobs} of {side} px"
            return [
                *frames(name, f"{text}, scrolling", way.gaps, late_aim=LATE_AIM),
                Figure(f"{name}_there", f"{text}, tiles with their picture meanwhile", 100 * way.there / way.seen, "%"),
                Figure(
                    f"{name}_screen_p50_ms",
                    f"{text}, a screen elsewhere, median of {len(waits)}",
                    statistics.median(waits),
                    "ms",
                ),
                Figure(f"{name}_screen_worst_ms", f"{text}, a screen elsewhere, worst", max(waits), "ms"),
                Figure(f"{name}_elements", f"{text}, elements in the page", await _aside(page.elements), "elements"),
                Figure(f"{name}_heap_mb", f"{text}, JavaScript's memory then", await _aside(page.heap) / 1e6, "MB"),
                Figure(f"{name}_rss_mb", f"{text}, memory of its process", await _aside(page.resident) / 1e6, "MB"),
            ]


def _flags(folder: Path) -> list[str]:
    """Of a worker that keeps its state in `folder`, with the fake pipeline."""
    faults = folder / "faults"
    faults.mkdir()
    for name, text in (("noise", ""), ("capacity", str(AT_ONCE)), ("slow", str(STEP))):
        (faults / name).write_text(text)
    return ["--fake-pipeline", str(faults), "--model", "fake", "--state-dir", str(folder / "state")]


@asynccontextmanager
async def _page(flags: Sequence[str]) -> AsyncIterator[StudioPage]:
    """The studio of a worker, in a browser of its own."""
    from rbee_sd.bench import chromium, page

    async with worker.started(*flags) as benched:
        port = await benched.port()
        await benched.ready(port)
        with tempfile.TemporaryDirectory(prefix="rbee-sd-bench-", ignore_cleanup_errors=True) as folder:
            driver = await _aside(partial(chromium.start_chromium, Path(folder)))
            try:
                yield page.StudioPage(driver, port)
            finally:
                driver.quit()


async def _aside(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
