"""`jobs.dispatcher`: between the queue and an engine whose part the test plays."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rbee_sd.jobs import dispatcher as dispatcher_module
from rbee_sd.jobs.dispatcher import Dispatcher
from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.messages import Cancelled, Failed, Finished, Generate, Narration, Preview, Progress, Pulse, Started
from tests.conftest import eventually
from tests.unit.conftest import PromptStore, ScriptedSeats, bodies, names, order, quick_order, seeded, terminal_events


class Bench:
    """A registry, a dispatcher and an engine that does what the test says."""

    def __init__(self, registry: JobRegistry, dispatcher: Dispatcher, seats: ScriptedSeats, folder: Path) -> None:
        self.registry, self.dispatcher, self.seats, self.folder = registry, dispatcher, seats, folder

    def accept(self, **changes: Any) -> Job:
        """A job, as the desk takes it in."""
        return self.registry.accept(order(**changes))

    def job(self, job_id: str) -> Job:
        """A job by its id."""
        job = self.registry.find(job_id)
        assert job is not None
        return job

    async def running(self, **changes: Any) -> Job:
        """A job the engine has."""
        job = self.accept(**changes)
        await asyncio.sleep(0)
        assert job.id in self.seats.running
        return job

    async def begun(self, **changes: Any) -> Job:
        """A job the engine has begun."""
        job = await self.running(**changes)
        self.dispatcher.said(Started(job.id, 2, 64, 64, 7.5, "euler"))
        return job

    def finish(self, job: Job, images: tuple[bytes, ...] = (b"png",)) -> None:
        """The engine has finished a job."""
        self.seats.end(self.dispatcher, Finished(job.id, images))

    def cancelled(self, job: Job) -> None:
        """The engine has let a job go."""
        self.seats.end(self.dispatcher, Cancelled(job.id, job.step))

    def die(self) -> None:
        """The engine dies with what it has, and takes none until it is back."""
        lost, self.seats.running = self.seats.running, []
        self.seats.capacity = 0
        self.dispatcher.lost(lost, "engine_crashed")

    def revive(self, capacity: int = 1) -> None:
        """Another engine is ready."""
        self.seats.capacity = capacity
        self.dispatcher.ready()

    async def disk_is_quiet(self) -> None:
        """Wait until what was to be written, and then deleted, is: saves of ours queue behind it on the one thread."""
        await asyncio.sleep(0)
        for number in range(3):
            await self.registry.images.save(f"job_barrier{number}", ())
        for number in range(3):
            (self.folder / f"job_barrier{number}").rmdir()

    def files(self) -> list[str]:
        """Names in the folder of images."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def bench(registry: JobRegistry, dispatcher: Dispatcher, seats: ScriptedSeats, tmp_path: Path) -> Bench:
    """An engine for one job at a time."""
    return Bench(registry, dispatcher, seats, tmp_path / "images")


async def test_a_job_goes_from_the_queue_to_its_images(bench: Bench) -> None:
    job = bench.accept()
    # The answer to the client still says `queued`.
    assert job.state is State.QUEUED
    assert bench.seats.running == []
    await eventually(lambda: job.state is State.RUNNING)
    bench.dispatcher.said(Started(job.id, 2, 64, 64, 7.5, "euler"))
    bench.dispatcher.said(Progress(job.id, 1, 2, time.time()))
    bench.dispatcher.said(Progress(job.id, 2, 2, time.time()))
    bench.finish(job)
    await eventually(lambda: job.state is State.COMPLETED)
    assert names(job) == ["queued", "started", "progress", "progress", "complete"]
    assert len(job.files) == 1
    assert bench.files() == [job.id]


async def test_the_engine_gets_the_order_with_the_id_of_the_job(bench: Bench) -> None:
    job = await bench.running(prompt="a blue square", owner="192.0.2.1", priority=3)
    (work,) = bench.seats.submitted
    assert (work.job_id, work.prompt, work.owner, work.priority) == (job.id, "a blue square", "192.0.2.1", 3)
    assert job.order.work is not None
    assert job.order.work.job_id == ""


async def test_jobs_run_one_after_the_other_in_their_order(bench: Bench) -> None:
    jobs = [bench.accept() for _ in range(5)]
    ran = []
    for _ in jobs:
        await eventually(lambda: bench.seats.running)
        (job_id,) = bench.seats.running
        ran.append(job_id)
        job = bench.job(job_id)
        bench.finish(job)
        await eventually(lambda job=job: job.state is State.COMPLETED)  # type: ignore[misc]
    assert ran == [job.id for job in jobs]


async def test_a_higher_priority_overtakes_those_that_wait(bench: Bench) -> None:
    bench.seats.capacity = 0
    second, urgent = bench.accept(), bench.accept(priority=1)
    bench.revive()
    assert bench.seats.running == [urgent.id]
    assert second.state is State.QUEUED


async def test_a_higher_priority_reaches_an_engine_whose_places_are_taken(bench: Bench) -> None:
    first, second = await bench.begun(), bench.accept()
    urgent = await bench.running(priority=1)
    # The engine parks the first; to its client it runs on.
    assert bench.seats.running == [first.id, urgent.id]
    assert first.state is State.RUNNING
    assert second.state is State.QUEUED
    bench.finish(urgent)
    assert bench.seats.running == [first.id]
    bench.finish(first)
    assert bench.seats.running == [second.id]


async def test_twice_as_many_jobs_as_places_reach_the_engine_at_most(bench: Bench) -> None:
    bench.seats.capacity = 3
    for _ in range(3):
        await bench.running()
    raised = [await bench.running(priority=1) for _ in range(3)]
    waiting = [bench.accept(priority=1), bench.accept(priority=2)]
    await asyncio.sleep(0)
    assert [job.state for job in waiting] == [State.QUEUED] * 2
    bench.finish(raised[0])
    assert waiting[1].state is State.RUNNING
    assert waiting[0].state is State.QUEUED


async def test_a_low_priority_takes_a_place_that_no_other_wants(bench: Bench) -> None:
    bench.seats.capacity = 2
    high, low = await bench.running(priority=5), await bench.running(priority=-5)
    assert bench.seats.running == [high.id, low.id]


async def test_clients_take_turns(bench: Bench) -> None:
    bench.seats.capacity = 0
    jobs = {who: bench.accept(owner=who[0]) for who in ("a1", "a2", "a3", "b1", "b2", "c1")}
    bench.revive()
    while bench.seats.running:
        bench.finish(bench.job(bench.seats.running[0]))
    who_of = {job.id: who for who, job in jobs.items()}
    assert [who_of[work.job_id] for work in bench.seats.submitted] == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_a_client_that_holds_all_places_does_not_keep_another_waiting(bench: Bench) -> None:
    bench.seats.capacity = 2
    greedy = [bench.accept(owner="greedy") for _ in range(4)]
    await eventually(lambda: len(bench.seats.running) == 2)
    modest = [bench.accept(owner="modest") for _ in range(2)]
    await eventually(lambda: modest[0].state is State.RUNNING)
    # One place beyond the capacity, not two; and none more for who has had his share.
    assert [job.state for job in (*greedy, modest[1])] == [State.RUNNING] * 2 + [State.QUEUED] * 3
    bench.finish(greedy[0])
    assert greedy[2].id not in bench.seats.running
    bench.finish(greedy[1])
    assert greedy[2].id in bench.seats.running


async def test_as_many_jobs_run_as_there_are_seats(bench: Bench) -> None:
    bench.seats.capacity = 3
    jobs = [bench.accept() for _ in range(5)]
    await eventually(lambda: len(bench.seats.running) == 3)
    assert [job.state for job in jobs] == [State.RUNNING] * 3 + [State.QUEUED] * 2
    bench.finish(jobs[1])
    assert bench.seats.running == [jobs[0].id, jobs[2].id, jobs[3].id]


async def test_jobs_wait_for_an_engine_that_is_not_ready(bench: Bench) -> None:
    bench.seats.capacity = 0
    job = bench.accept()
    bench.dispatcher.narrate("loading model demo")
    await asyncio.sleep(0)
    assert job.state is State.QUEUED
    bench.seats.capacity = 1
    bench.dispatcher.ready()
    assert bench.seats.running == [job.id]


async def test_what_the_engine_narrates_reaches_the_jobs_that_wait_and_those_that_come(bench: Bench) -> None:
    bench.seats.capacity = 0
    early = bench.accept()
    bench.dispatcher.said(Narration("loading model demo"))
    late = bench.accept()
    for job in (early, late):
        assert [body["text"] for body in bodies(job, "narration")] == ["loading model demo"]
    bench.dispatcher.said(Narration("moving it to the GPU"))
    latest = bench.accept()
    assert [body["text"] for body in bodies(latest, "narration")] == ["moving it to the GPU"]
    bench.dispatcher.ready()
    assert bodies(bench.accept(), "narration") == []


async def test_a_narration_about_one_job_reaches_only_that_job(bench: Bench) -> None:
    running, waiting = await bench.running(), bench.accept()
    bench.dispatcher.said(Narration("encoding the prompt", running.id))
    assert [body["text"] for body in bodies(running, "narration")] == ["encoding the prompt"]
    assert bodies(waiting, "narration") == []


async def test_a_job_that_has_ended_hears_nothing_more(bench: Bench) -> None:
    job = await bench.running()
    bench.registry.cancel(job, "requested")
    bench.dispatcher.narrate("something for everybody")
    for message in (
        Started(job.id, 2, 64, 64, 7.5, "euler"),
        Progress(job.id, 1, 2, time.time()),
        Narration("about it", job.id),
        Failed(job.id, "out_of_memory", "too late"),
        Finished(job.id, (b"late",)),
    ):
        bench.dispatcher.said(message)
    await bench.disk_is_quiet()
    assert names(job) == ["queued", "cancelled"]
    assert bench.files() == []


async def test_messages_about_unknown_jobs_are_ignored(bench: Bench) -> None:
    for job_id in ("job_unknown", "", "../job_x"):
        for message in (
            Started(job_id, 2, 64, 64, 7.5, "euler"),
            Progress(job_id, 1, 2, time.time()),
            Finished(job_id, (b"x",)),
            Failed(job_id, "out_of_memory", "x"),
            Cancelled(job_id, 0),
            Pulse(3),
        ):
            bench.dispatcher.said(message)
    await bench.disk_is_quiet()
    assert bench.files() == []


async def test_messages_about_a_job_that_waits_are_ignored(bench: Bench) -> None:
    await bench.running()
    waiting = bench.accept()
    bench.dispatcher.said(Finished(waiting.id, (b"x",)))
    bench.dispatcher.said(Failed(waiting.id, "out_of_memory", "x"))
    await bench.disk_is_quiet()
    assert names(waiting) == ["queued"]


async def test_the_place_of_a_cancelled_job_is_not_free_until_the_engine_says_so(bench: Bench) -> None:
    running, waiting = await bench.running(), bench.accept()
    bench.registry.cancel(running, "requested")
    assert bench.seats.cancelled == [running.id]
    bench.dispatcher.said(Progress(running.id, 1, 2, time.time()))
    bench.dispatcher.pump()
    assert waiting.state is State.QUEUED
    bench.cancelled(running)
    assert bench.seats.running == [waiting.id]
    assert terminal_events(running) == ["cancelled"]


async def test_cancelling_a_waiting_job_does_not_touch_the_engine(bench: Bench) -> None:
    running, waiting = await bench.running(), bench.accept()
    bench.registry.cancel(waiting, "requested")
    assert bench.seats.cancelled == []
    assert running.state is State.RUNNING
    bench.finish(running)
    await eventually(lambda: running.state is State.COMPLETED)
    assert len(bench.seats.submitted) == 1


async def test_a_job_that_runs_too_long_fails_and_its_place_stays_taken(bench: Bench) -> None:
    job = await bench.running(timeout=0.05)
    waiting = bench.accept()
    await eventually(lambda: job.state is State.FAILED)
    assert bodies(job, "error")[0]["code"] == "timeout"
    assert bench.seats.cancelled == [job.id]
    assert len(bench.registry.queue) == 1
    bench.cancelled(job)
    assert waiting.state is State.RUNNING
    assert terminal_events(job) == ["error"]


async def test_waiting_does_not_count_as_running(bench: Bench) -> None:
    running = await bench.running()
    waiting, limited = bench.accept(timeout=0.05), bench.accept(timeout=0.05)
    bench.finish(running)
    await eventually(lambda: waiting.state is State.FAILED)
    assert limited.state is State.QUEUED


async def test_a_job_that_ended_in_time_does_not_time_out_later(bench: Bench) -> None:
    job = await bench.running(timeout=0.05)
    bench.finish(job)
    witness = await bench.running(timeout=0.05)
    await eventually(lambda: witness.state is State.FAILED)
    assert names(job) == ["queued", "complete"]


async def test_a_job_the_engine_failed_says_why_and_the_next_one_runs(bench: Bench) -> None:
    job, waiting = await bench.running(), bench.accept()
    bench.seats.end(bench.dispatcher, Failed(job.id, "out_of_memory", "ask for less"))
    assert bench.registry.view(job)["error"] == {"code": "out_of_memory", "message": "ask for less"}
    assert bench.seats.running == [waiting.id]
    # It is out of the engine; there is nothing to cancel.
    assert bench.seats.cancelled == []


async def test_a_job_the_engine_cancelled_by_itself_is_cancelled(bench: Bench) -> None:
    job = await bench.running()
    bench.cancelled(job)
    assert job.state is State.CANCELLED


async def test_a_job_the_engine_died_with_begins_again_alone_in_its_old_place(bench: Bench) -> None:
    bench.seats.capacity = 2
    job, other = await bench.begun(), await bench.running()
    second = bench.accept()
    urgent = bench.accept(priority=1)
    bench.die()
    bench.dispatcher.lost(["job_unknown"], "engine_crashed")
    assert [each.state for each in (job, other)] == [State.QUEUED, State.QUEUED]
    assert [bench.registry.view(each)["position"] for each in (urgent, job, other, second)] == [0, 1, 2, 3]
    assert (job.step, job.total, bench.registry.view(job)["started_at"]) == (0, None, None)
    bench.revive(2)
    for turn in ([urgent], [job], [other], [second]):
        assert bench.seats.running == [each.id for each in turn]
        for each in turn:
            bench.finish(each)
    assert [each.attempt for each in (job, other, second)] == [2, 2, 1]
    await eventually(lambda: job.state is State.COMPLETED)
    assert names(job) == ["queued", "started", "narration", "complete"]
    assert "attempt 2" in bodies(job, "narration")[0]["text"]


async def test_of_those_the_engine_died_with_only_the_cause_fails(bench: Bench) -> None:
    bench.seats.capacity = 3
    jobs = [await bench.begun() for _ in range(3)]
    bench.die()
    bench.revive(3)
    assert bench.seats.running == [jobs[0].id]
    bench.finish(jobs[0])
    assert bench.seats.running == [jobs[1].id]
    bench.die()
    assert bodies(jobs[1], "error")[0]["code"] == "engine_crashed"
    bench.revive(3)
    bench.finish(jobs[2])
    await eventually(lambda: jobs[2].state.terminal)
    assert [job.state for job in jobs] == [State.COMPLETED, State.FAILED, State.COMPLETED]


async def test_no_job_keeps_one_that_is_tried_alone_company(bench: Bench) -> None:
    bench.seats.capacity = 3
    job = await bench.begun()
    bench.die()
    bench.revive(3)
    late = bench.accept(priority=1)
    await asyncio.sleep(0)
    assert bench.seats.running == [job.id]
    bench.registry.cancel(job, "requested")
    assert bench.seats.running == [job.id]
    bench.cancelled(job)
    assert bench.seats.running == [late.id]


async def test_what_is_left_to_the_next_run_does_not_time_out(bench: Bench) -> None:
    job = await bench.running(timeout=0.05)
    bench.dispatcher.close()
    bench.registry.suspend(job)
    over = asyncio.get_running_loop().time() + 0.4
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert job.state is State.QUEUED
    assert not job.told


async def test_an_attempt_that_cannot_be_noted_is_none_and_is_tried_again(
    bench: Bench, store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "STORE_PAUSE", 0.01)
    bench.seats.capacity = 0
    job = bench.accept()
    store.broken = True
    bench.revive()
    assert (job.state, job.attempt, bench.seats.running) == (State.QUEUED, 0, [])
    store.broken = False
    await eventually(lambda: bench.seats.running == [job.id])
    assert (job.attempt, store.records[job.id].attempt) == (1, 1)


async def test_a_job_whose_engines_die_before_beginning_it_fails_after_the_second(bench: Bench) -> None:
    job, waiting = await bench.running(), bench.accept()
    bench.die()
    bench.revive()
    assert bench.seats.running == [job.id]
    bench.die()
    assert bodies(job, "error")[0]["code"] == "engine_crashed"
    bench.revive()
    assert bench.seats.running == [waiting.id]


async def test_the_time_limit_of_a_job_that_waits_again_begins_anew(bench: Bench) -> None:
    job = await bench.running(timeout=0.05)
    bench.die()
    bench.revive()
    bench.finish(job)
    bench.accept()
    witness = bench.accept(timeout=0.05)
    bench.seats.capacity = 3
    bench.dispatcher.pump()
    await eventually(lambda: witness.state is State.FAILED)
    # Its images may still be on their way to the disk.
    await eventually(lambda: job.state.terminal)
    assert names(job) == ["queued", "narration", "complete"]


async def test_a_job_that_waits_again_can_be_cancelled(bench: Bench) -> None:
    job, waiting = await bench.running(), bench.accept()
    bench.die()
    bench.registry.cancel(job, "requested")
    assert list(bench.registry.queue) == [waiting]
    bench.revive()
    assert bench.seats.running == [waiting.id]
    assert names(job) == ["queued", "narration", "cancelled"]


async def test_a_job_that_waits_again_does_not_time_out_while_it_waits(bench: Bench) -> None:
    job = await bench.running(timeout=0.02)
    bench.die()
    bench.revive(capacity=0)
    watch = asyncio.get_running_loop().time() + 0.05
    await eventually(lambda: asyncio.get_running_loop().time() > watch)
    assert job.state is State.QUEUED


async def test_a_job_that_was_cancelled_before_its_engine_died_stays_cancelled(bench: Bench) -> None:
    job = await bench.running()
    bench.registry.cancel(job, "requested")
    bench.die()
    assert job.state is State.CANCELLED
    assert terminal_events(job) == ["cancelled"]


async def test_a_refusal_ends_the_jobs_that_wait_and_those_to_come(bench: Bench) -> None:
    bench.seats.capacity = 0
    waiting = [bench.accept(), bench.accept()]
    bench.dispatcher.refuse("model_failed", "the model cannot be loaded")
    late = bench.accept()
    assert late.state is State.QUEUED
    await asyncio.sleep(0)
    for job in (*waiting, late):
        assert job.state is State.FAILED
        assert bodies(job, "error")[0]["code"] == "model_failed"
        assert terminal_events(job) == ["error"]
    assert len(bench.registry.queue) == 0


async def test_a_refusal_leaves_alone_what_needs_no_engine(bench: Bench) -> None:
    quick = bench.registry.accept(quick_order())
    bench.dispatcher.refuse("model_failed", "the model cannot be loaded")
    bench.registry.complete(quick, result={"ready": False})
    assert names(quick) == ["queued", "complete"]


async def test_images_that_cannot_be_stored_fail_the_job_and_not_the_next(bench: Bench) -> None:
    job, waiting = await bench.running(), bench.accept()
    shutil.rmtree(bench.folder)
    bench.finish(job)
    await eventually(lambda: job.state is State.FAILED)
    assert bodies(job, "error")[0]["code"] == "storage_failed"
    assert str(bench.folder) not in bodies(job, "error")[0]["message"]
    assert job.files == []
    bench.folder.mkdir()
    bench.finish(waiting)
    await eventually(lambda: waiting.state is State.COMPLETED)


async def test_the_next_job_starts_while_images_are_being_stored(bench: Bench) -> None:
    job, waiting = await bench.running(), bench.accept()
    bench.finish(job)
    assert job.state is State.RUNNING
    assert waiting.state is State.RUNNING
    await eventually(lambda: job.state is State.COMPLETED)


async def test_a_job_finished_in_time_does_not_time_out_while_it_is_stored(bench: Bench) -> None:
    job = await bench.running(timeout=0.02)
    blocked = asyncio.get_running_loop().run_in_executor(bench.registry.images._thread, time.sleep, 0.1)
    bench.finish(job)
    await blocked
    await eventually(lambda: job.state.terminal)
    assert job.state is State.COMPLETED


async def test_a_job_cancelled_while_it_is_stored_leaves_no_files(bench: Bench) -> None:
    job = await bench.running()
    bench.finish(job, (b"one", b"two"))
    bench.registry.cancel(job, "requested")
    await bench.disk_is_quiet()
    assert names(job) == ["queued", "cancelled"]
    assert bench.files() == []
    assert job.files == []


async def test_a_cancelled_job_whose_finish_was_on_the_way_leaves_no_files(bench: Bench) -> None:
    job, waiting = await bench.running(), bench.accept()
    bench.registry.cancel(job, "requested")
    bench.finish(job)
    await bench.disk_is_quiet()
    assert names(job) == ["queued", "cancelled"]
    assert bench.files() == []
    assert waiting.state is State.RUNNING


async def test_an_engine_that_finishes_a_job_twice_does_it_no_harm(bench: Bench) -> None:
    job = await bench.running()
    bench.finish(job, (b"first",))
    bench.dispatcher.said(Finished(job.id, (b"second",)))
    await eventually(lambda: job.state.terminal)
    await bench.disk_is_quiet()
    assert names(job) == ["queued", "complete"]
    (image,) = job.files
    async with await bench.registry.images.open(image) as file:
        assert await file.read(100) == b"first"


async def test_cancel_racing_with_completion_gives_one_terminal_event_and_files_only_if_completed(
    bench: Bench,
) -> None:
    chance = seeded(1)
    outcomes = set()
    for _ in range(150):
        job = await bench.running()
        moves: list[Callable[[], None]] = [
            partial(bench.finish, job),
            partial(bench.registry.cancel, job, "requested"),
        ]
        if chance.random() < 0.2:
            moves.append(partial(bench.registry.fail, job, "timeout", "too long"))
        if chance.random() < 0.3:
            chance.shuffle(moves)
        for move in moves:
            move()
            # Jitter, so that the end falls before, in and after the writing of the file.
            if chance.random() < 0.8:
                await asyncio.sleep(chance.random() * 0.012)
        await bench.disk_is_quiet()
        outcomes.add(job.state)
        assert len(terminal_events(job)) == 1
        assert names(job)[-1] == terminal_events(job)[0]
        assert len(job.files) == (job.state is State.COMPLETED)
        assert (bench.folder / job.id).exists() == (job.state is State.COMPLETED)
    assert {State.COMPLETED, State.CANCELLED} <= outcomes


async def test_settling_waits_for_the_images_that_are_being_written(bench: Bench) -> None:
    job = await bench.running()
    bench.finish(job)
    bench.registry.cancel(job, "requested")
    await bench.dispatcher.settle()
    assert job.files == []
    await bench.dispatcher.settle()


# Several jobs at once.


async def test_each_of_several_jobs_has_its_own_time_limit(bench: Bench) -> None:
    bench.seats.capacity = 3
    patient, hasty, done = [await bench.running(timeout=timeout) for timeout in (60, 0.05, 0.05)]
    bench.finish(done)
    await eventually(lambda: hasty.state is State.FAILED)
    await eventually(lambda: done.state is State.COMPLETED)
    assert patient.state is State.RUNNING
    assert bench.seats.cancelled == [hasty.id]


async def test_cancelling_one_of_several_leaves_the_others_and_keeps_its_place_taken(bench: Bench) -> None:
    bench.seats.capacity = 3
    jobs, waiting = [await bench.begun() for _ in range(3)], bench.accept()
    bench.registry.cancel(jobs[1], "requested")
    bench.dispatcher.said(Progress(jobs[0].id, 1, 2, time.time()))
    assert waiting.state is State.QUEUED
    assert [job.state for job in jobs] == [State.RUNNING, State.CANCELLED, State.RUNNING]
    bench.cancelled(jobs[1])
    assert bench.seats.running == [jobs[0].id, jobs[2].id, waiting.id]
    for job in (jobs[0], jobs[2], waiting):
        bench.finish(job)
        await eventually(lambda job=job: job.state is State.COMPLETED)  # type: ignore[misc]


async def test_what_the_engine_says_reaches_the_job_it_says_it_of(bench: Bench) -> None:
    bench.seats.capacity = 3
    jobs = [await bench.begun() for _ in range(3)]
    for step in (1, 2):
        for job in jobs[step - 1 :]:
            bench.dispatcher.said(Progress(job.id, step, 2, time.time()))
    bench.seats.end(bench.dispatcher, Failed(jobs[1].id, "out_of_memory", "ask for less"))
    assert [job.step for job in jobs] == [1, 2, 2]
    assert [job.state for job in jobs] == [State.RUNNING, State.FAILED, State.RUNNING]


async def test_a_refusal_ends_all_of_several_jobs(bench: Bench) -> None:
    bench.seats.capacity = 2
    jobs = [await bench.begun(), await bench.running(), bench.accept()]
    bench.dispatcher.refuse("model_failed", "the model cannot be loaded")
    assert [terminal_events(job) for job in jobs] == [["error"]] * 3
    assert bench.seats.cancelled == [job.id for job in jobs[:2]]


async def test_several_jobs_finishing_at_once_are_all_stored(bench: Bench) -> None:
    bench.seats.capacity = 3
    jobs = [await bench.begun() for _ in range(3)]
    for number, job in enumerate(jobs):
        bench.finish(job, (b"png",) * (number + 1))
    await bench.dispatcher.settle()
    assert [len(job.files) for job in jobs] == [1, 2, 3]
    assert [job.state for job in jobs] == [State.COMPLETED] * 3


async def test_whatever_happens_to_many_jobs_each_ends_once_and_the_engine_is_never_overfull(bench: Bench) -> None:
    chance = seeded(7)
    bench.seats.capacity = 3
    jobs: list[Job] = []
    for _ in range(600):
        live = [bench.job(job_id) for job_id in bench.seats.running]
        match chance.randrange(7):
            case 0 | 1:
                jobs.append(bench.accept(priority=chance.randrange(3), owner=chance.choice("ab"), timeout=60))
            case 2 | 3 if live:
                bench.finish(chance.choice(live))
            case 4 if live:
                job = chance.choice(live)
                bench.dispatcher.said(Started(job.id, 2, 64, 64, 7.5, "euler"))
            case 5 if jobs:
                bench.registry.cancel(chance.choice(jobs), "requested")
            case 6 if chance.random() < 0.2:
                bench.die()
                bench.revive(3)
        for job_id in set(bench.seats.cancelled) & set(bench.seats.running):
            if chance.random() < 0.5:
                bench.cancelled(bench.job(job_id))
        await asyncio.sleep(0)
        assert len(bench.seats.running) == len(set(bench.seats.running)) <= 6
        waiting = list(bench.registry.queue)
        assert all(job.state is State.QUEUED for job in waiting)
        running = [bench.job(job_id) for job_id in bench.seats.running]
        # One that is tried again is alone there, or waits until it can be.
        alone = any(job.attempt > 1 for job in running) or any(job.attempt for job in waiting)
        assert alone or not any(bench.seats.takes(job.order.priority, job.order.owner) for job in waiting)
        assert [bench.registry.view(job)["position"] for job in waiting] == list(range(len(waiting)))
    while bench.seats.running:
        bench.finish(bench.job(bench.seats.running[0]))
    await bench.dispatcher.settle()
    assert len(bench.registry.queue) == 0
    assert bench.registry.live() == []
    assert all(len(terminal_events(job)) == 1 for job in jobs)
    assert bench.dispatcher._timeouts._left == {}


# Previews.

SHOWN = Generate(job_id="", prompt="a", negative_prompt="", seed=5, preview=True)


async def test_the_engine_is_told_of_listeners_as_they_come_and_go(bench: Bench, watcher: Watcher) -> None:
    job = await bench.running(work=SHOWN)
    assert bench.seats.watches == []
    watcher.joined(job)
    watcher.joined(job)
    watcher.left(job)
    watcher.left(job)
    assert bench.seats.watches == [(job.id, True), (job.id, False)]
    watcher.close()


async def test_a_job_that_somebody_listened_to_while_it_waited_is_watched_from_its_start(
    bench: Bench, watcher: Watcher
) -> None:
    bench.seats.capacity = 0
    heard, left, unheard = [bench.accept(work=SHOWN, on_disconnect="finish") for _ in range(3)]
    for job in (heard, left):
        watcher.joined(job)
    watcher.left(left)
    assert bench.seats.watches == []
    bench.revive(3)
    assert bench.seats.running == [heard.id, left.id, unheard.id]
    assert bench.seats.watches == [(heard.id, True)]


async def test_who_listens_to_everything_watches_what_runs_and_what_will(bench: Bench, watcher: Watcher) -> None:
    bench.seats.capacity = 2
    early, late = await bench.running(work=SHOWN), bench.accept(work=SHOWN)
    watcher.joined_all()
    assert bench.seats.watches == [(early.id, True)]
    await asyncio.sleep(0)
    assert bench.seats.watches == [(early.id, True), (late.id, True)]
    watcher.joined(early)
    watcher.left_all()
    assert bench.seats.watches[2:] == [(late.id, False)]


async def test_the_engine_hears_nothing_of_listeners_who_get_no_previews(bench: Bench, watcher: Watcher) -> None:
    bench.seats.capacity = 2
    plain, quick = await bench.running(), bench.registry.accept(quick_order())
    ended = await bench.running(work=SHOWN)
    bench.registry.cancel(ended, "requested")
    watcher.joined_all()
    for job in (plain, quick, ended):
        watcher.joined(job)
    watcher.left_all()
    assert bench.seats.watches == []


async def test_a_job_that_waits_again_is_watched_again(bench: Bench, watcher: Watcher) -> None:
    job = bench.accept(work=SHOWN)
    watcher.joined(job)
    await asyncio.sleep(0)
    bench.die()
    bench.revive()
    assert bench.seats.watches == [(job.id, True)] * 2


async def test_previews_are_events_of_their_job_until_it_ends(bench: Bench) -> None:
    bench.seats.capacity = 2
    job, other = await bench.begun(), await bench.begun()
    bench.dispatcher.said(Preview(job.id, 0, 1, b"first"))
    bench.dispatcher.said(Preview(job.id, 0, 2, b"second"))
    assert [(body["step"], body["total"]) for body in bodies(job, "preview")] == [(2, 2)]
    assert names(other) == ["queued", "started"]
    bench.registry.cancel(job, "requested")
    bench.dispatcher.said(Preview(job.id, 0, 2, b"late"))
    bench.dispatcher.said(Preview("job_unknown", 0, 2, b"x"))
    assert names(job) == ["queued", "started", "cancelled"]


async def test_a_preview_that_comes_while_the_images_are_stored_is_gone_with_the_others(bench: Bench) -> None:
    job = await bench.begun()
    bench.finish(job)
    bench.dispatcher.said(Preview(job.id, 0, 2, b"late"))
    await eventually(lambda: job.state is State.COMPLETED)
    assert names(job) == ["queued", "started", "complete"]
    assert not any(event.name == "preview" for _, event in bench.registry.feed.after(0))


async def test_where_a_model_lies_is_looked_up_when_its_jobs_turn_comes(
    registry: JobRegistry, watcher: Watcher, seats: ScriptedSeats
) -> None:
    places: dict[str, str] = {"": "", "xl": "/models/xl"}
    dispatcher = Dispatcher(registry, watcher, places.get)
    dispatcher.worker = seats
    seats.capacity = 0
    wanted = order().work
    assert wanted is not None
    jobs = [registry.accept(order(work=replace(wanted, model=model))) for model in ("xl", "gone", "")]
    places["xl"] = "/models/moved"
    seats.capacity = 3
    dispatcher.pump()
    await eventually(lambda: len(seats.running) == 2)
    assert [(work.model, work.source) for work in seats.submitted] == [("xl", "/models/moved"), ("", "")]
    assert jobs[1].error is not None
    assert jobs[1].error["code"] == "model_failed"
