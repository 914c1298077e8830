"""A disk that fails under the running front: for real, by a limit on the size of its files, changed from outside."""

from __future__ import annotations

import resource
from collections.abc import Callable

import psutil
import pytest

from tests.conftest import Client, Faults, eventually
from tests.process.conftest import StartWorker, WorkerProcess

Full = Callable[[bool], None]


def disk_of(worker: WorkerProcess) -> Full:
    """Switch a worker's disk to full and back: its front can make no file longer."""
    front = psutil.Process(worker.process.pid)
    _, most = front.rlimit(resource.RLIMIT_FSIZE)

    def switch(full: bool) -> None:
        # The log is a pipe. What files there are may be read.
        front.rlimit(resource.RLIMIT_FSIZE, (0 if full else most, most))

    return switch


async def test_with_a_full_disk_jobs_are_refused_and_accepted_again_when_there_is_room(
    start_worker: StartWorker,
) -> None:
    worker, client = start_worker()
    await client.ready()
    await client.ended(await client.submit(steps=2))
    full = disk_of(worker)
    full(True)
    answer = await client.http.post("/v1/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert answer.headers["Retry-After"]
    assert "job_id" not in answer.text
    assert "/" not in answer.json()["error"]["message"]
    assert (await client.http.get("/health", timeout=1)).status_code == 200
    # What is there can be read.
    assert len((await client.http.get("/v1/jobs")).json()["jobs"]) == 1
    full(False)
    answer = await client.http.post("/v1/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 200
    assert (await client.ended(answer.json()["job_id"]))["state"] == "completed"
    assert len((await client.http.get("/v1/jobs")).json()["jobs"]) == 2


@pytest.mark.parametrize("waiting", [0, 2])
async def test_a_job_whose_images_cannot_be_stored_says_so_and_the_worker_recovers(
    start_worker: StartWorker, faults: Faults, waiting: int
) -> None:
    worker, client = start_worker()
    await client.ready()
    faults.on("slow", "0.1")
    job_id = await client.submit(steps=10)
    others = [await client.submit(steps=1) for _ in range(waiting)]
    await eventually(lambda: running(client, job_id))
    full = disk_of(worker)
    full(True)
    events = await client.events(job_id)
    assert [event.event for event in events[-2:]] == ["error", "message"]
    assert "storage_failed" in events[-2].data
    faults.off("slow")
    full(False)
    for other in others:
        assert (await client.ended(other))["state"] == "completed"
    assert (await client.ended(await client.submit(steps=2)))["state"] == "completed"

    async def noted() -> bool:
        listed = (await client.http.get("/v1/jobs", params={"state": "failed"})).json()["jobs"]
        return [job["job_id"] for job in listed] == [job_id]

    await eventually(noted)
    await eventually(lambda: "its end is not on disk yet" in worker.log)


async def running(client: Client, job_id: str) -> bool:
    """Whether a job is at its first step or later."""
    return int((await client.job(job_id))["step"]) > 0
