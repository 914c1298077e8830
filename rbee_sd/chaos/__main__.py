"""Entry of bin/chaos: `python -m rbee_sd.chaos`. A seeded run, a report, exit status 1 when the books are wrong."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx2
from tqdm import tqdm

from rbee_sd.chaos.books import TERMINAL, Books, on_disk
from rbee_sd.chaos.clients import WAYS, ChaosClient, whole_stream
from rbee_sd.chaos.faults import FAULTS, LeftBehindError, heal
from rbee_sd.chaos.worker import ChaosWorker
from rbee_sd.client import AsyncClient

QUIET_DEADLINE = 400.0
"""Seconds that the jobs which are left may take once nothing fails any more: an engine that died five times without
having done a job is left alone for 300."""
LEFT_OPEN = 5
"""Files and threads that a front may have more in the end than after its first job."""
LOOK_AGAIN = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done. `times` bounds the number of faults; 0: as many as the time allows."""

    seconds: float
    times: int
    clients: int
    seed: int
    pause: float
    faults: list[str]
    ways: list[str]


class Words(click.ParamType[list[str]]):
    """Some of `known`, separated by commas."""

    name = "A,B,…"

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Called by click."""
        words = [word.strip() for word in str(value).split(",") if word.strip()]
        if unknown := sorted(set(words) - set(self._known)):
            self.fail(f"there is no {', '.join(unknown)}; there is {', '.join(self._known)}", param, ctx)
        return words


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
@click.option("--clients", type=click.IntRange(1, 500), default=12, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Another one is another run.")
@click.option("--pause", type=click.FloatRange(0), default=1.5, show_default=True, help="Seconds between faults.")
@click.option("--faults", type=Words(FAULTS), default=",".join(FAULTS), help="Which. [default: all]")
@click.option("--times", default=0, help="End after so many faults, should the time not be over by then.")
@click.option("--ways", type=Words(WAYS), default=",".join(WAYS), help="What clients do. [default: all]")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep state and log here. [default: a temporary one]")
def main(minutes: float, folder: Path | None, **plan: Any) -> None:
    """Run a worker with a fake pipeline under clients and faults, then compare what was promised with what came."""
    with tempfile.TemporaryDirectory(prefix="rbee-sd-chaos-") as temporary:
        worker = ChaosWorker(folder or Path(temporary))
        wrong, report = asyncio.run(_run(worker, Plan(60 * minutes, **plan)))
    click.echo(report)
    for line in wrong:
        click.echo(f"WRONG: {line}")
    click.echo(f"FAILED: {len(wrong)} things are wrong" if wrong else "OK: the books agree")
    sys.exit(1 if wrong else 0)


async def _run(worker: ChaosWorker, plan: Plan) -> tuple[list[str], str]:
    books, done = Books(), Counter[str]()
    began = time.monotonic()
    try:
        (worker.faults / "capacity").write_text("4")
        await worker.start()
        await _good_job(worker)
        before = worker.footprint()
        await _storm(worker, books, done, plan)
        views, streams, wrong = await _calm(worker, books)
        wrong += books.compare(views, streams)
        wrong += await _left_open(worker, before)
        wrong += await _stopped(worker)
        wrong += on_disk(worker.state, views)
    finally:
        worker.signal_group(signal.SIGKILL)
    wrong += worker.measures.wrong()
    return [*books.wrong, *wrong], _report(worker, books, done, views, plan.seed, time.monotonic() - began)


async def _good_job(worker: ChaosWorker) -> None:
    async with AsyncClient(worker.url) as client:
        await client.generate("a red circle", steps=1)


async def _storm(worker: ChaosWorker, books: Books, done: Counter[str], plan: Plan) -> None:
    """Clients and faults, for as long as it was asked for."""
    crowd = [
        asyncio.create_task(
            ChaosClient(worker.url, books, worker.measures, plan.ways, random.Random(f"{plan.seed} client {n}")).run()
        )
        for n in range(plan.clients)
    ]
    probe = asyncio.create_task(worker.probe())
    chance = random.Random(f"{plan.seed} faults")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with tqdm(total=round(plan.seconds), unit="s", disable=None) as bar:
        while (passed := loop.time() - began) < plan.seconds and not 0 < plan.times <= done.total():
            bar.update(round(passed) - bar.n)
            bar.set_postfix(jobs=len(books.jobs), faults=done.total(), refresh=False)
            await asyncio.sleep(chance.uniform(0, 2 * plan.pause))
            if not plan.faults:
                continue
            name = chance.choice(plan.faults)
            try:
                await FAULTS[name](worker, chance)
            except LeftBehindError as error:
                books.wrong.append(str(error))
                worker.signal_group(signal.SIGKILL)
                await worker.start()
            done[name] += 1
    heal(worker)
    for task in (*crowd, probe):
        task.cancel()
    for task, end in zip(crowd, await asyncio.gather(*crowd, return_exceptions=True), strict=True):
        if not isinstance(end, asyncio.CancelledError):
            books.wrong.append(f"a client of ours failed: {end!r} ({task.get_name()})")
    with suppress(asyncio.CancelledError):
        await probe


async def _calm(
    worker: ChaosWorker, books: Books
) -> tuple[dict[str, dict[str, Any]], dict[str, list[tuple[int, str]]], list[str]]:
    """Wait until every job has ended; then each as the worker shows it, with its stream."""
    wrong = []
    views: dict[str, dict[str, Any]] = {}
    streams: dict[str, list[tuple[int, str]]] = {}
    async with httpx2.AsyncClient(base_url=worker.url, timeout=30, trust_env=False) as http:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + QUIET_DEADLINE
        while loop.time() < deadline:
            with suppress(httpx2.TransportError):
                live = 0
                for state in ("queued", "running"):
                    live += len((await http.get("/v1/jobs", params={"state": state, "limit": 1})).json()["jobs"])
                if not live:
                    break
            await asyncio.sleep(LOOK_AGAIN)
        else:
            wrong.append(f"there are live jobs {QUIET_DEADLINE:g} s after the last fault")
        for job_id in tqdm(books.jobs, "comparing", unit="job", disable=None):
            answer = await http.get(f"/v1/jobs/{job_id}")
            if answer.status_code == 200:
                views[job_id] = answer.json()
                if views[job_id]["state"] in TERMINAL.values():
                    streams[job_id] = await whole_stream(http, job_id)
    return views, streams, wrong


async def _left_open(worker: ChaosWorker, before: tuple[int, int]) -> list[str]:
    """Whether the front has let go of what it held, once nobody asks for anything any more."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUIET_DEADLINE
    while any(now > once + LEFT_OPEN for now, once in zip(worker.footprint(), before, strict=True)):
        if loop.time() > deadline:
            return [f"the front has {worker.footprint()} open files and threads; after its first job it had {before}"]
        await asyncio.sleep(LOOK_AGAIN)
    return []


async def _stopped(worker: ChaosWorker) -> list[str]:
    """Stop the worker; what is wrong with how it ends."""
    status = await worker.end(signal.SIGTERM)
    wrong = [] if status == 0 else [f"the worker ended with status {status}"]
    if left := await worker.left(2.0):
        wrong.append(f"{len(left)} processes are left behind")
    return wrong


def _report(
    worker: ChaosWorker, books: Books, done: Counter[str], views: dict[str, dict[str, Any]], seed: int, seconds: float
) -> str:
    ends = Counter(view["state"] for view in views.values())
    codes = Counter(view["error"]["code"] for view in views.values() if view["error"])
    lines = [
        f"seed {seed}, {seconds / 60:.1f} min, the front started {worker.starts} times",
        f"faults: {done.total()}: " + _listed(done),
        f"jobs acknowledged: {len(books.jobs)}: " + _listed(ends),
        "errors: " + (_listed(codes) or "none"),
        f"tried again: {sum(view['attempt'] > 1 for view in views.values())}",
        "clients: " + _listed(books.counts),
        *worker.measures.lines(),
    ]
    return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
