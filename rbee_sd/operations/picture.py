"""An input image as it comes in a request: a file, or base64 text of one, whose header says what it is.

Front process. Nothing is decoded, fetched or opened: an address instead of an image is just no base64. That a file
passes here does not mean that it can be decoded, only that trying is harmless. A megabyte takes about a millisecond.
"""

from __future__ import annotations

import binascii
import re
import struct
from dataclasses import dataclass
from typing import Any

from rbee_sd.messages import MAX_INPUT_PIXELS
from rbee_sd.operations import jpeg_header, png_header, webp_header
from rbee_sd.operations.limits import MAX_INPUT_SIDE

URL = re.compile(r"data:image/[\w.+-]{1,100}(;[\w.+=-]{1,100}){0,4};base64,", re.ASCII | re.IGNORECASE)
"""How a data: URL of an image begins. What it says of the format is not relied on."""
WHITE = " \t\r\n"
"""Programs that write base64 break its lines."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file whose header has been read. `kind` is one of `messages.INPUT_FORMATS`."""

    kind: str
    width: int
    height: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.kind}, {self.width} x {self.height}, {len(self.data)} bytes"


def picture_in(value: Any) -> Picture:
    """The image in the value of a field. Raises `ValueError` that says what is wrong with it."""
    if not isinstance(value, str | bytes):
        raise ValueError("an image is sent as text: its file in base64")
    # JSON has no bytes: these come from a form, which has files.
    data = value if isinstance(value, bytes) else _decoded(value)
    try:
        picture = Picture(*_read(data), data)
    except (struct.error, IndexError) as error:
        raise ValueError("the image file is truncated") from error
    pixels = picture.width * picture.height
    if pixels == 0:
        raise ValueError("an image without width or height")
    if max(picture.width, picture.height) > MAX_INPUT_SIDE or pixels > MAX_INPUT_PIXELS:
        raise ValueError(
            f"an image of {picture.width} x {picture.height} is too large; "
            f"sides may be {MAX_INPUT_SIDE} at most, and {MAX_INPUT_PIXELS} pixels in all"
        )
    return picture


def _read(data: bytes) -> tuple[str, int, int]:
    if data.startswith(png_header.SIGNATURE):
        return "png", *png_header.size_of_png(data)
    if data.startswith(jpeg_header.SIGNATURE):
        return "jpeg", *jpeg_header.size_of_jpeg(data)
    if webp_header.is_webp(data):
        return "webp", *webp_header.size_of_webp(data)
    raise ValueError("not a PNG, JPEG or WebP file")


def _decoded(text: str) -> bytes:
    start = URL.match(text)
    if start:
        text = text[start.end() :]
    try:
        if any(character in text for character in WHITE):
            text = text.encode("ascii").translate(None, WHITE.encode()).decode("ascii")
        # The padding says nothing that the length does not; many leave it out.
        text += "=" * (-len(text) % 4)
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        # UnicodeEncodeError and binascii.Error are kinds of it.
        raise ValueError("not an image in base64, nor a data: URL of one; addresses are not fetched") from error
