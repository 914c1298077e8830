"""Where image files keep texts: the chunks of a PNG, and the EXIF block of a JPEG or WebP. Pure.

Bounded by the length of the file, the number of its parts, and what its texts unpack to. Format: W3C PNG
specification (third edition), section 11.3.3; Exif 2.32; the WebP container specification.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

from rbee_sd.operations import jpeg_header, png_header, webp_header
from rbee_sd.operations.png_header import MAX_TEXT

EXIF_SEGMENT = 0xE1
EXIF_MARK = b"Exif\0\0"


def png_texts(data: bytes, names: Collection[str]) -> dict[str, str]:
    """The texts of these names, the first of each. Raises `ValueError`, or `struct.error` for half a file."""
    found: dict[str, str] = {}
    room = MAX_TEXT
    for kind, start, length in png_header.chunks(data):
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        # Longer is no name.
        name = data[start : start + min(length, 80)].partition(b"\0")[0].decode("latin-1")
        if name in names and name not in found:
            text = _unpacked(kind, data[start + len(name) + 1 : start + length], room)
            room -= len(text)
            found[name] = _decoded(text)
    return found


def jpeg_exif(data: bytes) -> bytes:
    """The EXIF block of a JPEG, empty without one. Raises `ValueError`, `struct.error` or `IndexError`."""
    for marker, place in jpeg_header.segments(data):
        length = int.from_bytes(data[place : place + 2])
        if marker == EXIF_SEGMENT and data.startswith(EXIF_MARK, place + 2):
            return data[place + 2 + len(EXIF_MARK) : place + length]
    return b""


def webp_exif(data: bytes) -> bytes:
    """The EXIF block of a WebP, empty without one. Raises `ValueError`, or `struct.error` for half a file."""
    for name, start, length in webp_header.chunks(data):
        if name == b"EXIF":
            # Some programs write the mark of a JPEG in front.
            return data[start : start + length].removeprefix(EXIF_MARK)
    return b""


def _unpacked(kind: bytes, value: bytes, room: int) -> bytes:
    """The text behind a chunk's name, of `room` bytes at most."""
    packed = kind == b"zTXt"
    if packed:
        value = value[1:]
    elif kind == b"iTXt":
        packed = value[:1] == b"\1"
        # Two bytes on packing, the language, and the name in that language.
        value = value[2:].split(b"\0", 2)[-1]
    try:
        text = zlib.decompressobj().decompress(value, room + 1) if packed else value
    except zlib.error as error:
        raise ValueError("a PNG with a text that cannot be unpacked") from error
    if len(text) > room:
        raise ValueError(f"the texts in the image file are larger than {MAX_TEXT} bytes")
    return text


def _decoded(text: bytes) -> str:
    try:
        # What iTXt is in, and what some write into tEXt, which by the book is Latin-1.
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
