"""Models compiled as `compile` has it: what is compiled while they are loaded, what runs so, and nothing later."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.pipeline import ModelError
from rbee_sd.messages import INPAINT, TRANSFORM, Finished
from tests.engine import tiny
from tests.engine.bench import TOLERANCE, alone, config, difference, picture, pixels, work
from tests.engine.test_company import memory_for
from tests.engine.test_families import engine_over, inputs_of
from tests.engine.test_loras import of_diffusers, weights, with_loras

SIZE: dict[str, Any] = {"width": 128, "height": 128}
"""What the classic model wants."""
LATENTS = (4, tiny.SIDE, tiny.SIDE)
"""Of a picture of it."""


class Backend:
    """For torch.compile: runs graphs as they are, and counts. `rows` has those of every graph that was run.

    Those of transformers have them in no one place: 0.
    """

    def __init__(self) -> None:
        self.graphs: list[weakref.ref[Any]] = []
        self.rows: list[int] = []
        self.fails: Callable[[int], None] = lambda rows: None
        self.names_rows = True

    def compile(self, graph: Any, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        """See torch.compile."""
        # Among the inputs are the weights, too.
        rows = max(len(each) for each in inputs if each.shape[1:] == LATENTS) if self.names_rows else 0
        self.fails(rows)
        self.graphs.append(weakref.ref(graph))

        def run(*arguments: Any) -> Any:
            self.rows.append(rows)
            return graph.forward(*arguments)

        return run

    @property
    def alive(self) -> int:
        """How many of the graphs still are in memory."""
        return sum(graph() is not None for graph in self.graphs)

    def load(self, model: object, **changes: Any) -> Diffusion:
        """A model compiled by this, as the worker loads it."""
        loaded = load(config(model, compiler=self.compile, **changes))
        loaded.warm_up()
        self.rows.clear()
        return loaded


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, classic: Path) -> Path:
    """A LoRA for the classic model."""
    file = tmp_path_factory.mktemp("loras") / "red.safetensors"
    save_file(weights(load(config(classic)).pipe.unet, of_diffusers("unet"), 1), file)
    return file


@pytest.mark.parametrize("cap", [{"max_rows": 0, "measured_rows": 2}, {"max_rows": 2}], ids=["measured", "set"])
def test_a_compiled_model_has_its_curve_and_its_capacity_and_its_jobs_run_compiled(
    backend: Backend, classic: Path, cap: dict[str, int]
) -> None:
    loaded = load(config(classic, compiler=backend.compile, **cap))
    curve = loaded.warm_up()
    assert curve.rows == ((1, 2) if "measured_rows" in cap else ())
    assert loaded.describe().capacity == curve.cap >= 1
    compiled = len(backend.graphs)
    assert compiled == 2
    backend.rows.clear()
    works = [work(f"job{n}", seed=n, steps=3, guidance_scale=1.0, **SIZE) for n in range(2)]
    with engine_over(loaded) as bench:
        bench.run(work("guided", steps=3, **SIZE))
        assert backend.rows == [2, 2, 2]
        bench.run(*works)
        assert len(backend.rows) == loaded.forwards
        assert len(backend.graphs) == compiled
        assert len(bench.heard(Finished)) == 3
        plain = load(config(classic))
        for each in works:
            assert difference(bench.picture(each.job_id), pixels(alone(plain, each)[0])) <= TOLERANCE


def test_a_model_whose_curve_is_remembered_is_compiled_all_the_same(
    backend: Backend, classic: Path, tmp_path: Path
) -> None:
    changes = {"max_rows": 0, "measured_rows": 2, "curves": str(tmp_path / "curves.json")}
    backend.load(classic, **changes)
    before = len(backend.graphs)
    loaded = backend.load(classic, **changes)
    assert not backend.rows
    assert len(backend.graphs) == 2 * before == 4
    picture(loaded, steps=2, **SIZE)
    assert backend.rows == [2, 2]


def test_rows_are_filled_up_to_a_power_of_two(backend: Backend, classic: Path) -> None:
    loaded = backend.load(classic, max_rows=6)
    plain = load(config(classic, max_rows=6))
    assert sorted(loaded.first_call(work(**SIZE)).shape.compiled) == [1, 2, 4, 8]
    for jobs in (1, 2, 3):
        works = [work(f"job{n}", seed=n, steps=2, **SIZE) for n in range(jobs)]
        with engine_over(loaded) as bench:
            bench.run(*works)
            assert backend.rows == [(2, 4, 8)[jobs - 1]] * 2
            for each in works:
                assert difference(bench.picture(each.job_id), pixels(alone(plain, each)[0])) <= TOLERANCE
        backend.rows.clear()


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "dpmpp_2m", "dpmpp_sde", "unipc", "heun", "lms", "ddim"])
def test_no_scheduler_leaves_the_latents_in_a_form_that_is_not_compiled(
    compiled_classic: tuple[Backend, Diffusion], scheduler: str
) -> None:
    backend, loaded = compiled_classic
    before, graphs = loaded.forwards, len(backend.graphs)
    picture(loaded, scheduler=scheduler, steps=3, **SIZE)
    assert len(backend.rows) == loaded.forwards - before
    assert len(backend.graphs) == graphs


@pytest.mark.parametrize("operation", [TRANSFORM, INPAINT])
def test_every_operation_runs_compiled(compiled_classic: tuple[Backend, Diffusion], operation: str) -> None:
    backend, loaded = compiled_classic
    before = loaded.forwards
    picture(loaded, operation=operation, inputs=inputs_of(operation), strength=0.8, steps=3, **SIZE)
    assert len(backend.rows) == loaded.forwards - before == 2


def test_another_size_runs_uncompiled(compiled_classic: tuple[Backend, Diffusion], classic: Path) -> None:
    backend, loaded = compiled_classic
    before = len(backend.graphs)
    assert difference(picture(loaded), picture(load(config(classic)))) <= TOLERANCE
    assert (backend.rows, len(backend.graphs)) == ([], before)


@pytest.fixture(scope="module")
def _compiled_classic(classic: Path) -> tuple[Backend, Diffusion]:
    backend = Backend()
    # Calls with guidance have two rows nevertheless: they can have no fewer.
    return backend, backend.load(classic, max_rows=1)


@pytest.fixture
def compiled_classic(_compiled_classic: tuple[Backend, Diffusion]) -> tuple[Backend, Diffusion]:
    """The classic model, compiled once for several tests."""
    _compiled_classic[0].rows.clear()
    return _compiled_classic


def test_loras_and_their_scales_compile_nothing_and_paint_what_they_paint_uncompiled(
    backend: Backend, classic: Path, lora: Path
) -> None:
    loras = (("red", str(lora)),)
    loaded, plain = backend.load(classic, max_rows=1, loras=loras), load(config(classic, loras=loras))
    before = len(backend.graphs)
    assert difference(picture(loaded, **SIZE), picture(plain, **SIZE)) <= TOLERANCE
    assert backend.rows == [2] * 3
    backend.rows.clear()
    for scale in (1.0, 0.9, 0.8):
        changes = with_loras("red", scale=scale, steps=2, **SIZE)
        assert difference(picture(loaded, **changes), picture(plain, **changes)) <= TOLERANCE
    assert difference(picture(loaded, **SIZE), picture(plain, **SIZE)) <= TOLERANCE
    assert backend.rows == []
    assert len(backend.graphs) == before


def test_a_result_that_the_next_run_writes_over_is_copied_in_time(classic: Path) -> None:
    class Writer(Backend):
        """Writes every result of one form into the same memory, as CUDA graphs do."""

        def compile(self, graph: Any, inputs: list[torch.Tensor]) -> Callable[..., Any]:
            run = super().compile(graph, inputs)
            memory: dict[str, torch.Tensor] = {}

            def write(*arguments: Any) -> Any:
                (result,) = run(*arguments)
                return (memory.setdefault("result", torch.empty_like(result)).copy_(result),)

            return write

    backend = Writer()
    loaded = backend.load(classic, max_rows=2)
    # Halves of one call are done one after the other.
    with memory_for(loaded, 1):
        assert difference(picture(loaded, **SIZE), picture(load(config(classic)), **SIZE)) <= TOLERANCE
    assert backend.rows


def test_each_model_has_its_own_graphs_and_they_go_when_it_goes(backend: Backend, tmp_path: Path) -> None:
    backend.names_rows = False
    folder = tiny.write("flux", tmp_path / "flux")
    first, second = backend.load(folder, max_rows=1), backend.load(folder, max_rows=1)
    size = {"width": first.describe().width, "height": first.describe().height, "steps": 2}
    assert len(backend.graphs) == 2
    module = weakref.ref(first.denoiser.module)
    del first
    gc.collect()
    assert module() is None
    assert backend.alive == 1
    third = backend.load(folder, max_rows=1)
    assert (len(backend.graphs), backend.alive) == (3, 2)
    for each in (second, third):
        picture(each, **size)
    assert len(backend.rows) == 4


def test_a_model_that_cannot_be_compiled_is_refused_with_a_way_out(
    backend: Backend, classic: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(rows: int) -> None:
        raise RuntimeError("no compiler at /usr/bin/cc")

    backend.fails = no_compiler
    with pytest.raises(ModelError, match="compile = false") as refused:
        backend.load(classic, max_rows=0)
    assert "cannot be compiled here (BackendCompilerFailed)" in str(refused.value)
    assert "/usr" not in str(refused.value)
    assert "no compiler at" in caplog.text


def test_rows_for_which_there_is_no_memory_to_compile_do_without(backend: Backend, classic: Path) -> None:
    def small(rows: int) -> None:
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    backend.fails = small
    loaded = backend.load(classic, max_rows=8)
    assert sorted(loaded.first_call(work(**SIZE)).shape.compiled) == [1, 2]
    with engine_over(loaded) as bench:
        bench.run(*(work(f"job{n}", seed=n, steps=2, **SIZE) for n in range(2)))
        assert len(bench.heard(Finished)) == 2


@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_transformers_are_compiled_too(backend: Backend, tmp_path: Path, kind: str) -> None:
    backend.names_rows = False
    folder = tiny.write(kind, tmp_path / kind)
    loaded, plain = backend.load(folder, max_rows=1), load(config(folder))
    size = {"width": loaded.describe().width, "height": loaded.describe().height}
    assert difference(picture(loaded, **size), picture(plain, **size)) <= TOLERANCE
    assert len(backend.rows) == loaded.forwards
