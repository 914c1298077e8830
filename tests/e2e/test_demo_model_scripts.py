"""bin/train-demo-model on a very small training, and bin/contact-sheet against a live worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rbee_sd.engine.training.scoring import look
from tests.e2e.conftest import LiveWorker, Run, free_port

TINY = ("--fraction", "0.0004", "--threads", "1")
"""A step or two of each stage."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_training_is_repeatable_goes_on_where_it_was_and_makes_a_model_that_can_be_evaluated(
    run: Run, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        ended = run("train-demo-model", *TINY, "--run", f"run-{name}", "--model", name)
        assert ended.returncode == 0, ended.stderr
        assert f"{name} is trained" in ended.stdout
        assert "autoencoder: 100%" in ended.stderr
        assert "denoiser: 100%" in ended.stderr
    again = run("train-demo-model", *TINY, "--run", "run-first", "--model", "again")
    assert again.returncode == 0, again.stderr
    first, second, resumed = (contents(tmp_path / name) for name in ("first", "second", "again"))
    assert first == second == resumed
    assert "unet/diffusion_pytorch_model.safetensors" in first
    improved = run("train-demo-model", "improve", *TINY, "--run", "run-improved", "--model", "again")
    assert improved.returncode == 0, improved.stderr
    better = contents(tmp_path / "again")
    changed = {name for name in better if better[name] != first[name]}
    # The autoencoder's scaling factor is measured anew, on its rounded weights.
    assert changed == {"unet/diffusion_pytorch_model.safetensors", "vae/config.json"}
    assert b"_name_or_path" not in better["vae/config.json"] + better["unet/config.json"]
    ended = run("train-demo-model", "evaluate", "--model", "first", "--captions", "2", "--threads", "1")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "| guidance | steps | background | colour | shape | size | position | all |"
    assert [line.split("|")[1:3] for line in lines[2:]] == [
        [" 3 ", " 20 "],
        [" 3 ", " 8 "],
        [" none ", " 20 "],
        [" none ", " 8 "],
    ]


@pytest.mark.parametrize("wrong", [("paint",), ("--fraction", "0"), ("--fraction", "-1"), ("--threads", "0")])
def test_train_demo_model_used_wrongly_says_how_to_use_it(run: Run, wrong: tuple[str, ...]) -> None:
    ended = run("train-demo-model", *wrong)
    assert ended.returncode == 2
    assert "Usage:" in ended.stderr


def test_a_contact_sheet_shows_what_was_asked_for(run: Run, live_worker: LiveWorker, tmp_path: Path) -> None:
    prompts = ("a yellow star on a black background", "a large blue circle on a white background")
    ended = run("contact-sheet", *prompts, "-o", "sheet.png", "--url", live_worker.url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "wrote sheet.png\n"
    with Image.open(tmp_path / "sheet.png") as sheet:
        tiles = [sheet.crop((12 + number * 140, 12, 140 + number * 140, 140)) for number in range(2)]
    star, circle = (look(tile) for tile in tiles)
    assert (star.background, star.things[0].colour) == ("black", "yellow")
    assert (circle.background, circle.things[0].colour, circle.things[0].shape) == ("white", "blue", "circle")


def test_a_contact_sheet_says_what_went_wrong(run: Run, live_worker: LiveWorker) -> None:
    for arguments, told in (
        (("--url", f"http://127.0.0.1:{free_port()}"), "contact-sheet: no answer from"),
        (("a star", "--url", live_worker.url, "-o", "no/such/folder.png"), "contact-sheet: cannot write"),
        (("a star", "--steps", "100000", "--url", live_worker.url), "contact-sheet: steps"),
    ):
        ended = run("contact-sheet", *arguments)
        assert ended.returncode == 1
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr
