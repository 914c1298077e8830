"""bin/chaos, short: every kind of fault at once, and the books agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rbee_sd.chaos.faults import FAULTS


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [sys.executable, "-m", "rbee_sd.chaos", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_short_run_with_every_fault_keeps_the_books(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = chaos("--minutes", "0.4", "--clients", "6", "--pause", "0.5", "--seed", "3", "--folder", str(folder))
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert ended.stdout.splitlines()[-1] == "OK: the books agree"
    # What the engine's failures leave in the log is theirs; the front has none.
    log = (folder / "log").read_text()
    for failure in ("defect in", "Exception in callback", "Task exception was never retrieved"):
        assert failure not in log


def test_killing_the_front_again_and_again_loses_nothing(tmp_path: Path) -> None:
    ended = chaos("--minutes", "0.2", "--clients", "4", "--pause", "0.2", "--faults", "kill-front,stop-front")
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]


def test_an_unknown_fault_is_named_with_those_there_are() -> None:
    ended = chaos("--faults", "earthquake")
    assert ended.returncode == 2
    assert "earthquake" in ended.stderr
    assert all(name in ended.stderr for name in FAULTS)
