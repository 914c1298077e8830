"""`jobs.runner`: jobs that need no engine, done as tasks, stopped and left to the next run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.runner import ErrandError, Runner
from tests.conftest import eventually
from tests.unit.conftest import bodies, names, order, quick_order


class Held:
    """An errand that goes on until it is let go of; it counts those that were begun and cancelled."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.begun = 0
        self.cancelled = 0

    async def __call__(self, job: Job) -> dict[str, Any]:
        """See `Errand`."""
        self.begun += 1
        job.emit("narration", text="begun")
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"done": True}


async def accepted(registry: JobRegistry) -> Job:
    """A job that is on disk."""
    job = registry.accept(quick_order())
    await registry.stored(job)
    return job


def failing(error: Exception) -> Callable[[Job], Awaitable[dict[str, Any]]]:
    """An errand that raises."""

    async def fail(_: Job) -> dict[str, Any]:
        raise error

    return fail


async def test_an_errand_is_running_while_it_is_done_and_its_result_completes_the_job(registry: JobRegistry) -> None:
    held = Held()
    Runner(registry, {"status": held})
    job = await accepted(registry)
    assert job.state is State.QUEUED
    await eventually(lambda: job.state is State.RUNNING)
    assert registry.counts()["running"] == 1
    held.may_end.set()
    await eventually(lambda: job.state is State.COMPLETED)
    assert names(job) == ["queued", "narration", "complete"]
    assert bodies(job, "complete")[0]["result"] == {"done": True}


async def test_a_cancelled_job_ends_its_errand(registry: JobRegistry) -> None:
    held = Held()
    Runner(registry, {"status": held})
    job = await accepted(registry)
    await eventually(lambda: held.begun)
    registry.cancel(job, "requested")
    await eventually(lambda: held.cancelled)
    assert names(job)[-1] == "cancelled"
    assert registry.counts() == {"queued": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 1}


async def test_a_job_that_was_cancelled_before_its_errand_begins_is_never_begun(registry: JobRegistry) -> None:
    held = Held()
    Runner(registry, {"status": held})
    job = await accepted(registry)
    registry.cancel(job, "requested")
    other = await accepted(registry)
    await eventually(lambda: other.state is State.RUNNING)
    assert held.begun == 1


async def test_what_an_errand_cannot_do_is_told_and_a_defect_is_not(registry: JobRegistry) -> None:
    Runner(registry, {"status": failing(ErrandError("model_in_use", "busy"))})
    job = await accepted(registry)
    await eventually(lambda: job.state is State.FAILED)
    assert job.error == {"code": "model_in_use", "message": "busy"}


async def test_a_defect_ends_the_job_without_its_traceback(registry: JobRegistry) -> None:
    Runner(registry, {"status": failing(OSError("/etc/secret"))})
    job = await accepted(registry)
    await eventually(lambda: job.state is State.FAILED)
    assert job.error is not None
    assert job.error["code"] == "internal_error"
    assert "secret" not in job.error["message"]


async def test_a_runner_that_closes_leaves_its_jobs_alive_and_begins_no_more(registry: JobRegistry) -> None:
    held = Held()
    runner = Runner(registry, {"status": held})
    job = await accepted(registry)
    await eventually(lambda: held.begun)
    await runner.close()
    await runner.close()
    assert (held.cancelled, job.state) == (1, State.RUNNING)
    late = await accepted(registry)
    registry.suspend(job)
    registry.suspend(late)
    assert names(job)[-1] == "narration"
    assert job.log.closed
    assert held.begun == 1


async def test_what_is_not_done_again_is_ended_by_the_end_of_the_worker_or_at_its_next_start(
    registry: JobRegistry,
) -> None:
    held = Held()
    left = await accepted(registry)
    runner = Runner(registry, {"status": held}, once=("status",))
    runner.resume()
    job = await accepted(registry)
    await eventually(lambda: held.begun)
    await runner.close()
    for each in (left, job):
        assert each.state is State.FAILED
        assert each.error is not None
        assert each.error["code"] == "interrupted"
        assert "send it again" in each.error["message"]
    assert (held.begun, held.cancelled) == (1, 1)


async def test_jobs_for_the_engine_are_left_to_the_dispatcher(registry: JobRegistry) -> None:
    held = Held()
    Runner(registry, {"status": held, "image_generation": held})
    image = registry.accept(order())
    await registry.stored(image)
    quick = await accepted(registry)
    await eventually(lambda: quick.state is State.RUNNING)
    assert (image.state, held.begun) == (State.QUEUED, 1)
