"""`cli.progress`: what somebody sees who has no terminal."""

from __future__ import annotations

import pytest

from rbee_sd.cli.progress import BYTES, ProgressDisplay
from rbee_sd.client.events import event_of


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines since last time."""
    return capsys.readouterr().err.splitlines()


def test_a_whole_job_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        display.show(event_of("1", "queued", {"position": 0}))
        display.show(event_of("2", "started", {"total": 50}))
        for step in range(1, 51):
            display.show(event_of("3", "progress", {"step": step, "total": 50}))
    assert told(capsys) == [f"step {step} of 50" for step in (10, 20, 30, 40, 50)]


def test_a_job_that_begins_again_is_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        for _ in range(2):
            display.show(event_of("1", "started", {"total": 2}))
            display.show(event_of("2", "progress", {"step": 2, "total": 2}))
    assert told(capsys) == ["step 2 of 2"] * 2


def test_of_several_jobs_each_line_says_which_and_what_all_hear_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(2) as display:
        for number in (0, 1):
            display.show(event_of("1", "narration", {"text": "loading model demo"}), number)
        display.show(event_of("2", "queued", {"position": 3}), 1)
    assert told(capsys) == ["[1/2] loading model demo", "[2/2] queued, 3 ahead"]


def test_a_download_is_told_in_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(unit=BYTES) as display:
        display.show(event_of("1", "started", {"total": None}))
        display.show(event_of("2", "progress", {"bytes": 2**20, "total_bytes": 2**22, "percent": 25.0}))
        display.show(event_of("3", "progress", {"bytes": 0, "total_bytes": 0}))
    assert told(capsys) == ["1.0 of 4.0 MiB"]
