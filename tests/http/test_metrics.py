"""`/metrics`: Prometheus' own parser reads it, and the numbers are those of what has happened."""

from __future__ import annotations

import os
import signal
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import listening, running
from tests.http.wire import request

Numbers = dict[str, float]


async def numbers(client: Client) -> Numbers:
    """Every sample by its name and labels, as `name{label=value}`."""
    answer = await client.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def test_numbers_follow_the_jobs(server: Server, client: Client) -> None:
    await client.ready()
    for _ in range(3):
        await client.ended(await client.submit(steps=4))
    told = await numbers(client)
    assert told["rbee_sd_jobs_ended_total{operation=image_generation,state=completed}"] == 3
    assert told["rbee_sd_jobs{state=completed}"] == 3
    assert told["rbee_sd_jobs{state=queued}"] == told["rbee_sd_queue_waiting{}"] == 0
    assert told["rbee_sd_queue_size{}"] == 64
    assert told["rbee_sd_queue_wait_seconds_count{}"] == 3
    assert told["rbee_sd_run_seconds_count{operation=image_generation}"] == 3
    assert told["rbee_sd_images_bytes{}"] == sum(
        path.stat().st_size for path in (server.store.path.parent / "images").glob("*/*.png")
    )
    assert told["rbee_sd_database_bytes{}"] > 4096
    assert told["rbee_sd_ready{}"] == 1
    assert told["rbee_sd_device_memory_bytes{}"] == 0
    assert (await eventually(lambda: server.worker.pulse.forwards == 12)) is True
    told = await numbers(client)
    assert (told["rbee_sd_forwards_total{}"], told["rbee_sd_rows_total{}"]) == (12, 24)
    assert 0 < told["rbee_sd_model_seconds_total{}"] <= told["rbee_sd_engine_busy_seconds_total{}"]


async def test_memory_of_both_processes_is_told(server: Server, client: Client) -> None:
    await client.ready()
    told = await numbers(client)
    for process in ("front", "engine"):
        assert told[f"rbee_sd_{process}_process_resident_memory_bytes{{}}"] > 10_000_000
        assert told[f"rbee_sd_{process}_process_open_fds{{}}"] > 3


@pytest.mark.faults({"slow": "0.02"})
async def test_steps_that_a_cancellation_saved_are_counted(client: Client) -> None:
    runs, waits = await client.submit(steps=100), await client.submit(steps=30)
    await running(client, runs)
    await client.http.delete(f"/v1/jobs/{waits}")
    assert (await numbers(client))["rbee_sd_steps_saved_total{}"] == 30
    await client.http.delete(f"/v1/jobs/{runs}")
    view = await client.ended(runs)
    assert (await numbers(client))["rbee_sd_steps_saved_total{}"] == 130 - view["step"]


async def test_deaths_of_the_engine_are_counted_by_cause_and_its_work_goes_on_being_summed(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    await client.ended(await client.submit(steps=4))
    await eventually(lambda: server.worker.pulse.forwards == 4)
    os.kill(server.worker.pid or 0, signal.SIGKILL)
    await eventually(lambda: server.worker.pid is None or server.worker.starts == 2)
    await client.ready()
    await client.ended(await client.submit(steps=3))
    await eventually(lambda: server.worker.pulse.forwards == 3)
    told = await numbers(client)
    assert told["rbee_sd_engine_deaths_total{cause=crashed}"] == 1
    assert told["rbee_sd_forwards_total{}"] == 7


@pytest.mark.settings(listener_timeout=0.3)
async def test_listeners_are_counted_and_those_that_do_not_read_too(
    server: Server, client: Client, dial: Dial, faults: Faults
) -> None:
    # Else the job could wait for the engine longer than it waits for its listener to come back.
    await client.ready()
    faults.on("hang")
    job_id = await client.submit(steps=2)
    async with listening(client, job_id):
        assert (await numbers(client))["rbee_sd_listeners{}"] == 1
    await running(client, job_id)
    wire = await dial(server, receive_buffer=4096)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    await eventually(lambda: server.watcher.total == 1)
    faults.on("spam")
    faults.off("hang")
    await eventually(lambda: server.watcher.total == 0)
    faults.off("spam")
    told = await numbers(client)
    assert (told["rbee_sd_listeners{}"], told["rbee_sd_listeners_dropped_total{}"]) == (0, 1)


async def test_a_loop_that_is_held_up_shows(client: Client) -> None:
    await client.ready()
    before = (await numbers(client))["rbee_sd_loop_lag_seconds_sum{}"]
    time.sleep(1.2)  # noqa: ASYNC251

    async def late() -> bool:
        return (await numbers(client))["rbee_sd_loop_lag_seconds_sum{}"] - before > 0.5

    await eventually(late)


@pytest.mark.settings(api_key="secret")
async def test_the_key_is_wanted_here_too(client: Client) -> None:
    assert (await client.http.get("/metrics")).status_code == 401
    assert (await client.http.get("/metrics", headers={"Authorization": "Bearer secret"})).status_code == 200
