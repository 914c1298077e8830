"""Memory of the front: idle, after jobs, and for each idle stream."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from pathlib import Path

import psutil

from rbee_sd.bench import worker
from rbee_sd.bench.measure import Figure
from rbee_sd.bench.progress import progress
from rbee_sd.bench.wire import BenchError, Connection, Listener
from rbee_sd.bench.worker import BenchedWorker

FRONT_AIM = 60.0
"""Megabytes (10^6 bytes) resident."""
STREAM_AIM = 20.0
"""KiB."""
AT_ONCE = 50
"""Listeners that connect at the same time; a hundred may wait in the server's backlog."""
SETTLE = 1.0
"""Seconds of silence before memory is read."""
LEAVE_DEADLINE = 30.0
LEAVE_AIM = 2.0
"""Seconds, for ten thousand."""
ENGINE_START = 600
"""Seconds that the engine of the idle streams takes to start: more than they are measured for."""

BROWSER = (
    "Connection: keep-alive\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36\r\n"
    "Accept: text/event-stream\r\n"
    'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"\r\n'
    'sec-ch-ua-platform: "Linux"\r\n'
    "sec-ch-ua-mobile: ?0\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: cors\r\n"
    "Sec-Fetch-Dest: empty\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
)
"""What a browser sends with the request for a stream: the server keeps it as long as the stream is open."""


async def measure_front(benched: BenchedWorker, port: int, jobs: int) -> list[Figure]:
    """Memory of a front whose engine is ready, and again after `jobs` jobs that a listener followed to the end."""
    await asyncio.sleep(SETTLE)
    idle = _sizes("idle", "front memory idle", benched.front)
    connection = await Connection.open(port)
    with progress(f"following {jobs} jobs, for the front's memory", jobs) as tick:
        for seed in range(jobs):
            listener = await Listener.open(port, await connection.submit(prompt="a red circle", seed=seed))
            names = [event.name async for event in listener.events()]
            if names[-1] != "complete":
                raise BenchError(f"a job ended with {names[-1]}")
            tick()
    connection.close()
    await asyncio.sleep(SETTLE)
    return idle + _sizes("after_jobs", f"front memory after {jobs} jobs", benched.front)


async def measure_streams(streams: int, settle: float) -> list[Figure]:
    """Growth of a fresh front by `streams` browsers that listen to one waiting job, and how soon it sees them go.

    `settle` is how long they are left idle, in seconds; heartbeats come every ten. The engine is the tests' fake
    one, told to take its time to start: so the job waits, nothing happens, and the CPU is free.
    """
    _raise_file_limit(streams)
    with tempfile.TemporaryDirectory(prefix="rbee-sd-bench-") as faults:
        _write(Path(faults) / "slow-start", str(ENGINE_START))
        async with worker.started("--fake-pipeline", faults) as benched:
            return await _streams(benched, streams, settle)


async def measure_peaks(benched: BenchedWorker, port: int) -> list[Figure]:
    """The most resident memory the front and its engine had so far; where the system does not tell, what they have."""
    connection = await Connection.open(port)
    engine = psutil.Process((await connection.status())["engine"]["pid"])
    connection.close()
    front = benched.front
    return [
        Figure("front_peak_mb", "peak memory of the front", _peak(front) / 1e6, "MB"),
        Figure("engine_peak_mb", "peak memory of the engine", _peak(engine) / 1e6, "MB"),
    ]


async def _streams(benched: BenchedWorker, streams: int, settle: float) -> list[Figure]:
    port = await benched.port()
    connection = await Connection.open(port)
    job_id = await connection.submit(prompt="a red circle")
    connection.close()
    # The first few bring in what every later one shares.
    first = await _join(port, job_id, AT_ONCE)
    await asyncio.sleep(SETTLE)
    before = _rss(benched.front)
    began = time.monotonic()
    listeners: list[Listener] = []
    with progress(f"opening {streams} streams of one waiting job", streams // AT_ONCE) as tick:
        while len(listeners) < streams:
            listeners += await _join(port, job_id, AT_ONCE)
            tick()
    joined = time.monotonic() - began
    await _idle(settle)
    grown = _rss(benched.front) - before
    left = await _leave(port, listeners + first)
    return [
        Figure(
            "stream_kib",
            f"memory of an idle stream of a browser, at {streams}",
            grown / 1024 / len(listeners),
            "KiB",
            STREAM_AIM,
        ),
        Figure("streams_joined_s", f"opening {streams} streams", joined, "s"),
        Figure("streams_left_s", f"noticing that all {streams} have gone", left, "s", LEAVE_AIM),
    ]


async def _join(port: int, job_id: str, count: int) -> list[Listener]:
    return await asyncio.gather(*(Listener.open(port, job_id, BROWSER) for _ in range(count)))


async def _idle(seconds: float) -> None:
    with progress(f"leaving them idle for {seconds:g} s", round(seconds)) as tick:
        for _ in range(round(seconds)):
            await asyncio.sleep(1)
            tick()


async def _leave(port: int, listeners: list[Listener]) -> float:
    """Hang up all; seconds until the front counts none. Raises `TimeoutError` if it has not counted them all before."""
    connection = await Connection.open(port)
    await _count_is(connection, len(listeners))
    began = time.monotonic()
    for listener in listeners:
        listener.close()
    await _count_is(connection, 0)
    left = time.monotonic() - began
    connection.close()
    return left


async def _count_is(connection: Connection, wanted: int) -> None:
    async with asyncio.timeout(LEAVE_DEADLINE):
        while (await connection.status())["listeners"] != wanted:
            await asyncio.sleep(0.005)


def _sizes(name: str, text: str, front: psutil.Process) -> list[Figure]:
    """Resident memory, which has the aim; and, where the system tells, without what is shared with others."""
    full = front.memory_full_info()
    figures = [Figure(f"{name}_rss_mb", f"{text}, RSS", full.rss / 1e6, "MB", FRONT_AIM)]
    for kind in ("pss", "uss"):
        if hasattr(full, kind):
            figures.append(Figure(f"{name}_{kind}_mb", f"{text}, {kind.upper()}", getattr(full, kind) / 1e6, "MB"))
    return figures


def _peak(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return _rss(process)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _rss(front: psutil.Process) -> int:
    size: int = front.memory_info().rss
    return size


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _raise_file_limit(streams: int) -> None:
    """Each stream is a socket here as well; the front raises its own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = streams + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(f"{streams} streams need {needed} open files; this system allows {hard}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
