"""`jobs.job`: its events, its one terminal event, and how clients see it."""

from __future__ import annotations

import base64
import time
import tracemalloc
from typing import Any

import orjson
import pytest

from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.job import Job, State
from rbee_sd.messages import Generate
from tests.unit.conftest import bodies, names, order, seeded

VIEW = {
    "job_id",
    "operation",
    "state",
    "position",
    "step",
    "total",
    "attempt",
    "created_at",
    "started_at",
    "finished_at",
    "seed",
    "images",
    "error",
    "request",
}


def make() -> Job:
    """A job that waits."""
    return Job(order("☃ said\n'hello'"), EventLog())


def finish(job: Job, state: State, name: str) -> bool:
    """End a job and tell it, as the registry does; False if it has ended before."""
    if not job.end(state):
        return False
    job.close(job.event(name))
    return True


def running(seconds: float = 0.0) -> Job:
    """A job that has been running for `seconds`."""
    job = make()
    job.dispatch()
    job.started = time.monotonic() - seconds
    job.start(20, {"width": 64, "height": 64, "guidance_scale": 7.5, "scheduler": "euler"})
    return job


def test_ids_are_different_and_look_like_ids() -> None:
    ids = {make().id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(job_id.startswith("job_") and len(job_id) == 40 for job_id in ids)


def test_only_the_last_three_states_are_terminal() -> None:
    assert [state.terminal for state in State] == [False, False, True, True, True]


def test_an_event_names_itself_and_its_job_and_says_when() -> None:
    job, before = make(), time.time()
    job.emit("narration", text="loading\r\nmodel \u2028 \x1b[0m")
    (body,) = bodies(job, "narration")
    assert body["event"] == body["type"] == "narration"
    assert body["job_id"] == job.id
    assert body["text"] == "loading\r\nmodel \u2028 \x1b[0m"
    assert before - 0.001 <= body["at"] <= time.time() + 0.001


def test_the_data_of_an_event_is_one_line_whatever_is_in_it() -> None:
    job = make()
    job.emit("narration", text="a\nb\r\nc\rd\n\ndata: [DONE]\n\n")
    ((_, event),) = job.log.after(0)
    assert b"\n" not in event.data
    assert b"\r" not in event.data


def test_what_a_job_emits_goes_to_its_log_and_to_the_feed() -> None:
    feed = EventLog(first=1000)
    jobs = [Job(order(), feed), Job(order(), feed)]
    for job in jobs:
        job.emit("queued", position=0)
    assert [number for number, _ in feed.after(0)] == [1000, 1001]
    assert [orjson.loads(event.data)["job_id"] for _, event in feed.after(0)] == [job.id for job in jobs]
    assert all(job.log.last == 1 for job in jobs)


def test_dispatching_counts_an_attempt_and_starts_the_clock() -> None:
    job = make()
    assert (job.attempt, job.started, job.started_at) == (0, None, None)
    job.dispatch()
    assert job.state is State.RUNNING
    assert job.attempt == 1
    assert job.started_at == pytest.approx(time.time(), abs=1)
    assert job.started == pytest.approx(time.monotonic(), abs=1)


def test_started_tells_what_the_model_settled() -> None:
    job = running()
    (body,) = bodies(job, "started")
    assert body["total"] == 20
    assert body["attempt"] == 1
    assert (body["width"], body["height"], body["scheduler"]) == (64, 64, "euler")
    assert job.total == 20


def test_progress_tells_percent_and_the_seconds_left() -> None:
    job = running(seconds=10)
    job.progress(5, 20, 1763700000.25)
    (body,) = bodies(job, "progress")
    assert (body["step"], body["total"], body["percent"]) == (5, 20, 25.0)
    # Five steps took ten seconds; fifteen are left.
    assert body["eta_s"] == pytest.approx(30, abs=1)
    assert body["at"] == 1763700000.25
    assert (job.step, job.total) == (5, 20)


def test_the_last_step_leaves_nothing_to_wait_for() -> None:
    job = running(seconds=3)
    for step in range(1, 4):
        job.progress(step, 3, time.time())
    etas = [body["eta_s"] for body in bodies(job, "progress")]
    assert etas == sorted(etas, reverse=True)
    assert etas[-1] == 0
    assert [body["percent"] for body in bodies(job, "progress")] == [33.3, 66.7, 100.0]


def test_a_single_step_is_all_of_it() -> None:
    job = running()
    job.progress(1, 1, time.time())
    (body,) = bodies(job, "progress")
    assert (body["percent"], body["eta_s"]) == (100.0, 0)


@pytest.mark.parametrize("first", ["complete", "error", "cancelled"])
def test_a_job_that_has_ended_does_not_end_again(first: str) -> None:
    states = {"complete": State.COMPLETED, "error": State.FAILED, "cancelled": State.CANCELLED}
    job = running()
    assert finish(job, states[first], first)
    ended_at = job.finished_at
    for name, state in states.items():
        assert not finish(job, state, name)
    assert job.state is states[first]
    assert job.finished_at == ended_at
    assert names(job) == ["started", first]
    assert job.log.closed


def test_the_terminal_event_is_the_last_one() -> None:
    job = running()
    finish(job, State.COMPLETED, "complete")
    with pytest.raises(RuntimeError):
        job.emit("narration", text="late")
    assert names(job)[-1] == "complete"


def test_a_view_holds_what_the_contract_names_and_is_json_at_every_moment() -> None:
    job = make()

    def view(position: int | None = None) -> dict[str, Any]:
        shown: dict[str, Any] = orjson.loads(orjson.dumps(job.view(position)))
        assert set(shown) >= VIEW
        return shown

    waiting = view(3)
    assert (waiting["state"], waiting["position"], waiting["attempt"]) == ("queued", 3, 0)
    assert waiting["started_at"] is None
    assert waiting["run_s"] is None
    assert waiting["request"]["prompt"] == "☃ said\n'hello'"
    job.dispatch()
    job.start(20, {"width": 64})
    job.progress(5, 20, time.time())
    busy = view()
    assert (busy["state"], busy["position"], busy["step"], busy["total"]) == ("running", None, 5, 20)
    assert busy["finished_at"] is None
    finish(job, State.FAILED, "error")
    ended = view()
    assert ended["state"] == "failed"
    assert ended["created_at"] <= ended["started_at"] <= ended["finished_at"]
    assert ended["sse_url"] == f"/v1/jobs/{job.id}/stream"


def test_times_of_a_job_that_has_ended_stand_still() -> None:
    job = make()
    job.created -= 100
    job.dispatch()
    job.started = job.created + 40
    finish(job, State.COMPLETED, "complete")
    job.finished = job.started + 25
    assert (job.view(None)["queue_s"], job.view(None)["run_s"]) == (40, 25)


def test_a_job_cancelled_while_it_waited_shows_how_long_it_waited() -> None:
    job = make()
    job.created -= 100
    finish(job, State.CANCELLED, "cancelled")
    job.finished = job.created + 30
    assert (job.view(None)["queue_s"], job.view(None)["run_s"]) == (30, None)


def test_any_order_of_endings_gives_exactly_one() -> None:
    chance = seeded(1)
    endings = [(State.COMPLETED, "complete"), (State.FAILED, "error"), (State.CANCELLED, "cancelled")]
    for _ in range(500):
        job = running() if chance.random() < 0.5 else make()
        tries = [chance.choice(endings) for _ in range(chance.randrange(1, 6))]
        assert [finish(job, state, name) for state, name in tries] == [True] + [False] * (len(tries) - 1)
        assert (job.state, names(job)[-1]) == tries[0]


def test_a_preview_tells_what_an_image_looks_like_at_a_step() -> None:
    job = running()
    job.preview(1, 5, b"\xff\xd8jpeg")
    (body,) = bodies(job, "preview")
    assert (body["index"], body["step"], body["total"], body["format"]) == (1, 5, 20, "jpeg")
    assert base64.b64decode(body["image_base64"], validate=True) == b"\xff\xd8jpeg"


def test_only_the_newest_preview_of_each_image_is_kept_in_the_log_and_in_the_feed() -> None:
    feed = EventLog(first=1000)
    job = Job(order(), feed)
    for step in range(1, 4):
        for index in range(2):
            job.progress(step, 20, 0.0)
            job.preview(index, step, b"%d" % step)
    for log in (job.log, feed):
        events = [(event.name, orjson.loads(event.data)["step"]) for _, event in log.after(0)]
        assert events == [
            *[("progress", step) for step in (1, 1, 2, 2, 3)],
            ("preview", 3),
            ("progress", 3),
            ("preview", 3),
        ]
    assert [body["index"] for body in bodies(job, "preview")] == [0, 1]
    # The numbers of those that went are not given again.
    assert job.log.last == 12


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELLED])
def test_a_job_that_has_ended_has_no_previews(state: State) -> None:
    feed = EventLog()
    job = Job(order(), feed)
    job.preview(0, 1, b"one")
    job.preview(1, 1, b"other")
    finish(job, state, "complete")
    assert names(job) == [event.name for _, event in feed.after(0)] == ["complete"]
    assert job.log.last == 3


def test_ten_thousand_previews_keep_one() -> None:
    feed = EventLog(limit=100)
    job = Job(order(), feed)
    for step in range(10_000):
        job.preview(0, step, b"x" * 1000)
    for log in (job.log, feed):
        assert [orjson.loads(event.data)["step"] for _, event in log.after(0)] == [9999]
    assert len(job.previews) == 1


def test_a_preview_that_has_fallen_out_of_the_feed_is_replaced_all_the_same() -> None:
    feed = EventLog(limit=3)
    job, other = Job(order(), feed), Job(order(), feed)
    job.preview(0, 1, b"old")
    for _ in range(5):
        other.emit("narration", text="x")
    job.preview(0, 2, b"new")
    assert [body["step"] for body in bodies(job, "preview")] == [2]
    assert [event.name for _, event in feed.after(0)] == ["narration", "narration", "preview"]


def test_resuming_behind_every_id_in_turn_gives_each_other_event_once_with_previews_between() -> None:
    job = running()
    seen: dict[int, list[str]] = {0: []}
    for step in range(1, 11):
        job.progress(step, 20, 0.0)
        if step % 2:
            job.preview(0, step, b"x")
        seen |= {number: [] for number in range(job.log.last + 1)}
    assert sum(name == "preview" for name in names(job)) == 1
    finish(job, State.COMPLETED, "complete")
    whole = [(number, event.name) for number, event in job.log.after(0)]
    assert [name for _, name in whole] == ["started", *["progress"] * 10, "complete"]
    # Also behind the number of a preview that was sent, and has gone since.
    for number in seen:
        cursor = job.log.open(after=number)
        assert [(n, event.name) for n, event in cursor.take()] == [entry for entry in whole if entry[0] > number]
        assert cursor.exhausted


def test_the_images_a_job_was_made_from_are_let_go_when_it_ends() -> None:
    work = Generate(job_id="", prompt="x", negative_prompt="", seed=5, inputs=(b"image", b"mask"))
    job = Job(order(work=work), EventLog())
    assert job.order.input_bytes == 9
    job.dispatch()
    job.start(20, {})
    finish(job, State.COMPLETED, "complete")
    assert job.order.input_bytes == 0
    # It is still known as a job that was for the engine.
    assert job.order.work is not None
    assert job.order.work.prompt == "x"


def test_a_finished_job_of_twenty_steps_holds_a_few_kilobytes() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        job = running()
        for step in range(1, 21):
            job.progress(step, 20, 0.0)
        finish(job, State.COMPLETED, "complete")
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(job.log.after(0)) >= 21
    assert held < 20_000
