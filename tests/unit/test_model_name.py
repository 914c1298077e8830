"""`engine.config`: what clients call a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee_sd.engine.config import model_name


def test_the_demo_and_hub_ids_are_called_by_their_own_names() -> None:
    assert model_name("demo") == "demo"
    assert model_name("stabilityai/sd-turbo") == "stabilityai/sd-turbo"


def test_a_folder_or_a_checkpoint_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "sd-turbo"
    folder.mkdir(parents=True)
    (folder / "dream.v2.safetensors").touch()
    for written in (str(folder), f"{folder}/", f"{folder}/../sd-turbo"):
        assert model_name(written) == "sd-turbo"
    assert model_name(str(folder / "dream.v2.safetensors")) == "dream.v2"
    monkeypatch.chdir(folder)
    assert model_name(".") == "sd-turbo"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_name("~/models/sd-turbo") == "sd-turbo"


def test_the_demo_is_the_demo_also_beside_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_name("demo") == "demo"


@pytest.mark.parametrize(
    "model", ["/srv/models/typo", "~/models/typo", "./models/typo", "../models/typo", "/srv/models/typo.safetensors"]
)
def test_a_path_that_leads_nowhere_is_not_shown_to_clients(model: str) -> None:
    assert "models" not in model_name(model)


def test_a_home_that_nobody_has_is_a_path_that_leads_nowhere() -> None:
    assert model_name("~nobody-of-this-name/models/typo") == "typo"
