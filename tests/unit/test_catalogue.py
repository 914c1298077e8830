"""`models.catalogue`: which models there are, what they are called, and which of them the worker begins with."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from rbee_sd.engine import choice, fetch
from rbee_sd.engine.config import DEMO
from rbee_sd.errors import StartError
from rbee_sd.models import catalogue
from rbee_sd.models.catalogue import REPO, Catalogue, Entry, folder_of


def add(folder: Path, name: str, kind: str = "StableDiffusionPipeline", *, ours: bool = False) -> Path:
    """A folder that looks like a model, with a hundred bytes of weights."""
    path = folder / name
    (path / "unet").mkdir(parents=True)
    (path / "unet" / "weights.safetensors").write_bytes(b"w" * 100)
    (path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    if ours:
        (path / ".rbee-sd.json").write_text("{}")
    return path


def look(folder: Path, default: str = "demo", name: str = "") -> Catalogue:
    """What there is."""
    return Catalogue(folder, DEMO, default, name or default)


def test_without_a_folder_there_is_the_embedded_model(tmp_path: Path) -> None:
    found = look(tmp_path / "missing")
    assert list(found.names) == ["demo"]
    assert (found.default, found.default_source, found.source_of(""), found.source_of("demo")) == ("demo",) * 4


def test_where_there_is_no_embedded_model_its_name_is_any_other(tmp_path: Path) -> None:
    assert list(Catalogue(tmp_path, None, "fake", "fake").names) == ["fake"]
    assert list(Catalogue(tmp_path, None, "demo", "demo").names) == ["demo"]


def test_folders_checkpoints_and_downloads_are_models_and_nothing_else_is(tmp_path: Path) -> None:
    add(tmp_path, "xl", "StableDiffusionXLPipeline")
    add(tmp_path, "some-owner--some-model", ours=True)
    add(tmp_path, "looks--like-one")
    add(tmp_path, ".partial")
    (tmp_path / "dream.v2.safetensors").write_bytes(b"w" * 7)
    (tmp_path / "pickle.ckpt").touch()
    (tmp_path / "folder-without-index").mkdir()
    found = look(tmp_path)
    assert list(found.names) == ["demo", "dream.v2", "looks--like-one", "some-owner/some-model", "xl"]
    assert found.find("xl") == Entry("xl", str(tmp_path / "xl"), "folder", 100, "StableDiffusionXLPipeline")
    assert found.find("dream.v2") == Entry("dream.v2", str(tmp_path / "dream.v2.safetensors"), "file", 7)
    kinds = {name: entry.kind for name in found.names if (entry := found.find(name))}
    assert kinds["some-owner/some-model"] == "download"
    assert kinds["looks--like-one"] == "folder"


@pytest.mark.parametrize("name", ["a\nb", "a,b", "-rf", "$HOME", "x" * 200])
def test_a_name_that_could_be_mistaken_is_left_out(tmp_path: Path, name: str) -> None:
    add(tmp_path, name)
    assert list(look(tmp_path).names) == ["demo"]


def test_a_folder_that_cannot_be_read_is_left_out_and_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "xl")
    (tmp_path / "lost+found").mkdir()
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert list(look(tmp_path).names) == ["demo", "xl"]
    assert "'lost+found' among the models is left out" in caplog.text


async def test_what_is_left_out_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "demo")
    add(tmp_path, "$HOME")
    found = look(tmp_path)
    await found.refresh()
    assert len(caplog.messages) == 2


def test_an_index_that_is_none_says_nothing_and_is_a_model_that_fails_later(tmp_path: Path) -> None:
    for name, index in (("a", "not json"), ("b", "[]"), ("c", '{"_class_name": 3}'), ("d", "{" * 100_000)):
        (add(tmp_path, name) / "model_index.json").write_text(index)
    found = look(tmp_path)
    assert [entry.pipeline for name in "abcd" if (entry := found.find(name))] == [""] * 4


def test_the_embedded_model_keeps_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "demo")
    assert look(tmp_path).source_of("demo") == "demo"
    assert "is there twice" in caplog.text


def test_the_default_may_be_one_of_the_folder_or_a_path_or_a_hub_id_and_comes_first(tmp_path: Path) -> None:
    models, elsewhere = tmp_path / "models", add(tmp_path, "elsewhere")
    add(models, "xl")
    add(models, "some-owner--some-model", ours=True)
    assert (look(models, "xl").default_source, look(models, "xl").default) == (str(models / "xl"), "xl")
    pulled = look(models, "some-owner/some-model")
    assert (pulled.default_source, next(iter(pulled.names))) == (str(models / "some-owner--some-model"), pulled.default)
    path = look(models, str(elsewhere), "elsewhere")
    assert list(path.names) == ["elsewhere", "demo", "some-owner/some-model", "xl"]
    assert path.source_of("") == str(elsewhere)
    hub = look(models, "another/one")
    assert hub.find("another/one") == Entry("another/one", "another/one", "hub")


def test_a_path_goes_before_a_model_of_the_folder_that_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path / "models", "xl")
    add(tmp_path, "xl")
    monkeypatch.chdir(tmp_path)
    assert look(tmp_path / "models", "xl").default_source == "xl"


async def test_models_come_and_go_and_who_holds_the_names_sees_it(tmp_path: Path) -> None:
    found = look(tmp_path)
    names = found.names
    path = add(tmp_path, "some-owner--some-model", ours=True)
    await found.refresh()
    assert list(names) == ["demo", "some-owner/some-model"]
    found.hide("some-owner/some-model")
    await found.refresh()
    assert list(names) == ["demo"]
    assert found.source_of("some-owner/some-model") is None
    found.hide("some-owner/some-model", False)
    await found.refresh()
    assert list(names) == ["demo", "some-owner/some-model"]
    path.rename(tmp_path / ".removed")
    await found.refresh()
    assert list(names) == ["demo"]


async def test_a_folder_that_cannot_be_read_is_told_at_the_start_and_changes_nothing_later(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    add(folder, "xl")
    found = look(folder)
    folder.rename(tmp_path / "away")
    folder.write_text("a file")
    await found.refresh()
    assert list(found.names) == ["demo", "xl"]
    with pytest.raises(StartError, match="cannot be read"):
        look(folder)


@pytest.mark.parametrize("repo", ["a/b", "stabilityai/sd-turbo", "A-1/b_c.d-2"])
def test_the_folder_of_a_download_leads_back_to_its_name(repo: str) -> None:
    assert REPO.fullmatch(repo)
    assert folder_of(repo).replace("--", "/", 1) == repo


def test_a_download_and_the_catalogue_mean_the_same_files() -> None:
    assert fetch.MANIFEST == catalogue.MANIFEST
    assert choice.INDEX == catalogue.INDEX
    assert fetch.PARTIAL.startswith(".")
