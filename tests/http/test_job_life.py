"""A job from its acceptance to its image, over real sockets."""

from __future__ import annotations

from tests.conftest import Client


async def test_a_job_streams_every_step_then_its_image_then_done(client: Client) -> None:
    job_id = await client.submit(steps=7, seed=5)
    events = await client.events(job_id)
    names = [event.event for event in events]
    assert names[0] == "queued"
    assert names.count("progress") == 7
    assert names[-2:] == ["complete", "message"]
    assert events[-1].data == "[DONE]"
    assert [int(event.id) for event in events[:-1]] == list(range(1, len(events)))
