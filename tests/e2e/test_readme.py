"""The commands in the README do what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from rbee_sd.engine.training.scenes import SIZES
from rbee_sd.engine.training.scoring import look
from tests.e2e.conftest import ROOT, LiveWorker, environ, free_port, readme_blocks


def test_the_first_command_draws_something_large_and_green_on_white(tmp_path: Path) -> None:
    (command,) = readme_blocks("picture")
    command = command.replace("bin/", f"{ROOT}/bin/").replace("-o heart.png", f"-o {tmp_path}/heart.png")
    env = environ(tmp_path) | {"RBEE_SD_PORT": str(free_port())}
    subprocess.run(["bash", "-eu", "-c", command], env=env, check=True, timeout=120)
    with Image.open(tmp_path / "heart.png") as picture:
        sight = look(picture)
    (heart,) = sight.things
    assert (sight.background, heart.colour, heart.shape) == ("white", "green", "heart")
    assert heart.radius > (SIZES["small"][1] + SIZES["large"][0]) / 2


def test_the_program_for_the_openai_package_draws_what_it_says(live_worker: LiveWorker, tmp_path: Path) -> None:
    (program,) = readme_blocks("openai")
    program = program.replace(":8600", f":{live_worker.port}")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environ(tmp_path), check=True, timeout=120)
    with Image.open(tmp_path / "circle.png") as picture:
        assert look(picture).background == "blue"


def test_the_curl_session_works_as_printed(live_worker: LiveWorker, tmp_path: Path) -> None:
    script = "\n".join(readme_blocks("session")).replace(":8600", f":{live_worker.port}")
    assert script.count("curl") == 7
    ended = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    accepted = json.loads((tmp_path / "job.json").read_text())
    assert list(accepted) == ["job_id", "sse_url", "state", "position", "seed"]
    assert ended.stdout.count("event: progress") == 20
    assert "\ndata: [DONE]\n" in ended.stdout
    with Image.open(tmp_path / "circle.png") as picture:
        assert look(picture).background == "blue"
    assert '"state":"completed"' in ended.stdout
