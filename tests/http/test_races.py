"""Things that happen at the same moment: whichever comes first, a job ends once and everybody is told the same."""

from __future__ import annotations

import asyncio

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults
from tests.http.conftest import Dial
from tests.http.views import TERMINAL, frames, heard, listening, raw_stream, without_heartbeats, works
from tests.http.wire import request, submission

STATE_OF = {"complete": "completed", "error": "failed", "cancelled": "cancelled"}

pytestmark = pytest.mark.settings(queue_size=1000, disconnect_grace=0.0)


async def ends_once(client: Client, job_id: str) -> str:
    """The one terminal event of a job; fails unless stream, late replay and view agree."""
    told, again = [without_heartbeats(await raw_stream(client, job_id)) for _ in range(2)]
    assert told == again
    names = [frame.name for frame in frames(told)]
    terminal = [name for name in names if name in TERMINAL]
    assert len(terminal) == 1
    assert names[-2:] == [terminal[0], "done"]
    assert (await client.job(job_id))["state"] == STATE_OF[terminal[0]]
    return terminal[0]


async def test_a_cancel_that_races_with_completion_ends_the_job_once(client: Client) -> None:
    await client.ready()

    async def one(delay: float) -> str:
        job_id = await client.submit(steps=1)
        await asyncio.sleep(delay)
        assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code == 200
        return await ends_once(client, job_id)

    ends = [await one(number % 30 * 0.001) for number in range(90)]
    # The race was one: both have happened.
    assert set(ends) == {"complete", "cancelled"}
    await works(client)


async def test_listeners_that_join_as_the_job_ends_are_told_all_of_it(client: Client) -> None:
    await client.ready()
    for number in range(15):
        job_id = await client.submit(f"{number}", steps=2, on_disconnect="finish")
        told = [asyncio.ensure_future(raw_stream(client, job_id)) for _ in range(3)]
        async with listening(client, job_id) as first:
            await heard(first, "progress")
            await heard(first, "progress")
            told += [asyncio.ensure_future(raw_stream(client, job_id)) for _ in range(5)]
            await heard(first, "complete")
            told += [asyncio.ensure_future(raw_stream(client, job_id)) for _ in range(3)]
        assert {without_heartbeats(raw) for raw in await asyncio.gather(*told)} == {
            without_heartbeats(await raw_stream(client, job_id))
        }


async def test_a_listener_who_leaves_as_the_job_ends_changes_nothing(
    server: Server, client: Client, dial: Dial
) -> None:
    await client.ready()
    for number in range(45):
        job_id = await client.submit(steps=2)
        wire = await dial(server)
        await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
        await asyncio.sleep(number // 3 * 0.0004)
        (wire.close, wire.reset, wire.half_close)[number % 3]()
        await client.ended(job_id)
        await ends_once(client, job_id)
    assert server.watcher.total == 0
    await works(client)


async def test_equal_keys_sent_at_once_make_one_job(server: Server, dial: Dial) -> None:
    wires = [await dial(server) for _ in range(20)]
    for wire in wires:
        await wire.send(submission(b'{"prompt":"x","steps":1}', "Idempotency-Key: same"))
    answers = [await wire.answer() for wire in wires]
    assert len({answer.json()["job_id"] for answer in answers}) == 1


async def test_many_jobs_come_and_go_and_each_ends_once(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.001")

    async def one(number: int) -> None:
        job_id = await client.submit(f"{number}", steps=1 + number % 7, priority=number % 3)
        match number % 4:
            case 0:
                await client.http.delete(f"/v1/jobs/{job_id}")
            case 1:
                async with listening(client, job_id) as told:
                    await heard(told, "queued")
            case 2:
                await raw_stream(client, job_id)
            case _:
                pass
        await client.ended(job_id)
        await ends_once(client, job_id)

    await asyncio.gather(*(one(number) for number in range(40)))
    assert (await client.http.get("/v1/jobs", params={"limit": 200})).json()["next"] is None
    await works(client)
