"""`rbee_sd.chaos.books`: each way in which a worker could break its word is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rbee_sd.chaos.books import Books, on_disk

View = dict[str, Any]
STREAM = [(1, "queued"), (2, "started"), (3, "complete")]


def books() -> Books:
    """One acknowledged job, of which a listener heard that it is complete."""
    made = Books()
    made.acknowledged("key", "job_1")
    made.heard("job_1", 3, "complete")
    return made


def view(**changes: Any) -> View:
    """A completed job."""
    return {"state": "completed", "attempt": 1, **changes}


def test_books_that_agree_are_right() -> None:
    assert list(books().compare({"job_1": view()}, {"job_1": STREAM})) == []


@pytest.mark.parametrize(
    ("views", "stream", "complaint"),
    [
        ({}, STREAM, "lost"),
        ({"job_1": view(state="running")}, STREAM, "running in the end"),
        ({"job_1": view()}, STREAM[:2], "its stream ends with"),
        ({"job_1": view(state="failed")}, STREAM, "its stream ends with"),
        ({"job_1": view()}, [*STREAM, (4, "complete")], "its stream ends with"),
        ({"job_1": view()}, [*STREAM, (4, "narration")], "its stream ends with"),
        ({"job_1": view(state="cancelled")}, [*STREAM[:2], (3, "cancelled")], "was told to have ended"),
        ({"job_1": view()}, [*STREAM[:2], (4, "complete")], "was told to have ended"),
        ({"job_1": view()}, [(2, "started"), (1, "queued"), (3, "complete")], "out of order"),
        ({"job_1": view(attempt=3)}, STREAM, "tried 3 times"),
    ],
)
def test_a_broken_promise_is_named(views: dict[str, View], stream: list[tuple[int, str]], complaint: str) -> None:
    assert any(complaint in line for line in books().compare(views, {"job_1": stream}))


def test_two_jobs_for_one_key_are_wrong_and_one_told_twice_is_not() -> None:
    made = books()
    made.acknowledged("key", "job_1")
    assert made.wrong == []
    made.acknowledged("key", "job_2")
    assert len(made.wrong) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state folder of a worker that did one job and has ended."""
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        connection.execute("CREATE TABLE jobs (id, state, ended, bytes)")
        connection.execute("INSERT INTO jobs VALUES ('job_1', 'completed', 1.0, 10)")
        connection.commit()
    (tmp_path / "images" / "job_1").mkdir(parents=True)
    return tmp_path


def test_a_folder_that_agrees_is_right(folder: Path) -> None:
    assert list(on_disk(folder, {"job_1": view()})) == []


@pytest.mark.parametrize("damage", ["state", "row", "open", "images", "stranger", "part"])
def test_what_does_not_agree_on_disk_is_named(folder: Path, damage: str) -> None:
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as connection:
        match damage:
            case "state":
                connection.execute("UPDATE jobs SET state = 'failed'")
            case "row":
                connection.execute("DELETE FROM jobs")
            case "open":
                connection.execute("UPDATE jobs SET ended = NULL")
            case "images":
                (folder / "images" / "job_1").rmdir()
            case "stranger":
                (folder / "images" / "job_2").mkdir()
            case "part":
                (folder / "images" / "job_3.part").mkdir()
        connection.commit()
    assert list(on_disk(folder, {"job_1": view()}))
