"""Progress of jobs for people: one bar for all of them on a terminal, sentences elsewhere. Writes to standard error."""

from __future__ import annotations

import sys
from typing import Any

import click
from tqdm import tqdm

from rbee_sd.client import Event, Narration, Progress, Queued, Started

LINES = 5
"""Progress lines for a whole job where there is no terminal."""

STEP, BYTES = "step", "B"


class ProgressDisplay:
    """Shows the events of so many jobs as they come. Use it as a context manager. `unit` is what is counted."""

    def __init__(self, jobs: int = 1, unit: str = STEP) -> None:
        self._jobs = jobs
        self._unit = unit
        self._bar: Any = None
        self._totals: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._said = ""

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, event: Event, number: int = 0) -> None:
        """Show an event of the job of this number, counted from 0."""
        match event:
            case Queued() if event.position:
                self._say_of(number, f"queued, {event.position} ahead")
            case Started() if event.total:
                # Also of a job that begins again.
                self._advance(number, 0, event.total)
            case Narration() if event.text != self._said:
                # That a model is being loaded is told to each job that waits for it.
                self._said = event.text
                self._say_of(number, event.text)
            case Progress():
                self._advance(number, *_counted(event))

    def say(self, text: str) -> None:
        """A sentence, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)

    def _say_of(self, number: int, text: str) -> None:
        self.say(text if self._jobs == 1 else f"[{number + 1}/{self._jobs}] {text}")

    def _advance(self, number: int, done: int, total: int) -> None:
        self._done[number], self._totals[number] = done, total
        if sys.stderr.isatty():
            self._draw()
        elif done == 0:
            self._told[number] = 0
        elif done * LINES // max(total, 1) > self._told.get(number, 0):
            self._told[number] = done * LINES // max(total, 1)
            self._say_of(
                number, f"{self._unit} {done} of {total}" if self._unit == STEP else _in_mebibytes(done, total)
            )

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = tqdm(total=0, unit=self._unit, unit_scale=self._unit == BYTES, leave=True)
        self._bar.total = sum(self._totals.values())
        self._bar.n = sum(self._done.values())
        self._bar.refresh()


def _counted(event: Progress) -> tuple[int, int]:
    if event.bytes is not None and event.total_bytes is not None:
        return event.bytes, event.total_bytes
    return event.step, event.total


def _in_mebibytes(done: int, total: int) -> str:
    return f"{done / 2**20:.1f} of {total / 2**20:.1f} MiB"
