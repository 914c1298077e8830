"""What goes wrong: each fault is a coroutine that does it and, where that is needed, heals it again."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psutil

from rbee_sd.chaos.worker import ChaosWorker

Fault = Callable[[ChaosWorker, random.Random], Awaitable[None]]

PATIENCE = 10.0
"""Seconds after which what is still there is left behind. How soon it should have gone is measured."""


class LeftBehindError(Exception):
    """A front that ended left something behind, or ended badly."""


async def kill_front(worker: ChaosWorker, chance: random.Random) -> None:
    """The front is killed and started again."""
    await worker.end(signal.SIGKILL)
    died = time.monotonic()
    if left := await worker.left(PATIENCE):
        raise LeftBehindError(f"a front that was killed was outlived by {_described(left)}")
    worker.measures.engine_gone.append(time.monotonic() - died)
    await worker.start()


async def stop_front(worker: ChaosWorker, chance: random.Random) -> None:
    """The front is stopped as a service manager does it, and started again."""
    status = await worker.end(signal.SIGTERM)
    if status != 0:
        raise LeftBehindError(f"a front that was asked to stop ended with status {status}")
    if left := await worker.left(PATIENCE):
        raise LeftBehindError(f"a front that was stopped was outlived by {_described(left)}")
    await worker.start()


async def kill_engine(worker: ChaosWorker, chance: random.Random) -> None:
    """The engine is killed, mostly while it works and is listened to."""
    slow = worker.faults / "slow"
    slow.write_text("0.05")
    await asyncio.sleep(chance.uniform(0, 1))
    engine = worker.engine()
    worker.measures.engine_died()
    _signal(engine, signal.SIGKILL)
    slow.unlink(missing_ok=True)


async def stop_engine(worker: ChaosWorker, chance: random.Random) -> None:
    """The engine is stopped and never goes on."""
    engine = worker.engine()
    with suppress(psutil.NoSuchProcess):
        # It has a thread that watches the front once it has come to that, a tenth of a second after its start. One that
        # is stopped before can neither be told of the front's death nor see it.
        if engine is not None and engine.num_threads() > 1:
            _signal(engine, signal.SIGSTOP)


async def stop_group(worker: ChaosWorker, chance: random.Random) -> None:
    """Everything stands still for a while."""
    worker.signal_group(signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(0.2, 2.5))
    worker.signal_group(signal.SIGCONT)


async def full_disk(worker: ChaosWorker, chance: random.Random) -> None:
    """The front can make no file longer for a while."""
    front = worker.front
    if front is None:
        return
    with suppress(psutil.NoSuchProcess):
        _, most = front.rlimit(resource.RLIMIT_FSIZE)
        front.rlimit(resource.RLIMIT_FSIZE, (0, most))
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        front.rlimit(resource.RLIMIT_FSIZE, (most, most))


async def strangers(worker: ChaosWorker, chance: random.Random) -> None:
    """Connections that send nonsense, half a request or nothing, and go."""
    for _ in range(20):
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
            nonsense = (b"", b"GET /v1/jobs HTTP/1.1\r\n", chance.randbytes(200), b"POST / HTTP/9\r\n\r\n")
            writer.write(chance.choice(nonsense))
            await asyncio.sleep(chance.uniform(0, 0.05))
            if chance.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()
            del reader


def switched(fault: str, text: str = "once") -> Fault:
    """A fault of the fake pipeline that happens once."""

    async def switch(worker: ChaosWorker, chance: random.Random) -> None:
        (worker.faults / fault).write_text(text)

    return switch


def lasting(fault: str, text: str, most: float) -> Fault:
    """A fault of the fake pipeline that lasts for some seconds."""

    async def last(worker: ChaosWorker, chance: random.Random) -> None:
        (worker.faults / fault).write_text(text)
        await asyncio.sleep(chance.uniform(0.1, most))
        (worker.faults / fault).unlink(missing_ok=True)

    return last


FAULTS: dict[str, Fault] = {
    "kill-front": kill_front,
    "stop-front": stop_front,
    "kill-engine": kill_engine,
    "stop-engine": stop_engine,
    "stop-group": stop_group,
    "full-disk": full_disk,
    "strangers": strangers,
    "crash": switched("crash"),
    "segv": switched("segv"),
    "garbage": switched("garbage"),
    "half-message": switched("half-message"),
    "huge-frame": switched("huge-frame"),
    "oom": switched("oom"),
    "fail": switched("fail"),
    "device-lost": switched("device-lost"),
    "hang": lasting("hang", "", 3.0),
    "slow": lasting("slow", "0.05", 3.0),
    "slow-start": lasting("slow-start", "0.5", 3.0),
}


def heal(worker: ChaosWorker) -> None:
    """Switch every fault of the pipeline off."""
    for path in worker.faults.iterdir():
        if path.name != "capacity":
            path.unlink(missing_ok=True)
    worker.signal_group(signal.SIGCONT)


def _described(left: list[int]) -> str:
    told = []
    for pid in left:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            told.append(f"{process.status()} {' '.join(process.cmdline())[-60:]} ({process.num_threads()} threads)")
    return "; ".join(told)


def _signal(process: psutil.Process | None, number: signal.Signals) -> None:
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
