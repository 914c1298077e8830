"""`engine.loop.Engine` and `engine.task.Task` on the demo model: jobs beside one another, cancelled, and failing."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from rbee_sd import messages
from rbee_sd.engine import denoiser
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.loop import Engine, FrontGoneError
from rbee_sd.engine.models import only
from rbee_sd.engine.training.parts import GUIDANCE
from rbee_sd.messages import (
    SCHEDULERS,
    Cancelled,
    Failed,
    Finished,
    Generate,
    Message,
    Narration,
    Progress,
    Pulse,
    Started,
    encode,
)
from tests.engine.bench import (
    TOLERANCE,
    Bench,
    alone,
    before_each_forward,
    config,
    difference,
    draw,
    picture,
    pixels,
    tensors,
    work,
)

GREEN = "a large green heart on a white background"


def assert_alone_and_together_are_alike(bench: Bench, *works: Generate) -> None:
    """Each of these jobs has made the picture that it makes alone."""
    for each in works:
        made = bench.heard(Finished, each.job_id)[0].images
        for png, solo in zip(made, alone(bench.model, each), strict=True):
            assert difference(pixels(png), pixels(solo)) <= TOLERANCE, each


def terminal(bench: Bench, job_id: str) -> Finished | Failed | Cancelled:
    """The one message that ends the job."""
    endings = [each for kind in (Finished, Failed, Cancelled) for each in bench.heard(kind, job_id)]
    (end,) = endings
    assert isinstance(end, Finished | Failed | Cancelled)
    return end


def assert_next_job_is_right(bench: Bench) -> None:
    """The engine is idle and well."""
    assert not bench.engine.busy
    bench.run(work("next"))
    assert_alone_and_together_are_alike(bench, work("next"))


# One job, and several.


def test_a_job_is_told_from_start_to_end_in_order(bench: Bench) -> None:
    before = bench.model.forwards
    bench.run(work("a", steps=2))
    kinds = [type(message) for message in bench.said if not isinstance(message, Narration | Pulse)]
    assert kinds == [Started, Progress, Progress, Finished]
    (started,) = bench.heard(Started)
    assert started == Started("a", 2, 64, 64, GUIDANCE, "euler")
    assert bench.heard(Finished)[0].images == tuple(draw(bench.model, steps=2))
    assert bench.heard(Pulse)[-1].forwards == before + 2


def test_two_jobs_share_every_forward(bench: Bench) -> None:
    before = bench.model.forwards
    bench.run(work("a", steps=3), work("b", steps=3))
    turns = [(said.job_id, said.step) for said in bench.heard(Progress)]
    assert turns == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    assert bench.model.forwards == before + 3


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_jobs_of_one_scheduler_do_not_disturb_one_another(bench: Bench, scheduler: str) -> None:
    works = (
        work("a", scheduler=scheduler, steps=7, seed=3),
        work("b", scheduler=scheduler, steps=4, seed=4, prompt=GREEN, guidance_scale=3.0),
        work("a2", scheduler=scheduler, steps=7, seed=3),
    )
    bench.run(*works)
    assert difference(bench.picture("a"), bench.picture("a2")) <= TOLERANCE
    assert_alone_and_together_are_alike(bench, *works)


def test_jobs_of_every_kind_that_come_and_go_do_not_disturb_one_another(bench: Bench) -> None:
    works = [
        work("plain", steps=8),
        work("wide", width=96, height=40, steps=3, scheduler="dpmpp_2m"),
        work("many", count=3, steps=5, scheduler="euler_a", seed=9),
        work("unguided", guidance_scale=1.0, steps=6, scheduler="ddim"),
        work("negative", negative_prompt="blurry", guidance_scale=12.0, steps=4, scheduler="unipc"),
    ]
    for each in works:
        bench.engine.submit(each)
        bench.engine.step()
    bench.run()
    assert_alone_and_together_are_alike(bench, *works)


def test_gradients_stay_off_when_jobs_end_in_another_order_than_they_began() -> None:
    torch.set_grad_enabled(True)
    bench = Bench(load(config("demo")))
    gradients: list[bool] = []
    with before_each_forward(bench.model.denoiser.module, lambda: gradients.append(torch.is_grad_enabled())):
        bench.run(work("long", steps=6), work("short", steps=2), work("middle", steps=4))
        bench.engine.submit(work("left", steps=9))
        bench.engine.submit(work("stays", steps=3))
        bench.engine.step()
        bench.engine.cancel("left")
        assert not torch.is_grad_enabled()
        bench.run()
    assert not any(gradients)
    assert not torch.is_grad_enabled()


# Cancelling.


def test_a_cancelled_job_stops_at_its_step_and_the_denoiser_with_it(bench: Bench) -> None:
    before = bench.model.forwards
    bench.engine.submit(work("gone", steps=20))
    for _ in range(5):
        bench.engine.step()
    bench.engine.cancel("gone")
    assert terminal(bench, "gone") == Cancelled("gone", 5)
    assert not bench.engine.busy
    for _ in range(3):
        bench.engine.step()
    assert bench.model.forwards == before + 5
    # Who hears that the job has gone finds the count settled.
    assert isinstance(bench.said[-1], Cancelled)
    assert bench.heard(Pulse)[-1].forwards == before + 5
    assert_next_job_is_right(bench)


def test_cancelling_one_job_leaves_the_other_as_it_is(bench: Bench) -> None:
    stays = work("stays", steps=8, scheduler="euler_a")
    bench.engine.submit(stays)
    bench.engine.submit(work("gone", steps=8, scheduler="euler_a", seed=2))
    for _ in range(3):
        bench.engine.step()
    bench.engine.cancel("gone")
    bench.run()
    assert terminal(bench, "gone") == Cancelled("gone", 3)
    assert_alone_and_together_are_alike(bench, stays)


def test_a_job_cancelled_before_its_first_step_never_starts(bench: Bench) -> None:
    before = bench.model.forwards
    bench.engine.submit(work("gone"))
    bench.engine.cancel("gone")
    assert [said for said in bench.said if not isinstance(said, Pulse)] == [Cancelled("gone", 0)]
    assert not bench.engine.busy
    assert bench.model.forwards == before
    assert_next_job_is_right(bench)


def test_a_job_cancelled_after_its_last_step_is_not_decoded(bench: Bench) -> None:
    decoded: list[bool] = []
    with before_each_forward(bench.model.pipe.vae.decoder, lambda: decoded.append(True)):
        bench.engine.submit(work("gone", steps=2))
        bench.engine.step()
        bench.engine.step()
        bench.engine.cancel("gone")
    assert terminal(bench, "gone") == Cancelled("gone", 2)
    assert decoded == []
    assert_next_job_is_right(bench)


def test_cancelling_what_is_not_there_says_nothing(bench: Bench) -> None:
    bench.run(work("done"))
    heard = len(bench.said)
    bench.engine.cancel("done")
    bench.engine.cancel("never known")
    assert len(bench.said) == heard
    assert_next_job_is_right(bench)


# Failing.

PARTS = ["text_encoder", "unet", "vae.decoder"]


def part(model: Diffusion, name: str) -> Any:
    """A component of the pipeline, by its name."""
    return model.pipe.vae.decoder if name == "vae.decoder" else getattr(model.pipe, name)


def fail_with(error: Exception) -> Any:
    """Something to do before a forward."""

    def act() -> None:
        raise error

    return act


def assert_says_no_path(text: str) -> None:
    """A sentence for clients: no path, no line break, nothing of the exception's own text."""
    assert text
    assert not set("/\\\n") & set(text), text
    assert "secret" not in text


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    "error", [RuntimeError("cannot read /srv/secret/file"), OSError(2, "no", "/srv/secret"), KeyError("x")]
)
def test_a_failure_in_the_pipeline_ends_its_job_alone_and_says_no_path(
    bench: Bench, caplog: pytest.LogCaptureFixture, name: str, error: Exception
) -> None:
    with before_each_forward(part(bench.model, name), fail_with(error)):
        bench.run(work("bad"))
    end = terminal(bench, "bad")
    assert isinstance(end, Failed)
    assert end.code == "generation_failed"
    assert type(error).__name__ in end.message
    assert_says_no_path(end.message)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "bad" in record.getMessage()
    assert record.exc_info
    assert_next_job_is_right(bench)


def test_a_failure_leaves_the_job_beside_it_as_it_is(bench: Bench) -> None:
    stays = work("stays", steps=6, scheduler="euler_a")
    bench.engine.submit(stays)
    bench.engine.step()
    bench.engine.submit(work("bad", width=72, height=72))

    def only_the_other(_: Any, __: Any, named: dict[str, Any]) -> None:
        if named["sample"].shape[-1] == 9:
            raise RuntimeError("no")

    handle = bench.model.denoiser.module.register_forward_pre_hook(only_the_other, with_kwargs=True)
    bench.run()
    handle.remove()
    assert isinstance(terminal(bench, "bad"), Failed)
    assert_alone_and_together_are_alike(bench, stays)


def allocate_too_much() -> None:
    """Ask torch for 4 EiB of the CPU's memory, which it refuses in its own way."""
    torch.empty(2**60)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    "act",
    [fail_with(MemoryError()), fail_with(torch.OutOfMemoryError("CUDA out of memory")), allocate_too_much],
    ids=["python", "gpu", "cpu"],
)
def test_running_out_of_memory_is_told_as_such(bench: Bench, name: str, act: Any) -> None:
    with before_each_forward(part(bench.model, name), act):
        bench.run(work("huge", count=4))
    end = terminal(bench, "huge")
    assert isinstance(end, Failed)
    assert end.code == "out_of_memory"
    assert "fewer or smaller" in end.message
    assert_says_no_path(end.message)
    assert_next_job_is_right(bench)


def test_the_memory_of_a_job_that_ran_out_is_free_before_the_cache_is_emptied(
    model: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While an exception is handled, its traceback holds every tensor of the frames it came through.
    alive: list[weakref.ref[torch.Tensor]] = []
    held: list[bool] = []

    def run_out() -> None:
        latents = torch.empty(8)
        alive.append(weakref.ref(latents))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(denoiser, "release", lambda _: held.append(alive[-1]() is not None))
    bench = Bench(model)
    with before_each_forward(model.denoiser.module, run_out):
        bench.run(work("huge"))
    assert held
    assert not any(held)


def test_a_result_that_fits_no_frame_fails_its_job_alone(bench: Bench) -> None:
    def emit(message: Message) -> None:
        encode(message)
        bench.said.append(message)

    bench.engine = Engine(only(bench.model, emit), emit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "MAX_FRAME", 2000)
        bench.run(work("large"))
    end = terminal(bench, "large")
    assert isinstance(end, Failed)
    assert end.code == "generation_failed"
    assert_next_job_is_right(bench)


def test_a_front_that_has_gone_ends_the_engine_and_is_no_failure_of_the_job(
    model: Diffusion, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[Message] = []

    def emit(message: Message) -> None:
        if any(isinstance(each, Progress) for each in said) and not isinstance(message, Pulse):
            raise FrontGoneError
        said.append(message)

    engine = Engine(only(model, emit), emit)
    engine.submit(work("unheard"))
    engine.step()
    with pytest.raises(FrontGoneError):
        engine.step()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


# Memory.


def pipelines() -> int:
    """How many pipelines there are in this process, copies included."""
    return sum(issubclass(type(each), StableDiffusionPipeline) for each in gc.get_objects())


@pytest.mark.usefixtures("_no_collector")
def test_a_cancelled_job_gives_its_memory_back_at_once(bench: Bench) -> None:
    # Its encoded prompt is kept for the next.
    bench.run(work("first", steps=1))
    bench.rest()
    before = (tensors(), pipelines())
    bench.engine.submit(work("gone", steps=20))
    for _ in range(3):
        bench.engine.step()
    assert (tensors() > before[0], pipelines()) == (True, before[1] + 1)
    task = bench.engine._tasks["gone"]
    parked, waiting = weakref.ref(task.strands[0]._greenlet), weakref.ref(task)
    del task
    bench.engine.cancel("gone")
    assert parked() is None
    assert waiting() is None
    # Fewer when the encoding thread has let go of the first one's picture in the meantime.
    assert tensors() <= before[0]
    assert pipelines() == before[1]


@pytest.mark.usefixtures("_no_collector")
def test_memory_does_not_grow_over_many_jobs_cancelled_finished_or_failed(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError

    def round_of_jobs() -> None:
        for cancelled_after in range(3):
            bench.engine.submit(work("gone", steps=9))
            for _ in range(cancelled_after):
                bench.engine.step()
            bench.engine.cancel("gone")
        bench.run(work("done", steps=1))
        with before_each_forward(bench.model.pipe.vae.decoder, fail):
            bench.run(work("bad", steps=1))
        assert bench.heard(Failed)
        bench.said.clear()
        bench.rest()

    round_of_jobs()
    before = (tensors(), pipelines())
    for _ in range(10):
        round_of_jobs()
    assert (tensors(), pipelines()) == before


def test_a_picture_of_a_cancelled_engine_is_still_right_after_many_cancels(bench: Bench) -> None:
    for n in range(30):
        bench.engine.submit(work(f"gone{n}", steps=9, scheduler=SCHEDULERS[n % len(SCHEDULERS)], seed=n))
        bench.engine.step()
        bench.engine.cancel(f"gone{n}")
    assert len(bench.heard(Cancelled)) == 30
    bench.run(work("next"))
    assert difference(bench.picture("next"), picture(bench.model)) <= TOLERANCE
