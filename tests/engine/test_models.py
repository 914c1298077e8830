"""Several models in one engine: swapped, alternating, and each making the pictures that it makes alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rbee_sd.engine.config import DEMO
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.models import Models
from rbee_sd.engine.supply import ModelSupply
from rbee_sd.messages import (
    Cancelled,
    Curve,
    Failed,
    Finished,
    Generate,
    Loading,
    LoadModel,
    Message,
    Narration,
    Progress,
    Ready,
    Unloaded,
)
from tests.engine import tiny
from tests.engine.bench import TOLERANCE, Bench, alone, config, difference, pixels, work

MakeBench = Callable[..., Bench]


class Supply(ModelSupply):
    """The real one, which leaves the test's own garbage alone and says how much memory there is."""

    def __init__(self, pipe: Connection, free: int | None = None) -> None:
        super().__init__(config("demo"), pipe)
        self.room = free
        self.settled = 0

    def free(self) -> int | None:
        """See `Supply`."""
        return self.room

    def settle(self) -> None:
        """See `Supply`."""
        self.settled += 1


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion XL with random weights."""
    return tiny.write("sdxl", tmp_path_factory.mktemp("models") / "other")


@pytest.fixture
def make() -> Iterator[MakeBench]:
    """Make an engine that has the demo and may have `most` models, or as many as `free` bytes hold."""
    benches: list[Bench] = []
    ours, theirs = Pipe()

    def make(most: int = 0, free: int | None = None) -> Bench:
        def with_demo(emit: Callable[[Message], None]) -> Models:
            models = Models(supply, emit, "demo", most)
            models.load("demo", "demo", (), (), lambda text: None)
            return models

        supply = Supply(ours, free)
        bench = Bench(None, with_demo)
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.engine.close()
    ours.close()
    theirs.close()


def for_other(other: Path, job_id: str = "other", **changes: object) -> Generate:
    """A job for the other model."""
    return replace(work(job_id, **changes), model="other", source=str(other))


def solo(other: Path, each: Generate) -> bytes:
    """What a job for the other model makes when nothing else is loaded."""
    return alone(load(replace(config(other), name="other")), replace(each, model="", source=""))[0]


def order(bench: Bench) -> list[str]:
    """What was loaded and let go of, in order."""
    return [
        f"{type(said).__name__} {said.model}" for said in bench.said if isinstance(said, Loading | Ready | Unloaded)
    ]


def told(bench: Bench, job_id: str) -> str:
    """All sentences about a job."""
    return "\n".join(said.text for said in bench.heard(Narration, job_id))


def test_a_job_of_another_model_has_it_loaded_and_gets_the_picture_it_gets_alone(make: MakeBench, other: Path) -> None:
    bench = make()
    job = for_other(other)
    bench.run(job)
    (ready,) = bench.heard(Ready)[1:]
    assert (ready.model, ready.family) == ("other", "stable-diffusion-xl")
    assert difference(bench.picture("other"), pixels(solo(other, job))) <= TOLERANCE
    assert "loading model other\n" in told(bench, "other")
    assert order(bench) == ["Loading demo", "Ready demo", "Loading other", "Ready other"]
    assert all(curve.model in ("demo", "other") for curve in bench.heard(Curve))


def test_jobs_of_two_models_alternate_and_share_no_forward(make: MakeBench, other: Path, model: Diffusion) -> None:
    bench = make()
    bench.run(for_other(other, "warm"))
    before = bench.models.forwards
    mine, theirs = work("demo", steps=6, seed=3), for_other(other, steps=6, seed=3)
    bench.run(mine, theirs)
    assert bench.models.forwards == before + 12
    steps = [said.job_id for said in bench.said if isinstance(said, Progress) and said.job_id != "warm"]
    assert steps in (["demo", "other"] * 6, ["other", "demo"] * 6)
    assert difference(bench.picture("demo"), pixels(alone(model, mine)[0])) <= TOLERANCE
    assert difference(bench.picture("other"), pixels(solo(other, theirs))) <= TOLERANCE


def test_two_models_of_one_architecture_share_no_forward_either(make: MakeBench, model: Diffusion) -> None:
    bench = make()
    twin = replace(work("twin", steps=4), model="twin", source=str(DEMO))
    bench.run(replace(twin, job_id="warm"))
    before = bench.models.forwards
    bench.run(work("demo", steps=4), twin)
    assert bench.models.forwards == before + 8
    expected = pixels(alone(model, work("demo", steps=4))[0])
    for job_id in ("demo", "twin"):
        assert difference(bench.picture(job_id), expected) <= TOLERANCE


def test_without_room_the_idle_model_goes_and_comes_back_for_its_next_job(make: MakeBench, other: Path) -> None:
    bench = make(most=1)
    bench.run(for_other(other))
    assert order(bench)[2:] == ["Loading other", "Unloaded demo", "Ready other"]
    assert "loading model other; demo is unloaded to make room" in told(bench, "other")
    bench.run(work("back"))
    assert order(bench)[5:] == ["Loading demo", "Unloaded other", "Ready demo"]
    assert bench.heard(Finished, "back")


def test_a_model_in_use_is_not_taken_away_and_its_new_jobs_wait_behind_who_waited_longer(
    make: MakeBench, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(most=1)
    # It has been there for long.
    bench.models._held["demo"].took = 0.0
    bench.engine.submit(work("first", steps=5))
    bench.step(2)
    bench.engine.submit(for_other(other))
    bench.step()
    assert "waiting for the jobs of demo" in told(bench, "other")
    bench.run(work("late", steps=1))
    ends = [said.job_id for said in bench.heard(Finished)]
    assert ends == ["first", "other", "late"]
    there = ["Loading other", "Unloaded demo", "Ready other"]
    assert order(bench)[2:] == [*there, "Loading demo", "Unloaded other", "Ready demo"]


def test_a_model_stays_for_as_long_as_it_took_to_load(make: MakeBench, other: Path) -> None:
    bench = make(most=1)
    bench.models._held["demo"].took = 1000.0
    bench.engine.submit(work("first", steps=5))
    bench.step(2)
    bench.engine.submit(for_other(other))
    bench.step()
    bench.run(work("late", steps=1))
    assert [said.job_id for said in bench.heard(Finished)] == ["late", "first", "other"]


def test_a_swap_that_nobody_waits_for_any_more_does_not_happen(make: MakeBench, other: Path) -> None:
    bench = make(most=1)
    bench.models._held["demo"].took = 0.0
    bench.engine.submit(work("first", steps=5))
    bench.step(2)
    bench.engine.submit(for_other(other))
    bench.step()
    bench.engine.submit(work("late", steps=1))
    bench.engine.cancel("other")
    assert bench.heard(Cancelled, "other") == [Cancelled("other", 0)]
    bench.run()
    assert order(bench) == ["Loading demo", "Ready demo"]
    assert {said.job_id for said in bench.heard(Finished)} == {"first", "late"}


def test_a_model_that_cannot_be_loaded_fails_its_jobs_and_nobody_elses(
    make: MakeBench, tmp_path: Path, model: Diffusion
) -> None:
    bench = make()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "X"]}')
    bench.engine.submit(work("good", steps=4))
    bench.step()
    bad = [replace(work(job_id), model="broken", source=str(broken)) for job_id in ("bad", "worse")]
    bench.run(*bad)
    for each in bad:
        (failed,) = bench.heard(Failed, each.job_id)
        assert failed.code == "model_failed"
        assert str(tmp_path) not in failed.message
    assert "paused while model broken is loaded" in told(bench, "good")
    assert difference(bench.picture("good"), pixels(alone(model, work(steps=4))[0])) <= TOLERANCE
    # It is not tried again at once: that would hold up everybody.
    bench.run(replace(bad[0], job_id="again"))
    assert bench.heard(Failed, "again")
    assert order(bench).count("Loading broken") == 1
    # But who asks for just that is not refused.
    bench.run(LoadModel("asked", "broken", str(broken)))
    assert bench.heard(Failed, "asked")
    assert order(bench).count("Loading broken") == 2


def test_out_of_memory_while_loading_lets_the_idle_models_go_and_tries_once_more(
    make: MakeBench, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    opened, room = ModelSupply.open, [MemoryError()]

    def full(supply: ModelSupply, name: str, source: str) -> object:
        if room:
            raise room.pop()
        return opened(supply, name, source)

    monkeypatch.setattr(ModelSupply, "open", full)
    bench.run(for_other(other))
    assert order(bench)[2:] == ["Loading other", "Unloaded demo", "Ready other"]
    assert bench.heard(Finished, "other")
    room.append(MemoryError())
    bench.run(work("back"))
    assert bench.heard(Finished, "back")
    room += [MemoryError(), MemoryError()]
    bench.run(for_other(other, "never"))
    (failed,) = bench.heard(Failed, "never")
    assert (failed.code, failed.message) == ("model_failed", "there is not enough memory for the model other")


@pytest.mark.parametrize("part, call", [("unet", "forward"), ("vae", "decode")])
def test_a_job_that_runs_out_of_memory_lets_the_idle_models_go_and_goes_on(
    make: MakeBench, other: Path, model: Diffusion, monkeypatch: pytest.MonkeyPatch, part: str, call: str
) -> None:
    bench = make()
    bench.run(for_other(other))
    demo: Any = bench.models.use("demo")
    module = getattr(demo.pipe, part)
    does = getattr(module, call)

    def full(*arguments: Any, **named: Any) -> Any:
        if "other" in bench.models:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return does(*arguments, **named)

    monkeypatch.setattr(module, call, full)
    job = work("large")
    bench.run(job)
    assert list(bench.models._held) == ["demo"]
    assert difference(bench.picture("large"), pixels(alone(model, job)[0])) <= TOLERANCE


def test_a_model_folder_is_weighed_as_it_is_used_and_what_leads_nowhere_weighs_nothing(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    save_file({"a": torch.zeros(10, dtype=torch.float16)}, tmp_path / "half.safetensors")
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    supply = ModelSupply(config("demo"), ours)
    assert supply.weigh(str(tmp_path)) == 40
    assert ModelSupply(config("demo", dtype="float16"), ours).weigh(str(tmp_path)) == 20
    assert supply.weigh(str(tmp_path / "nowhere")) == 0
    ours.close()
    theirs.close()


def test_no_more_models_go_than_memory_asks_for(make: MakeBench, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(free=1 << 40)
    bench.run(for_other(other))
    assert "demo" in bench.models
    monkeypatch.setattr(bench.models._supply, "room", 0)
    bench.run(replace(for_other(other, "third"), model="third"))
    assert [name for name in ("demo", "other", "third") if name in bench.models] == ["other", "third"]


def test_loading_and_letting_go_can_be_asked_for(make: MakeBench, other: Path) -> None:
    bench = make()
    bench.run(LoadModel("load", "other", str(other)))
    assert bench.heard(Finished, "load") == [Finished("load", ())]
    bench.engine.submit(for_other(other))
    bench.step()
    bench.engine.unload("refused", "other")
    (failed,) = bench.heard(Failed, "refused")
    assert failed.code == "model_in_use"
    bench.run()
    bench.engine.unload("unload", "other")
    assert bench.heard(Finished, "unload")
    assert order(bench)[-1] == "Unloaded other"
    bench.engine.unload("again", "other")
    assert bench.heard(Finished, "again")


def test_a_model_that_went_leaves_nothing_in_memory(make: MakeBench, other: Path) -> None:
    bench = make()
    bench.run(for_other(other))
    loaded: Any = bench.models.use("other")
    module = weakref.ref(loaded.denoiser.module)
    del loaded
    bench.engine.unload("unload", "other")
    bench.rest()
    gc.collect()
    assert module() is None
