"""`operations.loras`: which files of a folder are offered, under which names."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rbee_sd.errors import StartError
from rbee_sd.operations.loras import scan
from rbee_sd.server import Server
from rbee_sd.settings import Settings


def test_no_folder_means_no_loras() -> None:
    assert scan("") == {}


def test_the_safetensors_of_a_folder_are_found_under_their_own_names(tmp_path: Path) -> None:
    names = ("watercolour", "Pixel Art (v2)", "add-detail_1.5", "水彩", "b+w")
    for name in names:
        (tmp_path / f"{name}.safetensors").touch()
    for other in ("notes.txt", "pickle.ckpt", "x.safetensors.part", "X.SAFETENSORS"):
        (tmp_path / other).touch()
    found = scan(str(tmp_path))
    assert found == {name: tmp_path / f"{name}.safetensors" for name in sorted(names)}
    assert list(found) == sorted(names)


def test_only_files_are_found_and_only_in_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "folder.safetensors" / "within.safetensors").touch()
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "broken.safetensors").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").touch()
    (tmp_path / "linked.safetensors").symlink_to(tmp_path / "file")
    assert list(scan(str(tmp_path))) == ["linked"]


@pytest.mark.parametrize(
    "name", ["", ".hidden", "._watercolour", "a\nb", "a:b", "a\\b", "-x", " x", "a\x1b[31m", "%2e"]
)
def test_a_strange_name_is_left_out_and_logged_in_one_line(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "good.safetensors").touch()
    with caplog.at_level(logging.WARNING):
        assert list(scan(str(tmp_path))) == ["good"]
    (record,) = caplog.records
    assert "left out" in record.getMessage()
    assert record.getMessage().isprintable()
    assert str(tmp_path) not in record.getMessage()


def test_a_folder_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "missing", tmp_path / "file", "~nobody-of-this-name/loras", "x\0y", "x" * 5000):
        with pytest.raises(StartError, match="lora_dir") as caught:
            scan(str(folder))
        assert "\n" not in str(caught.value)


def test_a_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").touch()
    assert scan("~/loras") == {"a": tmp_path / "loras" / "a.safetensors"}


async def test_a_worker_does_not_start_without_its_folder_of_loras(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="lora_dir"):
        Server(Settings(state_dir=str(tmp_path / "state"), lora_dir=str(tmp_path / "missing")))
