"""`rbee-sd inspect`: how a picture was made, out of its file. Needs no worker; blocks for reading the file."""

from __future__ import annotations

import json
from typing import BinaryIO
from unicodedata import category

import click

from rbee_sd.cli import calling
from rbee_sd.parameters.picture import parameters_in

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of what follows."""
LARGEST = 256 * 1024 * 1024
"""Bytes of a file that is looked at."""


@click.command("inspect", short_help="Tell how a picture was made.")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="As one JSON object: fields of a request, settings, text.")
def command(file: BinaryIO, as_json: bool) -> None:
    """Tell the settings in FILE: a PNG, JPEG or WebP of ours, of AUTOMATIC1111's web UI, Forge or stable-diffusion.cpp.

    Exit status 1 when it has none, or is damaged.
    """
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        calling.end(f"{file.name} is larger than {LARGEST} bytes", 1)
    try:
        found = parameters_in(data)
    except ValueError as error:
        calling.end(f"{file.name}: {error}", 1)
    if not found.fields and not found.text:
        calling.end(f"{file.name} does not say how it was made", 1)
    if as_json:
        told = {"fields": found.fields, "settings": found.settings, "text": found.text}
        click.echo(json.dumps(told))
        return
    click.echo(_harmless(found.text))
    for name, value in found.fields.items():
        click.echo(_harmless(f"{name:<16} {json.dumps(value, ensure_ascii=False)}"))


def _harmless(text: str) -> str:
    """Text of strangers for a terminal: without the characters that would command it, or turn what it shows."""
    return "".join("\ufffd" if _commands(each) else each for each in text)


def _commands(each: str) -> bool:
    return each in TURNING or (category(each) == "Cc" and each not in "\n\t")
