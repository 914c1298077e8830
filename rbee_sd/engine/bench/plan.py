"""What is to be measured. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

WAYS = ("sequential", "single", "shared", "static")
"""`pipe()` again and again; the engine with one job at a time; with all of them at once; one `pipe()` of a batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, on what.

    Each of `ways` makes `images` images in each of `rounds` rounds. `rows` are timed as forwards, and those in
    `variants` with one setting changed at a time. `moments` is how often a job is cancelled and another begun.
    In each of `dtypes`, pictures made alone are compared with the same made together. `threads`, `side`: 0 for what the
    worker and the model want.
    """

    model: str
    device: str
    dtype: str
    threads: int
    max_rows: int
    side: int
    steps: int
    images: int
    ways: tuple[str, ...]
    rounds: int
    rows: tuple[int, ...]
    forwards: int
    variants: tuple[int, ...]
    moments: int
    dtypes: tuple[str, ...]
