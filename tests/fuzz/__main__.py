"""Entry of bin/fuzz: `python -m tests.fuzz`. Sends what hypothesis makes up to a worker, and shrinks what breaks it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from signal import SIGTERM

import click
from hypothesis import HealthCheck, Phase, given, seed, settings
from tqdm import tqdm

from rbee_sd.chaos.worker import ChaosWorker
from rbee_sd.client import AsyncClient
from tests.fuzz.requests import requests

PATIENCE = 30.0
"""Seconds until a client that has said all it has to say must have its answer, or be let go."""
FAILURES = ("defect in", "Exception in callback", "Task exception was never retrieved", "Traceback")


class FuzzError(AssertionError):
    """The worker did what it must never do."""


class Fuzzer:
    """Sends requests to a worker, each on a connection of its own, and looks at the answers."""

    def __init__(self, worker: ChaosWorker) -> None:
        self._worker = worker
        self.statuses: Counter[str] = Counter()

    async def try_out(self, data: bytes) -> None:
        """Send some bytes and nothing more. Raises `FuzzError`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._worker.port)
        try:
            answer = await asyncio.wait_for(_exchange(reader, writer, data), PATIENCE)
        except TimeoutError as error:
            raise FuzzError(f"not answered and not let go within {PATIENCE:g} s") from error
        finally:
            writer.transport.abort()
        self._judge(answer)

    def _judge(self, answer: bytes) -> None:
        if not answer:
            self.statuses["closed"] += 1
            return
        head, _, body = answer.partition(b"\r\n\r\n")
        version, _, rest = head.partition(b" ")
        status = rest[:3].decode("latin-1")
        self.statuses[status] += 1
        if version != b"HTTP/1.1" or not status.isdigit():
            raise FuzzError(f"no HTTP: {answer[:200]!r}")
        if status.startswith("5") and status != "503":
            raise FuzzError(f"answered {status}: {body[:300]!r}")
        home = str(Path.home()).encode()
        if b"Traceback" in answer or home in answer:
            raise FuzzError(f"gives away what is inside: {answer[:500]!r}")


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    try:
        writer.write(data)
        await writer.drain()
        # Nothing comes any more: whoever waits for the rest of a request can know.
        writer.write_eof()
        return await reader.read(65536)
    except ConnectionError:
        return b""


@click.command()
@click.option("--requests", "count", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", "number", default=0, show_default=True, help="Another one makes other requests.")
def main(count: int, number: int) -> None:
    """Send requests that nobody meant to a worker with a fake pipeline. Exit status 1 when one of them does harm."""
    with tempfile.TemporaryDirectory(prefix="rbee-sd-fuzz-") as folder, asyncio.Runner() as runner:
        worker = ChaosWorker(Path(folder))
        fuzzer = Fuzzer(worker)
        runner.run(worker.start())
        began = time.monotonic()
        try:
            with tqdm(total=count, unit="request", disable=None) as bar:

                @seed(number)
                @settings(
                    max_examples=count,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    phases=(Phase.generate, Phase.shrink),
                )
                @given(data=requests())
                def harmless(data: bytes) -> None:
                    bar.update()
                    runner.run(fuzzer.try_out(data))

                harmless()
            wrong = runner.run(_afterwards(worker))
        except FuzzError as error:
            wrong = [str(error), *getattr(error, "__notes__", [])]
        finally:
            runner.run(worker.end(SIGTERM))
    seconds = time.monotonic() - began
    told = ", ".join(f"{n} {status}" for status, n in sorted(fuzzer.statuses.items()))
    click.echo(f"seed {number}: {fuzzer.statuses.total()} requests in {seconds:.0f} s: {told}")
    for line in wrong:
        click.echo(f"WRONG: {line}")
    click.echo("FAILED" if wrong else "OK: nothing did harm")
    sys.exit(1 if wrong else 0)


async def _afterwards(worker: ChaosWorker) -> list[str]:
    """What is wrong with the worker now."""
    log = worker.log.read_text(encoding="utf-8", errors="replace")
    wrong = [f"the log says: {failure}" for failure in FAILURES if failure in log]
    async with AsyncClient(worker.url) as client:
        if not await client.healthy():
            wrong.append("/health does not answer")
        job = await client.submit(prompt="a red circle", steps=1)
        names = [event.name async for event in client.stream(job.job_id)]
    if names[-1] != "complete":
        wrong.append(f"a good job ended with {names[-1]}")
    return wrong


if __name__ == "__main__":
    main()
