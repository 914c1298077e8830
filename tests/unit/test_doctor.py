"""`cli.findings`: what `rbee-sd doctor` finds in folders and ports that are made for it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee_sd.cli.findings import Finding, model_files, network, storage
from rbee_sd.cli.findings.safetensors import damage_of
from rbee_sd.engine.config import HUB_ID
from rbee_sd.jobs.store import DATABASE
from rbee_sd.settings import Settings

DEMO = Path(model_files.__file__).parents[2] / "engine" / "demo"


def only(findings: Iterator[Finding]) -> Finding:
    """The one finding there is."""
    (found,) = findings
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder)
    return folder


def found_of(model: Path | str, **more: Any) -> Finding:
    """What is found of a model; whatever is wrong comes with advice."""
    found = only(model_files.model(Settings(model=str(model), **more)))
    assert (found.level == "ok") == (not found.advice)
    return found


def test_a_whole_model_is_well(model: Path) -> None:
    assert found_of("demo").level == "ok"
    assert found_of(model).level == "ok"
    assert "GiB of weights" in found_of(model).text
    assert found_of(model / "unet" / "diffusion_pytorch_model.safetensors").level == "ok"


def damaged(model: Path, how: str) -> None:
    """Damage a model."""
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    match how:
        case "cut off":
            os.truncate(weights, weights.stat().st_size - 1)
        case "no .safetensors":
            weights.write_bytes(b"<html>not found</html>")
        case "lacks vae":
            shutil.rmtree(model / "vae")
        case "has no model_index.json":
            (model / "model_index.json").unlink()
        case "cannot be read":
            (model / "model_index.json").write_text("[1]")
        case ".bin files":
            for file in model.glob("*/*.safetensors"):
                file.rename(file.with_suffix(".bin"))


@pytest.mark.parametrize(
    "how", ["cut off", "no .safetensors", "lacks vae", "has no model_index.json", "cannot be read", ".bin files"]
)
def test_a_model_that_will_not_load_is_a_problem(model: Path, how: str) -> None:
    damaged(model, how)
    found = found_of(model)
    assert found.level == "problem"
    assert how in found.text


def test_a_file_in_another_format_and_a_name_that_is_none_are_problems(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").touch()
    assert "not a .safetensors file" in found_of(tmp_path / "a.ckpt").text
    assert "is not here" in found_of("no such model").text
    problems = list(model_files.model(Settings(taesd="/no/such/folder", model_config="neither")))
    assert [finding.level for finding in problems] == ["ok", "problem", "problem"]


def test_a_model_larger_than_the_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**50]}}).encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    assert damage_of(file) == "is cut off"
    monkeypatch.setattr(model_files, "damage_of", lambda path: "")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1}))
    assert found_of(file).level == "warning"


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", b"\xff" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b'{"a": []}', b"\0" * 8],
)
def test_a_header_of_nonsense_is_damage(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    assert "no .safetensors file" in damage_of(file)


def test_of_a_hub_id_the_local_copy_counts_where_the_hub_is_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HUB_ID.fullmatch("owner/name")
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert "downloaded at the first start" in found_of("owner/name").text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert found_of("owner/name").level == "problem"
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").touch()
    assert "local copy" in found_of("owner/name").text


def test_a_state_folder_is_private_writable_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state"
    settings = Settings(state_dir=str(folder))
    assert [finding.level for finding in storage.state_folder(settings)] == ["ok"]
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / DATABASE).write_text("nonsense\n" * 1000)
    _, looked_into, unreadable = storage.state_folder(settings)
    assert "chmod 700" in looked_into.advice
    assert "cannot be read" in unreadable.text
    folder.chmod(0o700)
    # Root may do everything, so what others may not is made up.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != DATABASE)
    assert f"may not write {DATABASE}" in list(storage.state_folder(settings))[1].text
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in only(storage.state_folder(settings)).text


def test_keys_and_loras_are_told_where_they_are_set(tmp_path: Path) -> None:
    assert list(storage.key_file(Settings())) == list(storage.lora_folder(Settings())) == []
    assert only(storage.key_file(Settings(api_keys=str(tmp_path / "none")))).level == "problem"
    assert only(storage.lora_folder(Settings(lora_dir=str(tmp_path / "none")))).level == "problem"
    (tmp_path / "a.safetensors").touch()
    assert "LoRAs: 1 in" in only(storage.lora_folder(Settings(lora_dir=str(tmp_path)))).text


def test_a_port_that_something_else_has_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = only(network.port(Settings(port=listener.getsockname()[1])))
    assert found.level == "problem"
    assert "does not answer" in found.text
    assert "choose another port" in found.advice


def test_a_worker_that_would_be_open_to_all_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "is free" in only(network.port(Settings(port=port))).text
    findings = list(network.port(Settings(host="0.0.0.0", port=port)))
    assert "let everybody in" in findings[0].text
    assert only(network.port(Settings(host="0.0.0.0", port=port, no_auth=True))).level == "ok"
