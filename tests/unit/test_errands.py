"""`models.errands`: what deleting a model removes, and what it never does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.job import Job, Order
from rbee_sd.jobs.runner import ErrandError
from rbee_sd.messages import Failed, LoadModel, Ready, UnloadModel
from rbee_sd.models.catalogue import INDEX, MANIFEST, Catalogue
from rbee_sd.models.downloads import Downloads
from rbee_sd.models.errands import ASIDE, ModelErrands
from tests.conftest import eventually

NAME = "some-owner/some-model"


class WillingEngine:
    """An `Engine` that does what it is told."""

    def __init__(self) -> None:
        self.known: dict[str, Ready] = {}
        self.loaded: set[str] = set()
        self.ordered: list[LoadModel | UnloadModel] = []

    async def order(self, command: LoadModel | UnloadModel) -> Failed | None:
        """See `Engine`."""
        self.ordered.append(command)
        return None

    def forget(self, model: str) -> None:
        """See `Engine`."""


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """The folder of a download."""
    folder = tmp_path / "models" / "some-owner--some-model"
    (folder / "unet").mkdir(parents=True)
    for name in (INDEX, MANIFEST):
        (folder / name).write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(100))
    return folder


MakeErrands = Callable[..., ModelErrands]


@pytest.fixture
def make_errands(download: Path) -> MakeErrands:
    """Errands in the folder of the download, with the default model that the setting names."""

    def make(model: str = "fake") -> ModelErrands:
        folder = download.parent
        catalogue = Catalogue(folder, None, model, "the default")
        return ModelErrands(catalogue, WillingEngine(), Downloads((), folder), lambda _: None)

    return make


def deletion() -> Job:
    """A job that deletes the download."""
    return Job(Order("model_delete", {"operation": "model_delete", "model": NAME}), EventLog())


async def test_a_model_is_deleted_once_it_is_aside_and_its_files_go_soon(
    make_errands: MakeErrands, download: Path
) -> None:
    result = await make_errands().table["model_delete"](deletion())
    assert result == {"name": NAME, "deleted": True, "freed": 100}
    aside = download.parent / ASIDE
    await eventually(lambda: list(aside.iterdir()) == [])
    assert list(download.parent.iterdir()) == [aside]


async def test_a_model_whose_files_cannot_be_removed_is_deleted_all_the_same(
    make_errands: MakeErrands, download: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        errands = make_errands()
        assert (await errands.table["model_delete"](deletion()))["deleted"] is True
        assert [view["name"] for view in errands.views()] == ["the default"]
        # Once more: as after an end of the worker between the two.
        assert (await errands.table["model_delete"](deletion()))["freed"] == 0
    aside = download.parent / ASIDE
    assert len(list(aside.iterdir())) == 1
    make_errands().sweep()
    await eventually(lambda: list(aside.iterdir()) == [])


async def test_the_default_model_is_not_deleted_under_another_name(
    make_errands: MakeErrands, download: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(download)
    for path in (download, link, download / "unet" / "weights.safetensors"):
        with pytest.raises(ErrandError) as caught:
            await make_errands(str(path)).table["model_delete"](deletion())
        assert caught.value.code == "model_in_use"
    assert (download / MANIFEST).is_file()


def test_a_worker_without_models_has_nothing_to_remove_at_its_start(make_errands: MakeErrands, download: Path) -> None:
    make_errands().sweep()
    assert download.is_dir()
