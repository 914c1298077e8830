"""The environment that the scripts in bin/ make for themselves, tried with one small pin instead of all of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, environ


class Checkout:
    """A checkout with a space in its name, whose pins are click alone: enough for `rbee-sd --version`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "check out"
        for part in ("bin", "rbee_sd"):
            shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__", "demo"))
        pins = (ROOT / "conf" / "requirements.txt").read_text()
        (click,) = re.findall(r"^click==.*$", pins, flags=re.M)
        self.pins = self.root / "conf" / "requirements.txt"
        self.pins.parent.mkdir()
        self.pins.write_text(f"{click}\n")

    def version(self, script: Path | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
        """What `rbee-sd --version` does there."""
        command = [str(script or self.root / "bin" / "rbee-sd"), "--version"]
        env = environ(self.root.parent) | changes
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout without an environment."""
    return Checkout(tmp_path)


def test_the_first_use_says_what_it_does_and_the_next_is_silent(checkout: Checkout) -> None:
    first = checkout.version()
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("rbee-sd, version")
    assert first.stderr.startswith("rbee-sd: setting up")
    second = checkout.version()
    assert (second.returncode, second.stderr) == (0, "")


def test_a_link_to_the_script_and_a_search_path_for_cd_do_not_confuse_it(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "rbee-sd").symlink_to(checkout.root / "bin" / "rbee-sd")
    ended = checkout.version(tmp_path / "rbee-sd", CDPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr


def test_a_set_up_that_failed_is_done_again(checkout: Checkout) -> None:
    good = checkout.pins.read_text()
    checkout.pins.write_text("click==0.0.0.0\n")
    failed = checkout.version()
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert not (checkout.root / ".venv.lock").exists()
    checkout.pins.write_text(good)
    assert checkout.version().returncode == 0


def test_an_environment_that_was_moved_or_lost_its_python_is_made_anew(checkout: Checkout) -> None:
    assert checkout.version().returncode == 0
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    moved = checkout.version()
    assert (moved.returncode, "setting up" in moved.stderr) == (0, True), moved.stderr
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    lost = checkout.version()
    assert (lost.returncode, "setting up" in lost.stderr) == (0, True), lost.stderr


def test_two_first_uses_at_once_set_up_once(checkout: Checkout) -> None:
    command = [str(checkout.root / "bin" / "rbee-sd"), "--version"]
    env = environ(checkout.root.parent)
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "12"]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("setting up" in errors for _, errors in said) == 1


def test_a_lock_whose_owner_died_is_taken_over(checkout: Checkout) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    lock = checkout.root / ".venv.lock"
    lock.mkdir()
    (lock / "pid").write_text(f"{gone.pid}\n")
    assert checkout.version().returncode == 0
    assert not lock.exists()


def test_a_python_that_is_too_old_or_missing_is_named(checkout: Checkout) -> None:
    ended = checkout.version(RBEE_SD_PYTHON="/bin/false")
    assert ended.returncode == 1
    assert "RBEE_SD_PYTHON=/bin/false is no Python of 3.11 or later" in ended.stderr


def test_a_checkout_that_cannot_be_written_is_told_so(checkout: Checkout) -> None:
    if os.geteuid() == 0:
        # For root every folder is writable; a file in the lock's place is in the way of anybody.
        (checkout.root / ".venv.lock").touch()
    else:
        checkout.root.chmod(0o500)
    ended = checkout.version()
    checkout.root.chmod(0o700)
    assert ended.returncode == 1
    assert "cannot write to" in ended.stderr
