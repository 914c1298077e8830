"""LoRAs on the demo model: who has them, who shares forwards with whom, and what a bad file does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.loras import KEPT
from rbee_sd.messages import Failed, Finished, Generate, Progress, Started
from tests.engine.bench import TOLERANCE, Bench, alone, config, difference, draw, picture, pixels, work
from tests.engine.test_families import assert_as_alone, engine_over, watched_rows

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MANY = KEPT + 3
Name = Callable[[str, str], str]


def weights(part: Any, name: Name, seed: int, *, extra: int = 0) -> dict[str, torch.Tensor]:
    """A LoRA for the attention of a part, with random weights; `extra` columns make it one for another model."""
    chance = torch.Generator().manual_seed(seed)
    made = {}
    for path, layer in part.named_modules():
        if path.endswith((*ATTENTION, "out_proj")):
            rows, columns = layer.weight.shape
            made[name(path, "A")] = torch.randn(4, columns + extra, generator=chance) * 0.5
            made[name(path, "B")] = torch.randn(rows, 4, generator=chance) * 0.5
    assert made
    return made


def of_diffusers(part: str) -> Name:
    """Names as diffusers writes them."""
    return lambda path, which: f"{part}.{path}.lora_{which}.weight"


def of_kohya(path: str, which: str) -> str:
    """Names as most LoRAs that are handed around have them."""
    return f"lora_unet_{path.replace('.', '_')}.lora_{'down' if which == 'A' else 'up'}.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Diffusion) -> Path:
    """LoRAs for the demo model, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("loras")
    unet = model.pipe.unet
    for name, seed in (("red", 1), ("blue", 2), *((f"many{n}", 100 + n) for n in range(MANY))):
        save_file(weights(unet, of_diffusers("unet"), seed), folder / f"{name}.safetensors")
    save_file(weights(unet, of_kohya, 3), folder / "kohya.safetensors")
    encoder = weights(model.pipe.text_encoder, of_diffusers("text_encoder"), 4)
    save_file(encoder, folder / "words.safetensors")
    whole = (folder / "red.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.safetensors").write_bytes(b"")
    save_file({"something.else": torch.zeros(3)}, folder / "without-keys.safetensors")
    save_file(weights(unet, of_diffusers("unet"), 5, extra=8), folder / "too-wide.safetensors")
    save_file(weights(unet, of_diffusers("transformer"), 6), folder / "of-flux.safetensors")
    return folder


BAD = ("truncated", "empty", "without-keys", "too-wide", "of-flux", "missing")


@pytest.fixture
def fresh(folder: Path) -> Diffusion:
    """The demo model with LoRAs to choose from, none of them loaded."""
    names = [path.stem for path in sorted(folder.iterdir())] + ["missing"]
    return load(config("demo", loras=tuple((name, str(folder / f"{name}.safetensors")) for name in names)))


@pytest.fixture
def bench(fresh: Diffusion) -> Iterator[Bench]:
    """An engine over it."""
    with engine_over(fresh) as bench:
        yield bench


def with_loras(*names: str, scale: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Fields of a job that wants these LoRAs."""
    return {"loras": names, "lora_scales": (scale,) * len(names), **changes}


def run_together(bench: Bench, *works: Generate) -> None:
    """Do these jobs to the end, from a moment at which the files of all are read."""
    for each in works:
        bench.engine.submit(each)
    bench.rest()
    bench.engine.deliver()
    bench.run()


@pytest.mark.parametrize("name", ["red", "kohya", "words"])
def test_a_lora_changes_the_picture_and_its_scale_how_much(fresh: Diffusion, model: Diffusion, name: str) -> None:
    plain, strong, weak = (
        picture(fresh),
        picture(fresh, **with_loras(name)),
        picture(fresh, **with_loras(name, scale=0.4)),
    )
    assert difference(plain, picture(model)) == 0
    assert difference(plain, strong) > TOLERANCE
    assert difference(plain, weak) > TOLERANCE
    assert difference(strong, weak) > TOLERANCE


def test_without_a_lora_a_job_is_what_it_was_before_any_was_loaded(fresh: Diffusion) -> None:
    before = draw(fresh)
    for names in (("red",), ("kohya", "blue"), ("words",)):
        first = draw(fresh, **with_loras(*names))
        assert draw(fresh) == before
        assert draw(fresh, **with_loras(*names)) == first


def test_the_order_of_loras_does_not_matter_and_their_scales_go_with_them(fresh: Diffusion) -> None:
    one = picture(fresh, loras=("red", "blue"), lora_scales=(1.0, 0.3))
    same = picture(fresh, loras=("blue", "red"), lora_scales=(0.3, 1.0))
    other = picture(fresh, loras=("blue", "red"), lora_scales=(1.0, 0.3))
    assert difference(one, same) == 0
    assert difference(one, other) > TOLERANCE


def test_jobs_of_different_loras_alternate_and_paint_what_they_paint_alone(bench: Bench) -> None:
    works = [
        work("plain", steps=5),
        work("red", steps=4, seed=2, **with_loras("red")),
        work("kohya", steps=6, seed=3, **with_loras("kohya", scale=0.7)),
        work("words", steps=5, seed=4, **with_loras("words")),
        work("both", steps=3, seed=5, **with_loras("red", "words", scale=0.5)),
        work("weaker", steps=4, seed=6, **with_loras("red", scale=0.5)),
    ]
    with watched_rows(bench.model) as rows:
        run_together(bench, *works)
    assert set(rows) == {2}
    assert len(rows) == sum(each.steps or 0 for each in works)
    for other in ("red", "kohya", "words"):
        steps = [said.job_id for said in bench.heard(Progress) if said.job_id in ("plain", other)]
        assert steps[:6] in (["plain", other] * 3, [other, "plain"] * 3)
    assert_as_alone(bench, *works)


def test_jobs_of_the_same_loras_share_forwards(bench: Bench) -> None:
    works = [
        work(f"red{n}", seed=n, **with_loras(*names, scale=0.2))
        for n, names in enumerate([("red", "blue"), ("blue", "red"), ("red", "blue")])
    ]
    with watched_rows(bench.model) as rows:
        run_together(bench, *works)
    assert rows == [6, 6, 6]
    assert_as_alone(bench, *works)


def test_loading_a_lora_beside_running_jobs_changes_nothing_for_them(bench: Bench) -> None:
    running = work("running", steps=8, seed=9, scheduler="euler_a", exclusive=True)
    (expected,) = alone(bench.model, running)
    bench.engine.submit(running)
    bench.step(3)
    bench.engine.submit(work("late", steps=2, **with_loras("kohya")))
    bench.step(2)
    bench.engine.submit(work("bad", **with_loras("too-wide")))
    bench.run()
    assert bench.heard(Finished, "running")[0].images == (expected,)
    assert isinstance(bench.heard(Failed, "bad")[0], Failed)


@pytest.mark.parametrize("name", BAD)
def test_a_lora_that_cannot_be_used_fails_its_job_alone(bench: Bench, name: str) -> None:
    expected = {"plain": picture(bench.model), "red": picture(bench.model, **with_loras("red"))}
    bench.run(work("plain"), work("bad", **with_loras(name)), work("red", **with_loras("red")))
    (failed,) = bench.heard(Failed)
    assert (failed.job_id, failed.code) == ("bad", "lora_failed")
    assert name in failed.message
    assert not set("/\\") & set(failed.message)
    for job_id in ("plain", "red"):
        assert difference(bench.picture(job_id), expected[job_id]) == 0
    bench.said.clear()
    bench.run(work("again", **with_loras(name)), work("mixed", **with_loras("red", name)))
    assert {said.code for said in bench.heard(Failed)} == {"lora_failed"}
    assert len(bench.heard(Failed)) == 2
    assert difference(picture(bench.model), expected["plain"]) == 0
    assert difference(picture(bench.model, **with_loras("red")), expected["red"]) == 0


def test_a_bad_lora_as_the_very_first_does_no_harm(fresh: Diffusion, model: Diffusion) -> None:
    for name in BAD:
        with engine_over(fresh) as bench:
            bench.run(work(**with_loras(name)))
            assert [said.code for said in bench.heard(Failed)] == ["lora_failed"], name
        assert difference(picture(fresh), picture(model)) == 0, name


def test_more_loras_than_are_kept_all_work_in_turn_and_again(fresh: Diffusion) -> None:
    first = [draw(fresh, **with_loras(f"many{n}", steps=1)) for n in range(MANY)]
    assert len({png for (png,) in first}) == MANY
    loaded = fresh.pipe.get_list_adapters()["unet"]
    assert len(loaded) == KEPT
    assert [draw(fresh, **with_loras(f"many{n}", steps=1)) for n in range(MANY)] == first
    assert len(fresh.pipe.get_list_adapters()["unet"]) == KEPT


def test_more_loras_than_are_kept_all_work_beside_one_another_and_are_loaded_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_lora, loaded = bench.model.pipe.load_lora_weights, []

    def counted(*arguments: Any, **named: Any) -> None:
        loaded.append(named["weight_name"])
        load_lora(*arguments, **named)

    monkeypatch.setattr(bench.model.pipe, "load_lora_weights", counted)
    works = [work(f"job{n}", steps=3, seed=n, **with_loras(f"many{n}")) for n in range(MANY)]
    bench.run(*works)
    assert not bench.heard(Failed)
    assert sorted(loaded) == sorted(f"many{n}.safetensors" for n in range(MANY))
    assert_as_alone(bench, *works)
    assert len(bench.model.pipe.get_list_adapters()["unet"]) == KEPT


def test_the_file_of_a_lora_is_read_in_the_other_thread_before_its_job_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, told = bench.model._loras.fetch, []

    def watched(names: Iterable[str]) -> None:
        told.append((threading.current_thread() is threading.main_thread(), len(bench.heard(Started)), list(names)))
        fetch(names)

    monkeypatch.setattr(bench.model._loras, "fetch", watched)
    bench.run(work("red", **with_loras("red", "blue")))
    assert told == [(False, 0, ["red", "blue"])]
    told.clear()
    bench.run(work("again", **with_loras("red")), work("plain"))
    # Neither has anything to read: both begin without the other thread.
    assert [(main, names) for main, _, names in told] == [(True, []), (True, [])]


@pytest.mark.parametrize("fails, code", [(1, ""), (2, "out_of_memory")])
def test_a_lora_without_room_is_tried_again_without_those_that_nobody_uses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: int, code: str
) -> None:
    expected = picture(bench.model, **with_loras("red"))
    bench.model._loras._keep(0)
    draw(bench.model, **with_loras("blue", steps=1))
    load_lora = bench.model.pipe.load_lora_weights
    failures = iter([torch.OutOfMemoryError("no room")] * fails)
    loaded: list[int] = []

    def full(*arguments: Any, **options: Any) -> None:
        loaded.append(len(bench.model.pipe.get_list_adapters().get("unet", ())))
        for failure in failures:
            raise failure
        load_lora(*arguments, **options)

    monkeypatch.setattr(bench.model.pipe, "load_lora_weights", full)
    bench.run(work("red", **with_loras("red")), work("plain", seed=3))
    assert [said.code for said in bench.heard(Failed)] == ([code] if code else [])
    assert loaded == [1, 0]
    if not code:
        assert difference(bench.picture("red"), expected) == 0
    assert_as_alone(bench, work("plain", seed=3))


def test_one_job_may_want_more_loras_than_are_kept(fresh: Diffusion) -> None:
    names = [f"many{n}" for n in range(MANY)]
    all_of_them = pixels(draw(fresh, **with_loras(*names, scale=0.1))[0])
    assert difference(all_of_them, picture(fresh, **with_loras(*names[:-1], scale=0.1))) > TOLERANCE
    draw(fresh, **with_loras("red"))
    assert len(fresh.pipe.get_list_adapters()["unet"]) == KEPT
    assert difference(all_of_them, picture(fresh, **with_loras(*names, scale=0.1))) == 0
