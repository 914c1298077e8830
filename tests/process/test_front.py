"""The front as a process: signals, double starts, its own death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Client, Faults, eventually
from tests.process.conftest import StartWorker


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of the processes is left."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def busy(client: Client, faults: Faults, **fields: Any) -> str:
    """A job that is in the engine, at its first step or later."""
    await client.ready()
    faults.on("slow", "0.1")
    job_id = await client.submit(**fields)

    async def stepping() -> bool:
        return int((await client.job(job_id))["step"]) > 0

    await eventually(stepping)
    return job_id


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_an_idle_worker_ends_it_within_two_seconds_with_status_0(
    start_worker: StartWorker, number: signal.Signals
) -> None:
    worker, client = start_worker()
    await client.ready()
    children = worker.children()
    begun = time.monotonic()
    worker.signal(number)
    assert worker.wait() == 0, worker.log
    assert time.monotonic() - begun < 2
    await eventually(lambda: gone(children))


async def test_a_signal_while_the_model_loads_ends_the_worker_at_once(
    start_worker: StartWorker, faults: Faults
) -> None:
    faults.on("slow-start", "60")
    worker, _ = start_worker()
    begun = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log
    assert time.monotonic() - begun < 2


async def test_sigterm_lets_the_accepted_jobs_finish_and_their_listeners_hear_it(
    start_worker: StartWorker, faults: Faults
) -> None:
    worker, client = start_worker()
    running = await busy(client, faults, steps=8)
    waiting = await client.submit(steps=2)
    async with client.stream(running) as first, client.stream(waiting) as second:
        worker.signal(signal.SIGTERM)
        for source in (first, second):
            events = [event async for event in source if event.data]
            assert [event.event for event in events[-2:]] == ["complete", "message"]
    assert worker.wait() == 0, worker.log


async def test_a_draining_worker_says_so_on_open_connections_and_takes_no_jobs(
    start_worker: StartWorker, faults: Faults
) -> None:
    worker, client = start_worker()
    await busy(client, faults, steps=30)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: "draining" in worker.log)
    answer = await client.http.get("/ready")
    assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
    refused = await client.http.post("/v1/jobs", json={"prompt": "late"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert refused.headers["Retry-After"]


async def test_jobs_that_outlast_the_drain_go_on_after_the_next_start(
    start_worker: StartWorker, faults: Faults, tmp_path: Path
) -> None:
    worker, client = start_worker(drain_timeout=0.3)
    job_id = await busy(client, faults, steps=100)
    async with client.stream(job_id) as source:
        worker.signal(signal.SIGTERM)
        events = [event async for event in source if event.data]
    assert "started again" in json.loads(events[-1].data)["text"]
    assert worker.wait() == 0, worker.log
    faults.off("slow")
    _, again = start_worker(state_dir=tmp_path / "state0")
    assert (await again.ended(job_id))["state"] == "completed"


async def test_a_second_signal_skips_the_draining(start_worker: StartWorker, faults: Faults) -> None:
    worker, client = start_worker(drain_timeout=60)
    await busy(client, faults, steps=150)
    children = worker.children()
    worker.signal(signal.SIGTERM)
    await eventually(lambda: "draining" in worker.log)
    begun = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log
    assert time.monotonic() - begun < 2.5
    await eventually(lambda: gone(children))


async def test_a_worker_with_a_stopped_engine_ends_within_two_seconds(start_worker: StartWorker) -> None:
    worker, client = start_worker()
    await client.ready()
    psutil.Process(await engine_pid(client)).send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log
    assert time.monotonic() - begun < 2.5


async def test_ctrl_c_to_the_whole_group_drains_like_sigterm(start_worker: StartWorker, faults: Faults) -> None:
    worker, client = start_worker()
    job_id = await busy(client, faults, steps=8)
    async with client.stream(job_id) as source:
        os.killpg(worker.process.pid, signal.SIGINT)
        events = [event async for event in source if event.data]
    assert events[-2].event == "complete"
    assert worker.wait() == 0, worker.log


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_killed_front_takes_its_engine_along_within_a_second(
    start_worker: StartWorker, faults: Faults, stopped: bool
) -> None:
    worker, client = start_worker()
    await busy(client, faults, steps=100)
    children = worker.children()
    engine = psutil.Process(await engine_pid(client))
    if stopped:
        engine.send_signal(signal.SIGSTOP)
    worker.signal(signal.SIGKILL)
    worker.wait()
    await eventually(lambda: gone([engine]), timeout=1)
    await eventually(lambda: gone(children))


async def engine_pid(client: Client) -> int:
    """Process id of the worker's engine."""
    answer = await client.http.post("/v1/jobs", json={"operation": "status"})
    pid: int = (await client.ended(answer.json()["job_id"]))["result"]["engine"]["pid"]
    return pid


def serve(*arguments: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """A `serve` that is expected to end by itself; `shell` is done before, in the same process."""
    command = ["sh", "-c", f'{shell} exec "$@"', "sh", sys.executable, "-m", "rbee_sd", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def test_a_second_worker_on_the_same_port_says_so_and_leaves_the_first_alone(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker, client = start_worker()
    port = worker.url.rpartition(":")[2]
    second = serve("--port", port, "--state-dir", str(tmp_path / "other"))
    assert second.returncode == 2
    assert (
        second.stderr.strip()
        .splitlines()[-1]
        .endswith(f"port {port} of 127.0.0.1 is in use; is another worker running?")
    )
    assert (await client.ended(await client.submit(steps=2)))["state"] == "completed"


async def test_a_second_worker_on_the_same_state_folder_says_so_and_leaves_the_first_alone(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    _, client = start_worker()
    job_id = await client.submit(steps=2)
    await client.ended(job_id)
    second = serve("--port", "0", "--state-dir", str(tmp_path / "state0"))
    assert second.returncode == 2
    assert "in use by another worker" in second.stderr
    assert (await client.http.get(f"/v1/jobs/{job_id}/image")).status_code == 200


def test_a_state_folder_that_cannot_be_made_is_one_clear_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_refused_in_one_line(serve("--port", "0", "--state-dir", str(tmp_path / "file" / "state")))


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that not even root can write to")
def test_a_state_folder_that_cannot_be_written_is_one_clear_line_and_status_2() -> None:
    assert_refused_in_one_line(serve("--port", "0", "--state-dir", "/proc"))


async def test_a_disk_that_is_full_at_the_start_is_one_clear_line_and_status_2_and_nothing_is_lost(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    state, full = tmp_path / "state", "ulimit -f 0 &&"
    assert_refused_in_one_line(serve("--port", "0", "--state-dir", str(state), shell=full))
    worker, client = start_worker(state_dir=state)
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert_refused_in_one_line(serve("--port", "0", "--state-dir", str(state), shell=full))
    _, client = start_worker(state_dir=state)
    assert (await client.job(job_id))["state"] == "completed"


def assert_refused_in_one_line(ended: subprocess.CompletedProcess[str]) -> None:
    """A start that failed, with one sentence that says why."""
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert "Traceback" not in ended.stderr


async def test_nothing_is_left_over_after_many_rounds_of_jobs_and_listeners(
    start_worker: StartWorker,
) -> None:
    worker, client = start_worker(disconnect_grace=0)
    front = psutil.Process(worker.process.pid)

    async def a_round() -> None:
        for _ in range(5):
            await client.events(await client.submit(steps=2))
        async with client.stream(await client.submit(steps=2)):
            pass
        await client.http.get("/v1/jobs/job_unknown")

    await client.ready()
    await a_round()
    files, threads, children = front.num_fds(), front.num_threads(), len(worker.children())
    for _ in range(10):
        await a_round()
    # Fewer is well: a connection that was open at first may have been idle for too long since.
    await eventually(lambda: front.num_fds() <= files)
    await eventually(lambda: front.num_threads() <= threads)
    assert len(worker.children()) == children


def test_serve_that_fails_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By what they inherit: other tests may run beside this one, with workers of their own.
    monkeypatch.setenv("MARK_OF_THIS_TEST", str(tmp_path))
    assert serve("--host", "203.0.113.7", "--no-auth", "--state-dir", str(tmp_path)).returncode == 2
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MARK_OF_THIS_TEST") == str(tmp_path):
                left.append(process.pid)
    assert left == []


async def test_a_log_that_nobody_reads_holds_nobody_up(tmp_path: Path, faults: Faults) -> None:
    arguments = ["--port", "0", "--state-dir", str(tmp_path / "state"), "--fake-pipeline", str(faults.folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "rbee_sd", "serve", *arguments], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stderr is not None
    client = Client(process.stderr.readline().partition("listens on ")[2].partition(",")[0])
    try:
        # From here on nobody reads. A pipe holds 64 KiB, which is some 500 access lines.
        for _ in range(2000):
            assert (await client.http.get("/health", timeout=5)).status_code == 200
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None)
    finally:
        await client.http.aclose()
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == 0


async def test_a_group_that_was_stopped_goes_on_and_nothing_has_timed_out_meanwhile(
    start_worker: StartWorker, faults: Faults
) -> None:
    worker, client = start_worker(step_timeout=1.5, disconnect_grace=5)
    await client.ready()
    faults.on("slow", "0.05")
    job_id = await client.submit(steps=20, timeout=2)
    async with client.stream(job_id) as source:
        os.killpg(worker.process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        await eventually(lambda: time.monotonic() - stopped > 3)
        os.killpg(worker.process.pid, signal.SIGCONT)
        events = [event async for event in source if event.data]
    assert events[-2].event == "complete"
    job = await client.job(job_id)
    assert (job["state"], job["attempt"]) == ("completed", 1)
