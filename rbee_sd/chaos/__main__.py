"""Entry of bin/chaos: `python -m rbee_sd.chaos`. A seeded run, a report, exit status 1 when the books are wrong."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import httpx2
from tqdm import tqdm

from rbee_sd.chaos.books import TERMINAL, Books, on_disk
from rbee_sd.chaos.clients import ChaosClient, whole_stream
from rbee_sd.chaos.faults import FAULTS, LeftBehindError, heal
from rbee_sd.chaos.worker import ChaosWorker

QUIET_DEADLINE = 120.0
"""Seconds that the jobs which are left may take once nothing fails any more."""
LARGEST_FRONT = 250_000_000
"""Bytes."""


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
@click.option("--clients", type=click.IntRange(1, 500), default=12, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Another one is another run.")
@click.option("--pause", type=click.FloatRange(0), default=1.5, show_default=True, help="Seconds between faults.")
@click.option("--faults", default=",".join(FAULTS), help="Which, by name, separated by commas. [default: all]")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep state and log here. [default: a temporary one]")
def main(minutes: float, clients: int, seed: int, pause: float, faults: str, folder: Path | None) -> None:
    """Run a worker with a fake pipeline under clients and faults, then compare what was promised with what came."""
    names = [name.strip() for name in faults.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(FAULTS)):
        raise click.UsageError(f"no such fault: {', '.join(unknown)}; there is {', '.join(FAULTS)}")
    with tempfile.TemporaryDirectory(prefix="rbee-sd-chaos-") as temporary:
        worker = ChaosWorker(folder or Path(temporary))
        wrong, report = asyncio.run(_run(worker, names, 60 * minutes, clients, seed, pause))
    click.echo(report)
    for line in wrong:
        click.echo(f"WRONG: {line}")
    click.echo(f"FAILED: {len(wrong)} things are wrong" if wrong else "OK: the books agree")
    sys.exit(1 if wrong else 0)


async def _run(
    worker: ChaosWorker, names: list[str], seconds: float, clients: int, seed: int, pause: float
) -> tuple[list[str], str]:
    books, done = Books(), Counter[str]()
    began = time.monotonic()
    try:
        (worker.faults / "capacity").write_text("4")
        await worker.start()
        await _storm(worker, books, done, names, seconds, clients, seed, pause)
        views, streams, wrong = await _calm(worker, books)
        wrong += books.compare(views, streams)
        wrong += await _stopped(worker)
        wrong += on_disk(worker.state, views)
    finally:
        worker.signal_group(signal.SIGKILL)
    if worker.largest["front"] > LARGEST_FRONT:
        wrong.append(f"the front grew to {worker.largest['front'] // 1_000_000} MB")
    return [*books.wrong, *wrong], _report(worker, books, done, views, seed, time.monotonic() - began)


async def _storm(
    worker: ChaosWorker,
    books: Books,
    done: Counter[str],
    names: list[str],
    seconds: float,
    clients: int,
    seed: int,
    pause: float,
) -> None:
    """Clients and faults, for so many seconds."""
    crowd = [
        asyncio.create_task(ChaosClient(worker.url, books, random.Random(f"{seed} client {n}")).run())
        for n in range(clients)
    ]
    chance = random.Random(f"{seed} faults")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with tqdm(total=round(seconds), unit="s", disable=None) as bar:
        while (passed := loop.time() - began) < seconds:
            bar.update(round(passed) - bar.n)
            bar.set_postfix(jobs=len(books.jobs), faults=done.total(), refresh=False)
            worker.weigh()
            await asyncio.sleep(chance.uniform(0, 2 * pause))
            name = chance.choice(names)
            try:
                await FAULTS[name](worker, chance)
            except LeftBehindError as error:
                books.wrong.append(str(error))
                worker.signal_group(signal.SIGKILL)
                await worker.start()
            done[name] += 1
    heal(worker)
    for task in crowd:
        task.cancel()
    for task, end in zip(crowd, await asyncio.gather(*crowd, return_exceptions=True), strict=True):
        if not isinstance(end, asyncio.CancelledError):
            books.wrong.append(f"a client of ours failed: {end!r} ({task.get_name()})")


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
            await asyncio.sleep(0.2)
        else:
            wrong.append(f"there are live jobs {QUIET_DEADLINE:g} s after the last fault")
        for job_id in tqdm(books.jobs, "comparing", unit="job", disable=None):
            answer = await http.get(f"/v1/jobs/{job_id}")
            if answer.status_code == 200:
                views[job_id] = answer.json()
                if views[job_id]["state"] in TERMINAL.values():
                    streams[job_id] = await whole_stream(http, job_id)
    return views, streams, wrong


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
        f"largest: front {worker.largest['front'] // 1_000_000} MB, engine {worker.largest['engine'] // 1_000_000} MB",
    ]
    return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
