"""`jobs.registry`: jobs made, found, ended once, and forgotten with their images."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from rbee_sd.errors import RequestError
from rbee_sd.jobs import registry as registry_module
from rbee_sd.jobs.job import Job, Order, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.messages import Generate
from tests.unit.conftest import MakeRegistry, bodies, names, order, quick_order, seeded, take, terminal_events


def refusal(call: Callable[[], object]) -> RequestError:
    """The `RequestError` that `call` raises."""
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value


def run(registry: JobRegistry) -> Job:
    """Accept a job and let it run."""
    registry.accept(order())
    job = take(registry.queue)
    registry.attempt(job, lambda on_disk: None)
    return job


def test_an_accepted_job_waits_and_says_so(registry: JobRegistry) -> None:
    first, second = registry.accept(order()), registry.accept(order())
    assert [job.state for job in (first, second)] == [State.QUEUED, State.QUEUED]
    assert list(registry.queue) == [first, second]
    (body,) = bodies(second, "queued")
    assert (body["position"], body["seed"]) == (1, 5)
    assert registry.view(second)["position"] == 1


def test_a_job_of_higher_priority_is_told_its_own_position(registry: JobRegistry) -> None:
    waiting = registry.accept(order())
    urgent = registry.accept(order(priority=5))
    assert bodies(urgent, "queued")[0]["position"] == 0
    assert registry.view(waiting)["position"] == 1


def test_a_job_that_needs_no_engine_does_not_wait_in_the_queue(registry: JobRegistry) -> None:
    registry.accept(order())
    quick = registry.accept(quick_order())
    assert quick not in registry.queue
    assert registry.view(quick)["position"] == 0
    registry.complete(quick, result={"ready": True})
    assert quick.state is State.COMPLETED
    assert bodies(quick, "complete")[0]["result"] == {"ready": True}


async def test_an_id_that_was_never_known_is_not_found(registry: JobRegistry) -> None:
    for job_id in ("job_0", "", "..", "job_" + "x" * 1000, "\0", "\ud800", f"job_{uuid.uuid4()}"):
        with pytest.raises(RequestError) as caught:
            await registry.recall(job_id)
        error = caught.value
        assert (error.status, error.code) == (404, "job_not_found")
        assert registry.find(job_id) is None


async def test_a_full_queue_refuses_and_stores_nothing(make_registry: MakeRegistry) -> None:
    registry = make_registry(queue_size=2)
    jobs = [registry.accept(order()), registry.accept(order())]
    error = refusal(lambda: registry.accept(order(), "key", b"digest"))
    assert (error.status, error.code) == (503, "queue_full")
    assert int(error.headers["Retry-After"]) > 0
    assert registry.live() == jobs
    assert len(registry.queue) == 2
    assert await registry.repeated("key", b"other digest") is None
    assert [orjson.loads(event.data)["job_id"] for _, event in registry.feed.after(0)] == [job.id for job in jobs]


def test_a_full_queue_has_room_again_when_a_job_starts_or_is_cancelled(make_registry: MakeRegistry) -> None:
    registry = make_registry(queue_size=1)
    first = registry.accept(order())
    registry.attempt(take(registry.queue), lambda on_disk: None)
    second = registry.accept(order())
    registry.cancel(second, "requested")
    third = registry.accept(order())
    assert registry.live() == [first, third]


def test_a_full_queue_still_answers_what_needs_no_engine(make_registry: MakeRegistry) -> None:
    registry = make_registry(queue_size=1)
    registry.accept(order())
    assert registry.accept(quick_order()).state is State.QUEUED


def test_what_needs_no_engine_is_bounded_too(make_registry: MakeRegistry) -> None:
    registry = make_registry(queue_size=2)
    jobs = [registry.accept(quick_order()) for _ in range(2)]
    registry.accept(order())
    error = refusal(lambda: registry.accept(quick_order()))
    assert (error.status, error.code) == (503, "queue_full")
    registry.begin(jobs[0])
    assert refusal(lambda: registry.accept(quick_order())).code == "queue_full"
    registry.complete(jobs[0], result={})
    registry.accept(quick_order())


def test_one_client_has_only_its_share_of_what_needs_no_engine(make_registry: MakeRegistry) -> None:
    registry = make_registry(share=1)
    registry.accept(quick_order())
    error = refusal(lambda: registry.accept(quick_order()))
    assert (error.status, error.code) == (429, "too_many_jobs")
    registry.accept(replace(quick_order(), owner="another"))
    registry.accept(order())


def test_a_draining_registry_refuses_every_job(registry: JobRegistry) -> None:
    registry.draining = True
    for refused in (order(), quick_order()):
        error = refusal(lambda refused=refused: registry.accept(refused))  # type: ignore[misc]
        assert (error.status, error.code) == (503, "draining")
        assert int(error.headers["Retry-After"]) > 0
    assert registry.live() == []


async def test_a_key_gives_its_job_back_and_a_different_body_is_a_conflict(registry: JobRegistry) -> None:
    assert await registry.repeated("key", b"one") is None
    job = registry.accept(order(), "key", b"one")
    assert await registry.repeated("key", b"one") is job
    with pytest.raises(RequestError) as caught:
        await registry.repeated("key", b"two")
    error = caught.value
    assert (error.status, error.code) == (409, "idempotency_conflict")
    assert await registry.repeated("other", b"two") is None
    registry.cancel(job, "requested")
    assert await registry.repeated("key", b"one") is job


def test_jobs_without_a_key_are_each_their_own(registry: JobRegistry) -> None:
    same = order()
    assert registry.accept(same) is not registry.accept(same)


def with_image(size: int) -> Order:
    """An order with an input image of so many bytes."""
    return order(work=Generate(job_id="", prompt="x", negative_prompt="", seed=5, inputs=(b"i" * size,)))


async def test_input_images_are_bounded_over_all_jobs_that_have_not_ended(make_registry: MakeRegistry) -> None:
    registry = make_registry(queue_bytes=1000)
    running, waiting = registry.accept(with_image(600)), registry.accept(with_image(400))
    registry.attempt(take(registry.queue), lambda on_disk: None)
    assert registry.input_bytes == 1000
    error = refusal(lambda: registry.accept(with_image(1), "key", b"digest"))
    assert (error.status, error.code) == (503, "queue_full")
    assert int(error.headers["Retry-After"]) > 0
    assert registry.live() == [running, waiting]
    assert await registry.repeated("key", b"other") is None
    # What has no image has room.
    plain = registry.accept(order())
    registry.accept(quick_order())
    registry.cancel(plain, "requested")
    registry.cancel(running, "requested")
    assert registry.input_bytes == 400
    registry.accept(with_image(600))
    assert refusal(lambda: registry.accept(with_image(1))).code == "queue_full"


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_however_a_job_ends_its_input_images_are_let_go_once(make_registry: MakeRegistry, end: str) -> None:
    registry = make_registry(queue_bytes=1000)
    job, other = registry.accept(with_image(600)), registry.accept(with_image(100))
    registry.attempt(take(registry.queue), lambda on_disk: None)
    # It was put back once, which changes nothing.
    registry.put_back(job)
    assert registry.input_bytes == 700
    registry.attempt(take(registry.queue), lambda on_disk: None)
    for _ in range(2):
        match end:
            case "complete":
                registry.complete(job)
            case "fail":
                registry.fail(job, "timeout", "too long")
            case _:
                registry.cancel(job, "requested")
    assert registry.input_bytes == 100
    assert job.order.input_bytes == 0
    assert other.order.input_bytes == 100
    # A job for the engine all the same: it counts among the pictures, not among the questions.
    assert registry.view(job)["state"] != "queued"
    assert job.order.work is not None


async def test_completing_names_the_images_that_were_saved(registry: JobRegistry) -> None:
    job = run(registry)
    job.start(20, {"width": 64, "height": 64, "guidance_scale": 7.5, "scheduler": "euler"})
    job.files = await registry.images.save(job.id, (b"one", b"two"))
    registry.complete(job, flagged=(1,))
    (body,) = bodies(job, "complete")
    assert body["format"] == "png"
    assert body["seed"] == 5
    assert body["images"] == [
        {"index": 0, "url": f"/v1/jobs/{job.id}/images/0", "seed": 5, "flagged": False},
        {"index": 1, "url": f"/v1/jobs/{job.id}/images/1", "seed": 6, "flagged": True},
    ]
    assert (body["width"], body["scheduler"]) == (64, "euler")
    assert registry.view(job)["images"] == body["images"]


async def test_the_largest_seed_has_images_too(registry: JobRegistry) -> None:
    registry.accept(order(seed=2**63 - 1))
    job = take(registry.queue)
    registry.attempt(job, lambda on_disk: None)
    job.files = await registry.images.save(job.id, (b"one", b"two"))
    registry.complete(job)
    assert [image["seed"] for image in bodies(job, "complete")[0]["images"]] == [2**63 - 1, 2**63]


def test_a_failure_is_told_in_the_event_and_in_the_view(registry: JobRegistry) -> None:
    job = run(registry)
    registry.fail(job, "engine_crashed", "the engine died")
    assert bodies(job, "error")[0]["code"] == "engine_crashed"
    assert registry.view(job)["error"] == {"code": "engine_crashed", "message": "the engine died"}
    assert registry.view(job)["state"] == "failed"


def test_cancelling_a_waiting_job_takes_it_alone_out_of_the_queue(registry: JobRegistry) -> None:
    running = run(registry)
    first, second, third = (registry.accept(order()) for _ in range(3))
    registry.cancel(second, "disconnected")
    assert list(registry.queue) == [first, third]
    assert [job.state for job in (running, first, third)] == [State.RUNNING, State.QUEUED, State.QUEUED]
    assert bodies(second, "cancelled")[0]["reason"] == "disconnected"


def test_cancelling_twice_is_cancelling_once(registry: JobRegistry) -> None:
    job = registry.accept(order())
    registry.cancel(job, "requested")
    registry.cancel(job, "disconnected")
    assert names(job) == ["queued", "cancelled"]
    assert bodies(job, "cancelled")[0]["reason"] == "requested"


def test_failing_a_waiting_job_takes_it_out_of_the_queue(registry: JobRegistry) -> None:
    job = registry.accept(order())
    registry.fail(job, "model_failed", "no model")
    assert len(registry.queue) == 0
    assert names(job) == ["queued", "error"]


def test_a_job_that_was_cancelled_keeps_no_trace_of_a_late_result(registry: JobRegistry) -> None:
    job = registry.accept(quick_order())
    registry.fail(job, "interrupted", "shut down")
    before = registry.view(job)
    registry.complete(job, result={"ready": True})
    assert registry.view(job) == before
    assert registry.view(job)["result"] is None


async def test_a_job_that_was_cancelled_shows_no_late_images(registry: JobRegistry) -> None:
    job = run(registry)
    registry.cancel(job, "requested")
    job.files = await registry.images.save(job.id, (b"late",))
    registry.complete(job)
    assert registry.view(job)["images"] == []


def test_a_late_failure_does_not_touch_a_completed_job(registry: JobRegistry) -> None:
    job = run(registry)
    registry.complete(job)
    registry.fail(job, "timeout", "too late")
    assert registry.view(job)["error"] is None
    assert registry.view(job)["state"] == "completed"


def test_observers_are_told_once_before_the_terminal_event(registry: JobRegistry) -> None:
    told: list[tuple[Job, list[str]]] = []
    registry.on_finish(lambda job: told.append((job, terminal_events(job))))
    registry.on_finish(lambda job: registry.cancel(job, "again"))
    job = run(registry)
    registry.complete(job)
    registry.cancel(job, "requested")
    assert told == [(job, [])]
    assert terminal_events(job) == ["complete"]


def test_racing_endings_leave_exactly_one_terminal_event(registry: JobRegistry) -> None:
    chance = seeded(1)
    expected = {State.COMPLETED: "complete", State.FAILED: "error", State.CANCELLED: "cancelled"}

    def meddle(job: Job) -> None:
        chance.choice((lambda: registry.cancel(job, "meddled"), lambda: registry.fail(job, "timeout", "meddled")))()

    registry.on_finish(meddle)
    for _ in range(1000):
        job = registry.accept(order()) if chance.random() < 0.8 else registry.accept(quick_order())
        if job.order.work is not None and chance.random() < 0.7:
            registry.queue.remove(job)
            registry.attempt(job, lambda on_disk: None)
        for _ in range(chance.randrange(1, 5)):
            match chance.randrange(4):
                case 0:
                    registry.complete(job, result=None if job.order.work else {})
                case 1:
                    registry.cancel(job, "requested")
                case 2:
                    registry.fail(job, "timeout", "too long")
                case _ if job.state is State.RUNNING:
                    job.progress(1, 20, 0.0)
        registry.cancel(job, "in the end")
        assert terminal_events(job) == [expected[job.state]]
        assert names(job)[-1] == expected[job.state]
        assert job.log.closed
        assert (job.error is not None) == (job.state is State.FAILED)
        in_feed = [event.name for _, event in registry.feed.after(0) if job.id.encode() in event.data]
        assert [name for name in in_feed if name in expected.values()] == [expected[job.state]]
    assert len(registry.queue) == 0
    assert registry.live() == []


def test_those_that_live_are_listed_oldest_first(registry: JobRegistry) -> None:
    jobs = [registry.accept(order()) for _ in range(4)]
    registry.cancel(jobs[1], "requested")
    assert registry.live() == [jobs[0], jobs[2], jobs[3]]


def test_counts_name_every_state(registry: JobRegistry) -> None:
    assert registry.counts() == {"queued": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0}
    running = run(registry)
    registry.accept(order())
    registry.cancel(registry.accept(order()), "requested")
    assert registry.counts() == {"queued": 1, "running": 1, "completed": 0, "failed": 0, "cancelled": 1}
    registry.complete(running)
    assert registry.counts()["completed"] == 1


def test_the_feed_is_bounded_and_numbered_above_an_earlier_run(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    first = registry.feed.first
    for _ in range(registry_module.FEED_LENGTH + 10):
        registry.complete(registry.accept(quick_order()), result={})
    assert len(registry.feed.after(0)) == registry_module.FEED_LENGTH
    assert registry.feed.last == first + 2 * (registry_module.FEED_LENGTH + 10) - 1
    # Milliseconds since 1970: later runs begin above what this one can have reached.
    assert first > 1_700_000_000_000
