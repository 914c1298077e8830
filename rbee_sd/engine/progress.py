"""Denoiser rounds turned into the steps a client asked for. Pure arithmetic.

Schedulers of second order take more rounds than steps (Heun 2n-1, PNDM n+1), and a client who asked for n steps is
told of n, each once.
"""

from __future__ import annotations


class StepCounter:
    """Counts `rounds` rounds as `steps` steps."""

    def __init__(self, steps: int, rounds: int) -> None:
        self._steps = steps
        self._rounds = rounds
        self._told = 0

    def after(self, done: int) -> range:
        """The steps (from 1) that are newly complete when `done` rounds are."""
        first, self._told = self._told + 1, done * self._steps // self._rounds
        return range(first, self._told + 1)
