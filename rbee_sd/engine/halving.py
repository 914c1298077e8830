"""A shared forward that fails is done again in halves, down to single calls, so that only the culprit fails.

Pure control flow; runs on the engine's main thread and blocks it for the forwards.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import Any

from rbee_sd.engine.calls import Call
from rbee_sd.engine.pipeline import DeviceLostError

log = logging.getLogger(__name__)

Outcome = tuple[Any, Exception | None]
"""A result, or what it failed with."""


def forward(calls: Sequence[Call]) -> list[Outcome]:
    """Do calls of one signature together if that works; one outcome for each, in order. Raises `DeviceLostError`."""
    first, denoiser = calls[0], calls[0].denoiser
    rows = sum(call.rows for call in calls)
    if len(calls) > 1 and rows > denoiser.cap(first):
        # Another half of the same forward has shown that this one is too large as well.
        return _halves(calls)
    results, error = _attempt(calls)
    if error is None:
        return [(result, None) for result in results]
    # Not within the `except`: there the traceback would still hold the tensors of the forward that was too large.
    too_large = denoiser.is_too_large(error)
    if too_large:
        denoiser.shrink(first, rows)
    if len(calls) > 1:
        log.warning("a forward of %d rows failed (%s); doing it in halves", rows, type(error).__name__)
        return _halves(calls)
    if too_large and first.rows > 1:
        return [_by_halves(first)]
    return [(None, error)]


def _halves(calls: Sequence[Call]) -> list[Outcome]:
    middle = len(calls) // 2
    return forward(calls[:middle]) + forward(calls[middle:])


def _by_halves(call: Call) -> Outcome:
    results = []
    for half in call.denoiser.halve(call):
        ((result, error),) = forward([half])
        if error is not None:
            return None, error
        results.append(result)
    return call.denoiser.join(*results), None


def _attempt(calls: Sequence[Call]) -> tuple[list[Any], Exception | None]:
    try:
        return calls[0].denoiser.forward(calls), None
    except DeviceLostError:
        raise
    except Exception as error:
        if len(calls) == 1 and not calls[0].denoiser.is_too_large(error):
            # Nobody else will tell where it failed.
            error.add_note("".join(["In the forward:\n", *traceback.format_tb(error.__traceback__)]))
        # The frames hold the tensors of the forward, and as long as callers know the error, themselves.
        return [], error.with_traceback(None)
