"""What the engine's tests share: the demo model, loaded once, and no network."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from rbee_sd.engine import loop
from rbee_sd.engine.config import DEMO
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from tests.engine import tiny
from tests.engine.bench import Bench, config


@pytest.fixture(scope="session")
def model() -> Diffusion:
    """The embedded model on the CPU, shared by all tests: they leave it as they found it."""
    return load(config("demo"))


@pytest.fixture(scope="session")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small Stable Diffusion 1 with random weights and the usual VAE, to be left as it is.

    That of the demo has other tiles (512 pixels wide, not 128), and no checkpoint in an original layout has it.
    """
    return tiny.write("sd1", tmp_path_factory.mktemp("classic") / "classic")


@pytest.fixture
def bench(model: Diffusion) -> Iterator[Bench]:
    """An engine over `model`."""
    bench = Bench(model)
    yield bench
    bench.engine.close()


@pytest.fixture(autouse=True)
def _model_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test leaves neither smaller forwards (it ran out of memory) nor encoded prompts to the next."""
    loaded = request.getfixturevalue("model") if "model" in request.fixturenames else None
    yield
    if loaded is not None:
        loaded.denoiser._shapes._kept.clear()
        loaded.prompts._kept.clear()


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Only reference counts free memory: a GPU's must not wait for the garbage collector."""
    logging.disable()  # pytest keeps what is logged, tracebacks and all that they hold
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo model's folder elsewhere, to be broken at will."""
    return Path(shutil.copytree(DEMO, tmp_path / "some-model"))


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, jobs that come together begin together."""
    monkeypatch.setattr(loop, "PAUSE", 10.0)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    # HF_HUB_OFFLINE is read once, at import; children read the variable.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
