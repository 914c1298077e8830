"""What `rbee-sd generate` takes besides its prompt: numbers, LoRAs, images. Blocks for reading the image files."""

from __future__ import annotations

import math
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import click

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
"""The format that is meant by a file's ending."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Number(click.types.FloatParamType):
    """A number that JSON has a word for: not NaN, not infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Called by click."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Lora(click.ParamType[dict[str, Any]]):
    """`NAME` or `NAME:SCALE` as an entry of the field `loras`."""

    name = "NAME[:SCALE]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Called by click. What the worker can judge is left to it."""
        name, colon, scale = str(value).partition(":")
        if not colon:
            return {"name": name}
        return {"name": name, "scale": Number().convert(scale, param, ctx)}


def prompts(given: tuple[str, ...]) -> tuple[str, ...]:
    """The prompts that are meant: `-`, or none where something is piped in, stands for what standard input holds."""
    if not given and sys.stdin.isatty():
        raise click.UsageError("say what to make: rbee-sd generate PROMPT")
    found = given or ("-",)
    if "-" in found:
        text = sys.stdin.buffer.read().decode(errors="replace").strip()
        if not text:
            raise click.UsageError("there is no prompt, neither as an argument nor on standard input")
        found = tuple(text if each == "-" else each for each in found)
    return found


def operation_on(image: Path | None, mask: Path | None, wanted: dict[str, Any]) -> dict[str, Any]:
    """The operation that is meant, with its images; none without an image."""
    if image is None:
        for name, given in (("--mask", mask is not None), ("--strength", "strength" in wanted)):
            if given:
                raise click.UsageError(f"{name} says what to do with an image; give --image too")
        return {}
    found = {"operation": "image_transform", "image": _base64(image)}
    if mask is not None:
        found |= {"operation": "image_inpaint", "mask": _base64(mask)}
    return found


def _base64(file: Path) -> str:
    try:
        return b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
