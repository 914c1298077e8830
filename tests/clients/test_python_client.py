"""`rbee_sd.client` against live workers: over cables that are cut, and through the death of the front."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from rbee_sd import client as package
from rbee_sd.client import (
    ApiError,
    AsyncClient,
    Client,
    Complete,
    Event,
    JobCancelledError,
    JobFailedError,
    NoAnswerError,
    Progress,
)
from rbee_sd.client.events import KINDS, event_of
from rbee_sd.server import Server
from rbee_sd.smoke.png import size_of
from tests.clients.cable import Cable
from tests.conftest import Faults, MakeServer, eventually
from tests.e2e.conftest import free_port
from tests.pictures import chunk, png
from tests.process.conftest import StartWorker, start_worker

__all__ = ["start_worker"]

PNG = b"\x89PNG\r\n\x1a\n"


class Threaded:
    """The synchronous client, each call in a thread, so that tests can use it like the other one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.blocking = Client(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(asyncio.to_thread, getattr(self.blocking, name))

    async def stream(self, job_id: str, **options: Any) -> AsyncGenerator[Event]:
        """As `AsyncClient.stream`."""
        events = self.blocking.stream(job_id, **options)
        try:
            while (event := await asyncio.to_thread(next, events, None)) is not None:
                yield event
        finally:
            await asyncio.to_thread(events.close)


AnyClient = Callable[..., Any]


@pytest.fixture(params=[AsyncClient, Threaded], ids=["async", "sync"])
def client_of(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[AnyClient]:
    """Make clients of either kind: `client_of(url)`; closed with the test."""
    made: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(request.param(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        io_loop.run_sync(each.close)


@pytest.fixture
def cable(io_loop: IOLoop, server: Server) -> Iterator[Cable]:
    """A cable to `server`."""
    cable = Cable(int(server.url.rpartition(":")[2]))
    io_loop.run_sync(cable.lay)
    yield cable
    io_loop.run_sync(cable.close)


async def test_generate_gives_back_the_images_with_their_bytes(client_of: AnyClient, server: Server) -> None:
    seen: list[Event] = []
    result = await client_of(server.url).generate("a red circle", count=2, steps=3, seed=7, on_event=seen.append)
    assert [(image.index, image.seed) for image in result.images] == [(0, 7), (1, 8)]
    assert all(image.data.startswith(PNG) for image in result.images)
    assert size_of(result.image) == (result.complete.width, result.complete.height)
    assert [event.name for event in seen if event.name != "narration"] == [
        *("queued", "started"),
        *("progress",) * (len(seen) - len([event for event in seen if not isinstance(event, Progress)])),
        "complete",
    ]
    assert isinstance(seen[-1], Complete)
    assert result.job_id == seen[-1].job_id


async def test_what_is_lost_in_the_midst_of_a_stream_is_fetched_and_nothing_comes_twice(
    client_of: AnyClient, cable: Cable, faults: Faults
) -> None:
    faults.on("slow", "0.05")
    client = client_of(cable.url)
    job_id = (await client.submit(prompt="a", steps=20)).job_id
    events = []
    async with aclosing(client.stream(job_id)) as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, Progress) and event.step % 5 == 0:
                cable.cut()
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(1, 21))
    numbers = [int(event.id) for event in events]
    assert numbers == sorted(set(numbers))
    assert isinstance(events[-1], Complete)
    assert cable.connections > 4


async def test_a_stream_goes_on_over_the_death_of_the_front(
    client_of: AnyClient, start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    port = free_port()
    worker, plain = start_worker(port=port)
    await plain.ready()
    faults.on("slow", "0.05")
    client = client_of(worker.url)
    job_id = (await client.submit(prompt="a", steps=10)).job_id
    events = []
    async with aclosing(client.stream(job_id)) as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, Progress) and event.step == 3 and worker.process.poll() is None:
                worker.signal(signal.SIGKILL)
                worker.wait()
                start_worker(port=port, state_dir=tmp_path / "state0")
    assert isinstance(events[-1], Complete)
    # The job begins again, under ids that are behind those of before.
    assert [event.step for event in events if isinstance(event, Progress)][-10:] == list(range(1, 11))
    numbers = [int(event.id) for event in events]
    assert numbers == sorted(set(numbers))
    assert (await client.image(job_id)).startswith(PNG)


async def test_an_answer_that_is_lost_is_asked_for_again_and_the_job_runs_once(
    client_of: AnyClient, cable: Cable
) -> None:
    client = client_of(cable.url)
    cable.lose_answers = 3
    job_id = (await client.submit(prompt="a", steps=2)).job_id
    assert cable.connections == 4
    assert [job["job_id"] for job in await client.jobs()] == [job_id]
    cable.lose_answers = 1
    await client.generate("b", steps=2)
    assert len(await client.jobs()) == 2


async def test_a_worker_that_is_started_again_is_waited_for(
    client_of: AnyClient, start_worker: StartWorker, tmp_path: Path
) -> None:
    port = free_port()
    worker, _ = start_worker(port=port)
    client = client_of(worker.url)
    assert await client.jobs() == []
    worker.signal(signal.SIGTERM)
    worker.wait()
    asking = asyncio.ensure_future(client.submit(prompt="a", steps=2))
    await asyncio.wait([asking], timeout=0.5)
    assert not asking.done()
    start_worker(port=port, state_dir=tmp_path / "state0")
    job_id = (await asking).job_id
    assert [job["job_id"] for job in await client.jobs()] == [job_id]


async def test_where_nothing_ever_was_the_answer_comes_at_once(client_of: AnyClient) -> None:
    client = client_of(f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="no answer from"):
        await client.submit(prompt="a")
    assert await client.healthy() is False
    assert time.monotonic() - began < 5


async def test_patience_has_an_end(client_of: AnyClient, cable: Cable) -> None:
    client = client_of(cable.url, patience=0.5)
    cable.lose_answers = 1000
    began = time.monotonic()
    with pytest.raises(NoAnswerError):
        await client.jobs()
    assert 0.5 < time.monotonic() - began < 5
    cable.lose_answers = 0
    assert await client.jobs() == []


async def test_refusals_are_typed(client_of: AnyClient, server: Server) -> None:
    client = client_of(server.url)
    with pytest.raises(ApiError) as caught:
        await client.submit(prompt="", width=7, nonsense=1)
    error = caught.value
    assert (error.status, error.code, error.type) == (400, "invalid_request", "invalid_request_error")
    assert {each.field for each in error.fields} == {"prompt", "width", "nonsense"}
    assert next(each for each in error.fields if each.field == "width").value == 7
    assert (error.request_id or "").startswith("req_")
    for call in (client.job, client.cancel, client.image):
        with pytest.raises(ApiError) as caught:
            await call("job_../unknown?")
        assert (caught.value.status, caught.value.code) == (404, "job_not_found")
    with pytest.raises(ApiError) as caught:
        [event async for event in client.stream("job_unknown")]
    assert caught.value.code == "job_not_found"


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[1"])
def test_what_is_no_address_is_told_before_anything_is_sent(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(NoAnswerError, match="no address of a worker"):
            kind(url)
        with pytest.raises(NoAnswerError, match="API key"):
            kind("http://127.0.0.1", "gr\u00fcn")


@pytest.fixture
def locked(make_server: MakeServer) -> Server:
    """A worker with a key."""
    return make_server(api_key="secret")


async def test_an_api_key_is_sent(client_of: AnyClient, locked: Server) -> None:
    assert await client_of(locked.url, "secret").jobs() == []
    with pytest.raises(ApiError) as caught:
        await client_of(locked.url, "other").jobs()
    assert caught.value.status == 401
    assert "secret" not in str(caught.value)


async def test_a_job_that_does_not_complete_is_an_error_that_says_why(
    client_of: AnyClient, server: Server, faults: Faults
) -> None:
    client = client_of(server.url)
    faults.on("oom")
    with pytest.raises(JobFailedError) as failed:
        await client.generate("a")
    assert failed.value.code == "out_of_memory"
    faults.off("oom")
    faults.on("slow", "0.1")

    def leave(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 1:
            cancelling.append(asyncio.run_coroutine_threadsafe(cancel(event.job_id), loop))

    async def cancel(job_id: str) -> None:
        assert (await client.cancel(job_id))["state"] == "cancelled"

    loop = asyncio.get_running_loop()
    cancelling: list[Any] = []
    with pytest.raises(JobCancelledError) as cancelled:
        await client.generate("a", steps=100, on_event=leave)
    assert cancelled.value.reason == "requested"
    await asyncio.wrap_future(cancelling[0])


async def test_operations_without_images_have_a_result(client_of: AnyClient, server: Server) -> None:
    client = client_of(server.url)
    assert "version" in await client.result("status")
    assert "image_generation" in (await client.capabilities())["operations"]
    assert await client.healthy() is True


async def test_image_files_are_given_as_bytes(client_of: AnyClient, server: Server) -> None:
    client = client_of(server.url)
    image = (await client.generate("a", steps=1)).image
    changed = await client.generate("b", operation="image_transform", image=image, strength=0.5, steps=4)
    assert changed.image.startswith(PNG)


async def test_leaving_a_stream_is_leaving_the_job(client_of: AnyClient, server: Server, faults: Faults) -> None:
    faults.on("slow", "0.1")
    client = client_of(server.url)
    job_id = (await client.submit(prompt="a", steps=150)).job_id
    async with aclosing(client.stream(job_id)) as stream:
        async for event in stream:
            if isinstance(event, Progress):
                break

    async def cancelled() -> bool:
        return bool((await client.job(job_id))["state"] == "cancelled")

    await eventually(cancelled)


async def test_who_stops_waiting_for_images_cancels_the_job(server: Server, faults: Faults) -> None:
    faults.on("slow", "0.1")
    async with AsyncClient(server.url) as client:
        seen: list[Event] = []
        waiting = asyncio.ensure_future(client.generate("a", steps=150, on_event=seen.append))
        await eventually(lambda: any(isinstance(event, Progress) for event in seen))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        job = await client.job(seen[0].job_id)
    assert job["state"] == "cancelled"


async def test_who_stops_before_the_job_is_accepted_cancels_it_too(server: Server, faults: Faults) -> None:
    faults.on("slow", "0.1")
    async with AsyncClient(server.url) as client:
        for delay in (0.0, 0.001, 0.003, 0.005, 0.01):
            waiting = asyncio.ensure_future(client.generate("a", steps=150))
            await asyncio.sleep(delay)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert {job["state"] for job in await client.jobs()} <= {"cancelled"}


async def test_ctrl_c_cancels_the_job(server: Server, faults: Faults) -> None:
    faults.on("slow", "0.05")

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    def wait() -> str:
        with Client(server.url) as client:
            with pytest.raises(KeyboardInterrupt):
                client.generate("a", steps=150, on_event=interrupt)
            return str(client.jobs()[0]["state"])

    assert await asyncio.to_thread(wait) == "cancelled"


async def test_all_jobs_can_be_listened_to(server: Server) -> None:
    async with AsyncClient(server.url) as client:
        listening = client.events()
        first = asyncio.ensure_future(anext(listening))
        await eventually(lambda: server.watcher.watched("any"))
        job_id = (await client.submit(prompt="a", steps=2)).job_id
        assert ((await first).name, (await first).job_id) == ("queued", job_id)
        async with aclosing(listening):
            async for event in listening:
                if isinstance(event, Complete):
                    break


def test_unknown_events_and_fields_survive() -> None:
    event = event_of("7", "upscaled", {"event": "upscaled", "job_id": "job_1", "factor": 2})
    assert type(event) is Event
    assert (event.id, event.name, event.job_id, event.data["factor"]) == ("7", "upscaled", "job_1", 2)
    progress = event_of("8", "progress", {"event": "progress", "step": 3, "phase": "decode", "id": "9", "name": "x"})
    assert isinstance(progress, Progress)
    assert (progress.id, progress.name, progress.step, progress.data["phase"]) == ("8", "progress", 3, "decode")
    for name in KINDS:
        assert event_of("1", name, {}).name == name


async def test_both_clients_can_do_the_same() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.S)


async def test_what_the_documents_show_works(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- run: client -->\n```python\n(.*?)```", readme, flags=re.S)
    assert shown == BLOCKS[:1]
    monkeypatch.chdir(tmp_path)
    # Each block goes on from those before, so the client of the first is opened anew for them.
    again = f'client = Client("{server.url}")\n'
    assert len(BLOCKS) == 4
    for block in (BLOCKS[0], again + BLOCKS[1], BLOCKS[2], again + BLOCKS[3]):
        program = "from rbee_sd.client import Client\n" + block.replace("http://127.0.0.1:8600", server.url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()
        # The fake pipeline's pictures do not say how they were made, as real ones do.
        assert (tmp_path / "circle.png").read_bytes().startswith(PNG)
        made_by = b'{"operation": "image_generation", "prompt": "a red circle", "seed": 42}'
        (tmp_path / "circle.png").write_bytes(png(chunk(b"tEXt", b"rbee-sd\0" + made_by)))
    async with AsyncClient(server.url) as client:
        last, *_ = await client.jobs()
    assert last["request"] == {"operation": "image_generation", "prompt": "a red circle", "seed": 42}


def test_whatever_the_package_offers_is_there_and_documented() -> None:
    assert all(hasattr(package, name) for name in package.__all__)
    for name in package.__all__:
        assert re.search(rf"`{name}\b", DOCUMENT), name
