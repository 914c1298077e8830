"""What all tests share: an event loop, a way to wait, and real servers on free ports with the fake pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tornado.ioloop import IOLoop

from rbee_sd.jobs.job import Job
from rbee_sd.server import Server
from rbee_sd.settings import Settings

STEP = 0.02


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the real hub for a model; those that have one of their own say so."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """pytest-tornasync's loop, made without the calls that Tornado has deprecated."""
    loop = IOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)
    yield loop
    # What a test left half done (a client it dropped, say) must not be reported in the midst of another.
    left = asyncio.all_tasks(loop.asyncio_loop)
    for task in left:
        task.cancel()
    loop.asyncio_loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    asyncio.set_event_loop(None)
    loop.close(all_fds=True)


async def eventually(check: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until `check()` (or what it awaits) is true and return it; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout} s: {check}")
        await asyncio.sleep(STEP)


class Faults:
    """The folder that switches the fake pipeline's faults; see `rbee_sd.engine.fake`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def on(self, fault: str, text: str = "") -> None:
        """Switch a fault on; `text` is `once`, or seconds for `slow` and `slow-start`."""
        (self.folder / fault).write_text(text)

    def off(self, fault: str) -> None:
        """Switch it off."""
        (self.folder / fault).unlink(missing_ok=True)


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """The faults of this test's workers."""
    return Faults(tmp_path / "faults")


class Client:
    """A worker's client as tests want it: short calls, decoded answers."""

    def __init__(self, url: str) -> None:
        self.http = httpx2.AsyncClient(base_url=url, timeout=30)

    async def submit(self, prompt: str = "a red circle", **fields: Any) -> str:
        """Submit an image generation; returns the job's id."""
        answer = await self.http.post("/v1/jobs", json={"prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        view: dict[str, Any] = (await self.http.get(f"/v1/jobs/{job_id}")).json()
        return view

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended. Does not listen to its stream."""

        async def check() -> dict[str, Any] | None:
            view = await self.job(job_id)
            return view if view["state"] in ("completed", "failed", "cancelled") else None

        view: dict[str, Any] = await eventually(check)
        return view

    @asynccontextmanager
    async def stream(self, job_id: str, **options: Any) -> AsyncIterator[httpx2.EventSource]:
        """Listen to a job. `options` go to httpx2: `headers`, `params`."""
        async with self.http.sse(f"/v1/jobs/{job_id}/stream", max_event_size=None, **options) as source:
            yield source

    async def events(self, job_id: str, **options: Any) -> list[httpx2.ServerSentEvent]:
        """Everything a listener gets until the server closes, `[DONE]` included."""
        async with self.stream(job_id, **options) as source:
            # httpx2 shows the `retry:` block as an event without data; by the standard it is none.
            return [event async for event in source if event.data]

    async def ready(self) -> None:
        """Wait until the engine takes jobs."""

        async def check() -> bool:
            return (await self.http.get("/ready")).status_code == 200

        await eventually(check)


def known(server: Server, job_id: str) -> Job:
    """A job that the server has in memory."""
    job = server.registry.find(job_id)
    assert job is not None
    return job


MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(io_loop: IOLoop, tmp_path: Path, faults: Faults) -> Iterator[MakeServer]:
    """Start real workers with the fake pipeline: `make_server(disconnect_grace=0.2)` -> a started `Server`."""
    servers: list[Server] = []

    def make(**changes: Any) -> Server:
        values = {
            "port": 0,
            "state_dir": str(tmp_path / f"state{len(servers)}"),
            "fake_pipeline": str(faults.folder),
            "model": "fake",
            "drain_timeout": 0.0,
            **changes,
        }
        server = Server(Settings(**values))
        servers.append(server)
        io_loop.run_sync(server.start)
        return server

    yield make
    for server in servers:
        io_loop.run_sync(server.drain)
        io_loop.run_sync(server.stop)


@pytest.fixture
def connect(io_loop: IOLoop) -> Iterator[Callable[[Server], Client]]:
    """Clients of servers, closed with the test."""
    clients: list[Client] = []

    def make(server: Server) -> Client:
        client = Client(server.url)
        clients.append(client)
        return client

    yield make
    for client in clients:
        io_loop.run_sync(client.http.aclose)


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """A worker with the settings most tests want."""
    return make_server(disconnect_grace=0.3, heartbeat=0.5)


@pytest.fixture
def client(server: Server, connect: Callable[[Server], Client]) -> Client:
    """A client of `server`."""
    return connect(server)
