"""What people see while a measurement runs: one sentence, and a bar where standard error is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Tick = Callable[[], None]
"""Called once for each part that is done."""


@contextmanager
def progress(sentence: str, parts: int) -> Iterator[Tick]:
    """Show `sentence` and how many of `parts` are done. Drawn twenty times at most, to leave the clock alone."""
    step = max(1, parts // 20)
    with click.progressbar(length=parts, label=sentence, file=sys.stderr, update_min_steps=step, show_eta=False) as bar:
        yield lambda: bar.update(1)
