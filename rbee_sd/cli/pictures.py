"""What `rbee-sd generate` does with finished pictures: files, a line or an object for each job, a look at them.

Blocks for writing the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click

from rbee_sd.cli.terminal import Draw
from rbee_sd.client import ApiError, JobFailedError, Result


class Pictures:
    """Keeps the pictures of one call. `output`: the first file; the others get numbers, `out-1.png`, `out-2.png` ….

    Without it, files are named after the seed. `count`: images of each prompt; `same_seed`: all prompts have one.
    """

    def __init__(self, output: Path | None, count: int, *, same_seed: bool, as_json: bool, draw: Draw | None) -> None:
        self._output = output
        self._count = count
        self._counted_through = output is not None or same_seed
        self._as_json = as_json
        self._draw = draw

    def keep(self, number: int, prompt: str, result: Result, say: Callable[[str], None]) -> None:
        """Write the pictures of the prompt of this number, counted from 0, and tell. Raises `OSError`."""
        complete = result.complete
        first = self._output or Path(f"rbee-sd-{complete.seed}.{complete.format}")
        told, lines = [], []
        for image in result.images:
            place = image.index + (number * self._count if self._counted_through else 0)
            path = first.with_stem(f"{first.stem}-{place}") if place else first
            write_whole(path, image.data)
            told.append({"file": str(path), "index": image.index, "seed": image.seed, "flagged": image.flagged})
            if self._draw is not None and (shown := self._draw(image.data)):
                say(shown)
            lines.append(f"{path}  {complete.width} x {complete.height}, seed {image.seed}")
        if not self._as_json:
            click.echo("\n".join(lines))
        else:
            size = {"width": complete.width, "height": complete.height}
            _tell({"prompt": prompt, "job_id": result.job_id, "seed": complete.seed, **size, "images": told})

    def failed(self, prompt: str, error: Exception) -> None:
        """Tell that there are none."""
        if self._as_json:
            code = error.code if isinstance(error, ApiError | JobFailedError) else ""
            _tell({"prompt": prompt, "error": {"code": code, "message": str(error)}})


def write_whole(path: Path, data: bytes) -> None:
    """Write a whole file or none; into a device or a pipe, as it comes. Raises `OSError`."""
    # Where a link leads, not in its place.
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _tell(line: dict[str, object]) -> None:
    click.echo(json.dumps(line))
