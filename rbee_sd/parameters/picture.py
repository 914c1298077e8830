"""The settings in an image file: exact where it is one of ours, else from the text that other programs write.

Any process; pure. A file of some megabytes takes some milliseconds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from rbee_sd.operations import jpeg_header, png_header, webp_header
from rbee_sd.parameters import containers, exif, infotext, recipe

TEXT = "parameters"
"""The key under which AUTOMATIC1111's web UI, Forge, stable-diffusion.cpp and we write the text."""
RECIPE = "rbee-sd"
"""The key of our own exact JSON."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a picture was made; everything is empty for a file that does not say.

    `text`: as it stands in the file, for people. `fields`: what of it a request of ours has a field for, by that
    field's name (with `operation`, and without input images, which no file holds). `settings`: the last line of
    `text`, as words, also what we have no field for ("Model hash", "Clip skip").
    """

    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def parameters_in(data: bytes) -> Parameters:
    """What a PNG, JPEG or WebP file says of how it was made. Raises `ValueError` that says what is wrong with it."""
    try:
        exact, text = _texts(data)
    except (struct.error, IndexError) as error:
        raise ValueError("the image file is truncated") from error
    info = infotext.parse(text)
    fields = recipe.fields_of(info) if exact is None else recipe.checked(exact)
    return Parameters(text, fields, info.settings)


def _texts(data: bytes) -> tuple[str | None, str]:
    """Our own JSON if it is there, and the text."""
    if data.startswith(png_header.SIGNATURE):
        texts = containers.png_texts(data, (TEXT, RECIPE))
        return texts.get(RECIPE), texts.get(TEXT, "")
    if data.startswith(jpeg_header.SIGNATURE):
        return None, exif.user_comment(containers.jpeg_exif(data))
    if webp_header.is_webp(data):
        return None, exif.user_comment(containers.webp_exif(data))
    raise ValueError("not a PNG, JPEG or WebP file")
