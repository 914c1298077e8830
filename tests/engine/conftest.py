"""What the engine's tests share: the demo model, loaded once, and no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from rbee_sd.engine.loading import DEMO, load
from rbee_sd.engine.stable_diffusion import StableDiffusion
from tests.engine.bench import Bench, config


@pytest.fixture(scope="session")
def model() -> StableDiffusion:
    """The embedded model on the CPU, shared by all tests: they leave it as they found it."""
    return load(config("demo"))


@pytest.fixture
def bench(model: StableDiffusion) -> Bench:
    """An engine over `model`."""
    return Bench(model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo model's folder elsewhere, to be broken at will."""
    return Path(shutil.copytree(DEMO, tmp_path / "some-model"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    # HF_HUB_OFFLINE is read once, at import; children read the variable.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
