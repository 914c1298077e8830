"""The front is killed and started again: what was acknowledged runs, and what has ended is still there."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from rbee_sd.jobs.records import RUN
from tests.conftest import Client, Faults, eventually
from tests.process.conftest import StartWorker, WorkerProcess


def kill(worker: WorkerProcess) -> None:
    """End the front as the kernel does it."""
    worker.signal(signal.SIGKILL)
    worker.wait()


async def stepping(client: Client, job_id: str) -> None:
    """Wait until a job is at its first step or later."""

    async def check() -> bool:
        return int((await client.job(job_id))["step"]) > 0

    await eventually(check)


def data(event: httpx2.ServerSentEvent) -> dict[str, Any]:
    """What an event says."""
    body: dict[str, Any] = json.loads(event.data)
    return body


async def listed(client: Client, state: str = "") -> list[str]:
    """The ids of all jobs in a state, newest first."""
    ids: list[str] = []
    before: str | None = ""
    while before is not None:
        page = (await client.http.get("/v1/jobs", params={"state": state, "limit": 2, "before": before})).json()
        ids += [job["job_id"] for job in page["jobs"]]
        before = page["next"]
    return ids


async def test_running_and_waiting_jobs_go_on_in_their_order_after_a_kill(
    start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    worker, client = start_worker()
    await client.ready()
    done = await client.submit(steps=2, seed=3)
    picture = data((await client.events(done))[-2])["image_base64"]
    faults.on("slow", "0.1")
    running = await client.submit(steps=30, seed=3)
    await stepping(client, running)
    waiting = [await client.submit(steps=2, seed=3) for _ in range(4)]
    seen: list[Any] = []
    async with client.stream(running) as source:
        async for event in source:
            seen += [event] if event.data else []
            if event.event == "progress":
                break
    kill(worker)
    faults.off("slow")
    worker, again = start_worker(state_dir=tmp_path / "state0")
    rest = await again.events(running, headers={"Last-Event-ID": seen[-1].id})
    assert [event.event for event in rest][-2:] == ["complete", "message"]
    numbers = [int(event.id) for event in [*seen, *rest[:-1]]]
    assert numbers == sorted(set(numbers))
    assert int(rest[0].id) > RUN
    assert [data(event)["step"] for event in rest if event.event == "progress"] == list(range(1, 31))
    jobs = [await again.ended(job_id) for job_id in (running, *waiting)]
    assert [job["state"] for job in jobs] == ["completed"] * 5
    assert [job["attempt"] for job in jobs] == [2, 1, 1, 1, 1]
    order = sorted(jobs, key=lambda job: float(job["started_at"]))
    assert [job["job_id"] for job in order] == [running, *waiting]
    # The same seed, the same image, before and after.
    assert data((await again.events(waiting[0]))[-2])["image_base64"] == picture


async def test_a_thumbnail_is_there_after_a_kill_counts_as_bytes_and_is_deleted_with_its_job(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker, client = start_worker()
    await client.ready()
    job_id = await client.submit(steps=1, width=512, height=512)
    await client.ended(job_id)
    path = f"/v1/jobs/{job_id}/images/0"
    image, small = await client.http.get(path), await client.http.get(f"{path}?thumbnail=true")
    kill(worker)
    _, again = start_worker(state_dir=tmp_path / "state0")
    answer = await again.http.get(f"{path}?thumbnail=true")
    assert (answer.content, answer.headers["etag"]) == (small.content, small.headers["etag"])
    metrics = (await again.http.get("/metrics")).text
    assert f"rbee_sd_images_bytes {len(image.content) + len(small.content)}.0" in metrics
    await again.http.delete(f"/v1/jobs/{job_id}?forget=true")
    assert (await again.http.get(f"{path}?thumbnail=true")).status_code == 410
    await eventually(lambda: not list((tmp_path / "state0" / "images").iterdir()))


async def test_what_has_ended_before_a_kill_is_told_as_before(
    start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    worker, client = start_worker()
    await client.ready()
    done = await client.submit(steps=3)
    told = [(event.id, event.event, event.data) for event in await client.events(done)]
    faults.on("hang")
    refused = await client.submit(steps=2)
    assert (await client.http.delete(f"/v1/jobs/{refused}")).json()["state"] == "cancelled"
    before = [await client.job(job_id) for job_id in (done, refused)]
    image = await client.http.get(f"/v1/jobs/{done}/image")
    kill(worker)
    faults.off("hang")
    _, again = start_worker(state_dir=tmp_path / "state0")
    assert [(event.id, event.event, event.data) for event in await again.events(done)] == told
    assert [await again.job(job_id) for job_id in (done, refused)] == before
    answer = await again.http.get(f"/v1/jobs/{done}/image")
    assert (answer.content, answer.headers["etag"]) == (image.content, image.headers["etag"])
    seen = await again.http.get(f"/v1/jobs/{done}/stream", headers={"Last-Event-ID": told[-2][0]})
    assert seen.status_code == 204
    assert await listed(again) == [refused, done]
    assert await listed(again, "completed") == [done]
    assert (await again.http.delete(f"/v1/jobs/{done}")).json()["state"] == "completed"
    assert (await again.ended(await again.submit(steps=2)))["state"] == "completed"


async def test_an_idempotency_key_makes_no_second_job_after_a_kill(
    start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    worker, client = start_worker()
    await client.ready()
    faults.on("hang")
    headers = {"Idempotency-Key": "order-7"}
    first = (await client.http.post("/v1/jobs", json={"prompt": "a"}, headers=headers)).json()
    kill(worker)
    faults.off("hang")
    _, again = start_worker(state_dir=tmp_path / "state0")
    repeated = (await again.http.post("/v1/jobs", json={"prompt": "a"}, headers=headers)).json()
    assert (repeated["job_id"], repeated["seed"]) == (first["job_id"], first["seed"])
    other = await again.http.post("/v1/jobs", json={"prompt": "b"}, headers=headers)
    assert other.status_code == 409
    assert len(await listed(again)) == 1


async def test_a_job_with_which_the_front_dies_twice_is_not_tried_a_third_time(
    start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    faults.on("slow", "0.1")
    worker, client = start_worker()
    job_id = await client.submit(steps=100)
    await stepping(client, job_id)
    kill(worker)
    worker, client = start_worker(state_dir=tmp_path / "state0")
    await stepping(client, job_id)
    kill(worker)
    _, client = start_worker(state_dir=tmp_path / "state0")
    events = await client.events(job_id)
    assert data(events[-2])["code"] == "interrupted"
    faults.off("slow")
    assert (await client.ended(await client.submit(steps=2)))["state"] == "completed"


async def test_nothing_acknowledged_is_lost_whenever_the_front_is_killed(
    start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    chance = random.Random(5)
    state = tmp_path / "state"
    acknowledged: list[str] = []
    for _ in range(4):
        worker, client = start_worker(state_dir=state)
        killer = [2 + chance.randrange(8)]
        while killer[0]:
            acknowledged.append(await client.submit(steps=1 + chance.randrange(3)))
            killer[0] -= 1
        kill(worker)
    _, client = start_worker(state_dir=state)
    jobs = [await client.ended(job_id) for job_id in acknowledged]
    assert {job["state"] for job in jobs} <= {"completed", "failed"}
    # One is tried twice at most, and that is the only way to fail here.
    assert all(job["attempt"] == 2 for job in jobs if job["state"] == "failed")
    assert await listed(client) == acknowledged[::-1]
    for job_id in acknowledged:
        names = [event.event for event in await client.events(job_id)]
        assert len([name for name in names if name in ("complete", "error", "cancelled")]) == 1


async def test_a_database_that_cannot_be_used_is_one_clear_line_and_status_2(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker, client = start_worker()
    await client.submit(steps=1)
    kill(worker)
    path = tmp_path / "state0" / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    command = [sys.executable, "-m", "rbee_sd", "serve", "--port", "0", "--state-dir", str(path.parent)]
    # This process waits; so does its loop, which nothing else uses meanwhile.
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: ASYNC221
    assert ended.returncode == 2
    assert "newer rbee-sd" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert path.read_bytes() == before
    os.unlink(path)
