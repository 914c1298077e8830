"""bin/smoke and bin/smoke-cancel against a live worker with the demo model."""

from __future__ import annotations

import re

from tests.e2e.conftest import LiveWorker, Run, free_port


def test_smoke_finds_a_well_worker_well(run: Run, live_worker: LiveWorker) -> None:
    ended = run("smoke", "--url", live_worker.url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "OK"


def test_smoke_cancel_proves_by_the_engines_count_that_it_stopped(run: Run, live_worker: LiveWorker) -> None:
    ended = run("smoke-cancel", "--url", live_worker.url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    step, total = map(int, re.search(r"cancelled at step (\d+) of (\d+)", ended.stdout).groups())  # type: ignore[union-attr]
    assert step < total
    assert ended.stdout.splitlines()[-1] == "OK"


def test_smoke_without_a_worker_fails_and_says_why(run: Run) -> None:
    for script in ("smoke", "smoke-cancel"):
        ended = run(script, "--url", f"http://127.0.0.1:{free_port()}")
        assert ended.returncode == 1
        assert "FAILED: no answer from" in ended.stderr
        assert "Traceback" not in ended.stderr
