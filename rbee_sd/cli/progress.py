"""Progress of one job for people: a bar on a terminal, sentences elsewhere. Writes to standard error."""

from __future__ import annotations

import sys
from typing import Any

import click
from tqdm import tqdm

LINES = 5
"""Progress lines for a whole job where there is no terminal."""


class Progress:
    """Shows a job's events as they come. Use it as a context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._told = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        match event["event"]:
            case "queued" if event["position"]:
                self.say(f"queued, {event['position']} ahead")
            case "started" if sys.stderr.isatty():
                self._bar = tqdm(total=event["total"], unit="step", leave=True)
            case "narration":
                self.say(event["text"])
            case "progress":
                self._advance(event["step"], event["total"])

    def say(self, text: str) -> None:
        """A sentence, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)

    def _advance(self, step: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif step * LINES // total > self._told:
            self._told = step * LINES // total
            self.say(f"step {step} of {total}")
