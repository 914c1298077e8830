"""bin/fuzz, short."""

from __future__ import annotations

import subprocess
import sys


def test_requests_that_nobody_meant_do_no_harm() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--requests", "600"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert ended.stdout.splitlines()[-1] == "OK: nothing did harm"
