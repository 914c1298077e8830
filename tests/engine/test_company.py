"""Jobs that share forwards: what happens to the others when one is cancelled, fails or is too large."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rbee_sd.engine import loop, outputs
from rbee_sd.engine.calls import Call, Stage
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.messages import INPAINT, TRANSFORM, Cancelled, Failed, Finished, Generate, Message, Progress
from tests.engine.bench import DEADLINE, TOLERANCE, Bench, alone, difference, pixels, tensors, work
from tests.engine.test_families import assert_as_alone, inputs_of

ENDS = (Finished, Failed, Cancelled)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")


def ending(bench: Bench, job_id: str) -> Message:
    """The one message that ended the job; nothing was said of it after."""
    of_job = [said for said in bench.said if getattr(said, "job_id", None) == job_id]
    (end,) = [said for said in of_job if isinstance(said, ENDS)]
    assert of_job[-1] is end
    return end


@contextmanager
def before_rows(model: Diffusion, act: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Have `act` called with the arguments of each forward."""
    handle = model.denoiser.module.register_forward_pre_hook(lambda _, __, named: act(named), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def poisoned(model: Diffusion, *prompts: str, error: type[Exception] = RuntimeError) -> Iterator[list[int]]:
    """Have every forward fail that has a row with one of these prompts. Gives the rows of those that did not."""
    device = torch.device("cpu")
    texts = [model.pipe.encode_prompt(prompt, device, 1, False)[0][0] for prompt in prompts]
    rows: list[int] = []

    def look(named: dict[str, Any]) -> None:
        if any(torch.equal(row, text) for row in named["encoder_hidden_states"] for text in texts):
            raise error("no picture of this")
        rows.append(len(named["sample"]))

    with before_rows(model, look):
        yield rows


@contextmanager
def memory_for(model: Diffusion, most: int, *, side: int | None = None) -> Iterator[list[tuple[int, int]]]:
    """Have forwards of more rows run out of memory, of one size or all. Gives rows and side of all that were tried."""
    tried: list[tuple[int, int]] = []

    def look(named: dict[str, Any]) -> None:
        rows, _, _, width = named["sample"].shape
        tried.append((rows, width * 8))
        if rows > most and side in (None, width * 8):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with before_rows(model, look):
        yield tried


class Gate:
    """Something that the encoding thread does only when it is let."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self.open.wait(DEADLINE)
        return self._work(*arguments)


def strand_of(bench: Bench, job_id: str) -> Any:
    """The first image of a job in the making."""
    return bench.engine._tasks[job_id].strands[0]


# All at once.


def test_eight_jobs_of_all_kinds_end_as_they_should(bench: Bench) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "text": {},
        TRANSFORM: {"operation": TRANSFORM, "strength": 0.7},
        INPAINT: {"operation": INPAINT, "strength": 0.9},
    }
    schedulers = ("euler", "dpmpp_2m_karras", "euler_a", "unipc")
    works = []
    for number, colour in enumerate(COLOURS):
        kind = list(kinds)[number % 3]
        inputs = () if kind == "text" else inputs_of(kind)
        works.append(
            work(
                colour,
                prompt=f"a {colour} circle",
                seed=number,
                steps=6 + number,
                scheduler=schedulers[number % 4],
                guidance_scale=2.0 + number,
                inputs=inputs,
                **kinds[kind],
            )
        )
    with poisoned(bench.model, "a yellow circle"):
        for each in works:
            bench.engine.submit(each)
        while not {"red", "blue"} <= {said.job_id for said in bench.heard(Progress) if said.step == 3}:
            bench.step()
        bench.engine.cancel("red")
        bench.engine.cancel("blue")
        bench.run()
    ends = {colour: ending(bench, colour) for colour in COLOURS}
    assert [colour for colour in COLOURS if isinstance(ends[colour], Cancelled)] == ["red", "blue"]
    assert [colour for colour in COLOURS if isinstance(ends[colour], Failed)] == ["yellow"]
    assert_as_alone(bench, *(each for each in works if isinstance(ends[each.job_id], Finished)))


# Cancelling.


STAYS = work("stays", seed=5, steps=9, scheduler="euler_a")


def assert_cancelled_and_gone(bench: Bench, before: int) -> None:
    """The job `gone` has ended, at once and for good; nothing of it is left, and who stays paints on."""
    task = weakref.ref(bench.engine._tasks["gone"])
    bench.engine.cancel("gone")
    assert task() is None
    assert tensors() == before
    assert isinstance(ending(bench, "gone"), Cancelled)
    bench.run()
    assert isinstance(ending(bench, "gone"), Cancelled)
    assert_as_alone(bench, *([STAYS] if bench.heard(Finished, "stays") else []))


def gone(**changes: Any) -> Generate:
    """The job that is cancelled."""
    return work("gone", **{"steps": 3, **changes})


@pytest.mark.usefixtures("_no_collector")
def test_a_job_is_cancelled_before_it_begins(bench: Bench) -> None:
    alone(bench.model, STAYS)
    bench.engine.submit(STAYS)
    bench.step()
    before = tensors()
    bench.engine.submit(gone())
    assert_cancelled_and_gone(bench, before)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize(
    "operation, scheduler",
    [(TRANSFORM, "euler"), (INPAINT, "dpmpp_2m"), (INPAINT, "dpmpp_sde"), (TRANSFORM, "lms"), (TRANSFORM, "pndm")],
)
def test_a_job_is_cancelled_while_it_waits_for_a_forward(bench: Bench, operation: str, scheduler: str) -> None:
    each = gone(operation=operation, inputs=inputs_of(operation), scheduler=scheduler, steps=8)
    alone(bench.model, each)
    gc.collect()
    before = tensors()
    bench.engine.submit(each)
    while len(bench.heard(Progress, "gone")) < 3:
        bench.step()
    assert isinstance(strand_of(bench, "gone").wants, Call)
    assert tensors() > before
    assert_cancelled_and_gone(bench, before)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("operation", [TRANSFORM, INPAINT])
def test_a_job_is_cancelled_while_it_waits_for_the_encoder_of_the_vae(
    bench: Bench, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(bench.model, STAYS)
    alone(bench.model, gone(operation=operation, inputs=inputs_of(operation)))
    gc.collect()
    before = tensors()
    for each in ("first", "gone"):
        bench.engine.submit(work(each, operation=operation, inputs=inputs_of(operation), seed=1))
    while not all(task.ready for task in bench.engine._tasks.values()):
        bench.engine.deliver()
    bench.engine._begin()
    # Time for one of the two.
    monkeypatch.setattr(loop, "PAUSE", 0.0)
    bench.engine._stage()
    assert isinstance(strand_of(bench, "gone").wants, Stage)
    bench.engine.cancel("first")
    assert_cancelled_and_gone(bench, before)
    assert not bench.heard(Progress, "gone")


@pytest.mark.usefixtures("_no_collector")
def test_a_job_is_cancelled_while_it_waits_for_the_decoder_of_the_vae(bench: Bench) -> None:
    alone(bench.model, gone())
    gc.collect()
    before = tensors()
    bench.engine.submit(gone(count=2))
    while len(bench.heard(Progress, "gone")) < 3:
        bench.step()
    assert isinstance(strand_of(bench, "gone").wants, Stage)
    assert_cancelled_and_gone(bench, before)


def test_a_job_is_cancelled_while_its_file_is_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(outputs.picture_file)
    monkeypatch.setattr(outputs, "picture_file", gate)
    bench.engine.submit(gone())
    while not gate.entered.is_set():
        if bench.engine.busy:
            bench.step()
    assert not bench.engine.busy
    bench.engine.submit(STAYS)
    bench.step(2)
    task = weakref.ref(bench.engine._tasks["gone"])
    bench.engine.cancel("gone")
    gate.open.set()
    bench.run()
    assert isinstance(ending(bench, "gone"), Cancelled)
    assert task() is None
    assert_as_alone(bench, STAYS)


def test_a_job_is_cancelled_while_its_inputs_are_decoded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(bench.model.read)
    with monkeypatch.context() as patch:
        patch.setattr(bench.model, "read", gate)
        bench.engine.submit(gone(operation=TRANSFORM, inputs=inputs_of(TRANSFORM)))
        assert gate.entered.wait(DEADLINE)
    assert not bench.engine.busy
    bench.engine.submit(STAYS)
    bench.step(2)
    assert len(bench.heard(Progress, "stays")) == 2
    task = weakref.ref(bench.engine._tasks["gone"])
    bench.engine.cancel("gone")
    assert isinstance(ending(bench, "gone"), Cancelled)
    gate.open.set()
    bench.run()
    assert isinstance(ending(bench, "gone"), Cancelled)
    assert task() is None
    assert_as_alone(bench, STAYS)


@pytest.mark.parametrize("moment", range(9))
def test_cancelling_one_image_of_a_crowd_at_any_moment_leaves_the_others(bench: Bench, moment: int) -> None:
    operations = ("image_generation", TRANSFORM, INPAINT)
    others = [work(each, operation=each, inputs=inputs_of(each), seed=3, steps=5) for each in operations]
    for each in (*others[:1], gone(operation=INPAINT, inputs=inputs_of(INPAINT), count=2), *others[1:]):
        bench.engine.submit(each)
    while not all(task.ready for task in bench.engine._tasks.values()):
        bench.engine.deliver()
    for _ in range(moment):
        bench.engine.step()
    bench.engine.cancel("gone")
    bench.run()
    ending(bench, "gone")
    assert_as_alone(bench, *others)


# Failing.


@pytest.fixture(scope="module")
def crowd() -> list[Generate]:
    """Eight small jobs."""
    return [
        work(colour, prompt=f"a {colour} square", seed=number, steps=2, width=32, height=32)
        for number, colour in enumerate(COLOURS)
    ]


def subsets() -> list[tuple[str, ...]]:
    """Some of the subsets of the crowd: none, singles, neighbours, all, and some at random."""
    chance = random.Random(0)
    some = [tuple(chance.sample(COLOURS, size)) for size in (2, 3, 4, 5, 6, 7)]
    return [(), *((colour,) for colour in COLOURS), *itertools.pairwise(COLOURS), COLOURS, *some]


def test_whoever_makes_a_forward_fail_fails_alone(model: Diffusion, crowd: list[Generate]) -> None:
    expected = {each.job_id: pixels(alone(model, each)[0]) for each in crowd}
    for culprits in subsets():
        bench = Bench(model)
        with poisoned(model, *(f"a {colour} square" for colour in culprits)):
            bench.run(*crowd)
        bench.engine.close()
        for each in crowd:
            end = ending(bench, each.job_id)
            assert isinstance(end, Failed if each.job_id in culprits else Finished), culprits
            if isinstance(end, Finished):
                assert difference(pixels(end.images[0]), expected[each.job_id]) <= TOLERANCE


def test_one_image_that_fails_ends_its_job_and_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = work("bad", prompt="a red star", count=3, steps=4)
    good = work("good", prompt="a blue star", count=3, steps=4)
    with poisoned(bench.model, "a red star"):
        bench.run(bad, good)
    assert isinstance(ending(bench, "bad"), Failed)
    assert_as_alone(bench, good)


def test_a_failure_does_not_make_later_forwards_smaller(bench: Bench, crowd: list[Generate]) -> None:
    with poisoned(bench.model, "a red square") as rows:
        bench.run(*crowd)
    assert rows[-1] == 2 * (len(crowd) - 1)


@pytest.mark.usefixtures("_no_collector")
def test_a_failed_job_gives_its_memory_back_at_once(bench: Bench) -> None:
    with poisoned(bench.model, "a red star"):

        def a_round() -> int:
            bench.run(work("bad", prompt="a red star", count=2), work("worse", prompt="a red star"))
            assert isinstance(ending(bench, "bad"), Failed)
            bench.said.clear()
            return tensors()

        before = a_round()
        assert [a_round() for _ in range(3)] == [before] * 3


# Too large.


@pytest.mark.parametrize("most", [2, 3, 5, 8, 15])
def test_a_forward_that_is_too_large_is_done_in_parts_and_later_ones_are_smaller(
    bench: Bench, crowd: list[Generate], most: int
) -> None:
    wide = [work(f"wide{n}", prompt="a wide star", seed=n, width=64, height=32, steps=2) for n in range(4)]
    with memory_for(bench.model, most, side=32) as tried:
        bench.run(*crowd, *wide)
        failed = [rows for rows, side in tried if side == 32 and rows > most]
        # Each halving is tried once, and never again.
        assert failed == sorted(set(failed), reverse=True)
        assert (8, 64) in tried
        tried.clear()
        bench.run(*(work(f"later{n}", width=32, height=32) for n in range(8)))
        assert max(rows for rows, _ in tried) <= most
    assert not bench.heard(Failed)
    assert_as_alone(bench, *crowd, *wide)


def test_guidance_that_does_not_fit_one_forward_is_done_in_two(bench: Bench) -> None:
    works = [work("a", seed=1), work("b", seed=2, scheduler="euler_a"), work("c", seed=3, guidance_scale=1.0)]
    with memory_for(bench.model, 1) as tried:
        bench.run(*works)
    assert {rows for rows, _ in tried} >= {1}
    assert not bench.heard(Failed)
    assert_as_alone(bench, *works)


def test_who_is_too_large_even_alone_fails_and_says_so(bench: Bench) -> None:
    with memory_for(bench.model, 0, side=64):
        bench.run(work("huge"), work("small", width=32))
    end = ending(bench, "huge")
    assert isinstance(end, Failed)
    assert end.code == "out_of_memory"
    assert isinstance(ending(bench, "small"), Finished)
    bench.run(work("next"))
    assert_as_alone(bench, work("next"))


def test_who_alone_runs_out_of_memory_does_not_take_others_along(bench: Bench, crowd: list[Generate]) -> None:
    with poisoned(bench.model, "a green square", error=torch.OutOfMemoryError):
        bench.run(*crowd)
    end = ending(bench, "green")
    assert isinstance(end, Failed)
    assert end.code == "out_of_memory"
    assert_as_alone(bench, *(each for each in crowd if each.job_id != "green"))


def test_inputs_of_jobs_that_were_cancelled_are_not_decoded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded, may_go = bench.model.read, list[str](), threading.Event()

    def slow(each: Generate) -> Any:
        decoded.append(each.job_id)
        assert may_go.wait(30)
        return read(each)

    monkeypatch.setattr(bench.model, "read", slow)
    for job_id in ("first", "gone", "last"):
        bench.engine.submit(work(job_id, operation=TRANSFORM, inputs=inputs_of(TRANSFORM), strength=1.0))
    bench.engine.cancel("gone")
    may_go.set()
    bench.run()
    assert decoded == ["first", "last"]
    assert len(bench.heard(Finished)) == 2
