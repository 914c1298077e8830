"""How far the pictures of jobs that share forwards are from those that each of them makes alone, in several formats.

The kernels of a device may round differently for another number of rows: the largest difference of a pixel is what
that comes to at the end.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np
from PIL import Image

from rbee_sd.engine.bench.plan import Plan
from rbee_sd.engine.bench.published import opened
from rbee_sd.engine.bench.ways import Ways
from rbee_sd.engine.config import EngineConfig

ROWS = 2
"""Of an image at most: with guidance."""


def measure(config: EngineConfig, plan: Plan, done: Callable[[], None]) -> dict[str, dict[str, float] | str]:
    """For each of the plan's number formats, by the name of the one that was used; see `_difference`.

    A word instead, the kind of error, where the device lacks the format or has no room.
    """
    found: dict[str, dict[str, float] | str] = {}
    for dtype in plan.dtypes:
        try:
            name, figures = _difference(replace(config, dtype=dtype, max_rows=ROWS * plan.images), plan)
            found[name] = figures
        except Exception as error:
            found[dtype] = type(error).__name__
        # Before the next is loaded: two of a large model may be all that fits.
        gc.collect()
        done()
    return found


def _difference(config: EngineConfig, plan: Plan) -> tuple[str, dict[str, float]]:
    """`largest` and `mean` difference of a pixel's colours, `contrast` (their standard deviation), all of 255; `rows`.

    Without contrast there is nothing that could differ.
    """
    model = opened(config)
    with closing(Ways(model, plan)) as ways:
        works = [ways.work() for _ in range(plan.images)]
        alone = ways.files([[work] for work in works])
        forwards, rows = model.forwards, model.rows
        together = ways.files([works])
        shared = (model.rows - rows) / (model.forwards - forwards)
    pairs = [(_pixels(alone[work.job_id]), _pixels(together[work.job_id])) for work in works]
    apart = np.stack([np.abs(first - second) for first, second in pairs])
    return model.describe().dtype, {
        "largest": float(apart.max()),
        "mean": float(apart.mean()),
        "contrast": float(np.stack([first for first, _ in pairs]).std()),
        "rows": shared,
    }


def _pixels(file: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """(height, width, 3), 0 to 255; wide enough for differences."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)
