"""Many jobs at once on a live worker with the demo model."""

from __future__ import annotations

import asyncio
from collections import Counter

from rbee_sd.client import AsyncClient
from rbee_sd.smoke.png import size_of
from tests.e2e.conftest import LiveWorker

JOBS = 10


async def test_ten_concurrent_jobs_each_deliver_their_steps_and_one_image(live_worker: LiveWorker) -> None:
    async with AsyncClient(live_worker.url) as client:

        async def one(number: int) -> tuple[int, Counter[str], bytes]:
            steps = 5 + number
            job = await client.submit(prompt=f"picture {number}", steps=steps, seed=number)
            names: Counter[str] = Counter()
            async for event in client.stream(job.job_id):
                names[event.name] += 1
            return steps, names, await client.image(job.job_id)

        ended = await asyncio.gather(*map(one, range(JOBS)))
    for steps, names, image in ended:
        assert names["progress"] == steps
        assert (names["complete"], names["error"], names["cancelled"]) == (1, 0, 0)
        assert size_of(image) == (128, 128)
    assert len({image for _, _, image in ended}) == JOBS
