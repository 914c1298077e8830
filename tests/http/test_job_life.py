"""A job from its acceptance to its image, over real sockets."""

from __future__ import annotations

import time

import pytest

from tests.conftest import Client, Faults


async def test_a_job_streams_every_step_then_its_image_then_done(client: Client) -> None:
    job_id = await client.submit(steps=7, seed=5)
    events = await client.events(job_id)
    names = [event.event for event in events]
    assert names[0] == "queued"
    assert names.count("progress") == 7
    assert names[-2:] == ["complete", "message"]
    assert events[-1].data == "[DONE]"
    assert [int(event.id) for event in events[:-1]] == list(range(1, len(events)))


@pytest.mark.settings(disconnect_grace=1.0, job_ttl=3600.0)
@pytest.mark.parametrize("years", [10.0, -10.0, 1 / 365])
async def test_a_wall_clock_that_jumps_makes_nothing_expire_or_fail(
    client: Client, faults: Faults, monkeypatch: pytest.MonkeyPatch, years: float
) -> None:
    before = await client.submit(steps=2)
    await client.ended(before)
    faults.on("slow", "0.05")
    running = await client.submit(steps=20, timeout=30)
    waiting = await client.submit(steps=2, timeout=30)
    async with client.stream(running) as source:
        events = aiter(source)
        while (await anext(events)).event != "progress":
            pass
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86_400)
        names = [event.event async for event in events]
    assert names[-2:] == ["complete", "message"]
    faults.off("slow")
    view = await client.ended(waiting)
    assert view["state"] == "completed"
    assert (await client.http.get(f"/v1/jobs/{before}/image")).status_code == 200
    assert (await client.ended(await client.submit(steps=1)))["state"] == "completed"
    assert (await client.http.get("/ready")).status_code == 200
