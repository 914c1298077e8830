"""The books: what was acknowledged and what clients were told, against what the worker says and has on disk."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

TERMINAL = {"complete": "completed", "error": "failed", "cancelled": "cancelled"}
"""Terminal events, and the state that each belongs to."""


class Books:
    """Written by the clients as they go."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        """Acknowledged jobs: the id, and the Idempotency-Key that it was asked for with."""
        self.told: dict[str, set[tuple[int, str]]] = {}
        """Terminal events that listeners got: number and name."""
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()

    def acknowledged(self, key: str, job_id: str) -> None:
        """A job was acknowledged, perhaps for the second time."""
        known = next((each for each, name in self.jobs.items() if name == key), None)
        if known is not None and known != job_id:
            self.wrong.append(f"the key {key} made two jobs, {known} and {job_id}")
        self.jobs[job_id] = key

    def heard(self, job_id: str, number: int, name: str) -> None:
        """A listener got a terminal event."""
        self.told.setdefault(job_id, set()).add((number, name))

    def compare(self, views: dict[str, dict[str, Any]], streams: dict[str, list[tuple[int, str]]]) -> Iterator[str]:
        """What is wrong with the jobs as the worker shows them in the end, with the `streams` it tells of them."""
        for job_id in self.jobs:
            view, stream = views.get(job_id), streams.get(job_id, [])
            if view is None:
                yield f"{job_id} was acknowledged and is lost"
                continue
            if view["state"] not in TERMINAL.values():
                yield f"{job_id} is {view['state']} in the end"
            ends = [(number, name) for number, name in stream if name in TERMINAL]
            if len(ends) != 1 or TERMINAL[ends[0][1]] != view["state"] or stream[-1] != ends[0]:
                yield f"{job_id} is {view['state']}, and its stream ends with {ends}"
            if not self.told.get(job_id, set()) <= set(ends):
                yield f"{job_id} was told to have ended with {self.told[job_id]}, and did with {ends}"
            numbers = [number for number, _ in stream]
            if numbers != sorted(set(numbers)):
                yield f"{job_id} has events out of order"
            if view["attempt"] > 2:
                yield f"{job_id} was tried {view['attempt']} times"


def on_disk(folder: Path, views: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the state folder of a worker that has ended."""
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as connection:
        rows = {
            job_id: (state, ended, size)
            for job_id, state, ended, size in connection.execute("SELECT id, state, ended, bytes FROM jobs")
        }
    for job_id, view in views.items():
        if job_id not in rows or rows[job_id][0] != view["state"] or rows[job_id][1] is None:
            yield f"{job_id} is {view['state']}, and on disk {rows.get(job_id)}"
    pictures = {path.name for path in (folder / "images").iterdir()}
    expected = {job_id for job_id, (_, _, size) in rows.items() if size}
    for job_id in expected - pictures:
        yield f"{job_id} has lost its images"
    for name in pictures - expected:
        yield f"{name} lies in the folder of images and belongs to nobody"
    for path in folder.rglob("*.part"):
        yield f"{path.name} was left half written"
