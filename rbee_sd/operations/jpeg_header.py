"""The size of a JPEG, from the markers before its pixels. Front process.

Bounded by the file's length and the number of markers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_MARKERS = 20_000

SIGNATURE = b"\xff\xd8\xff"
END = b"\xff\xd9"
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
BARE = {0x01, *range(0xD0, 0xD8)}
"""Markers that nothing follows."""
SCAN = 0xDA
FILLING = 0xFF


def size_of_jpeg(data: bytes) -> tuple[int, int]:
    """Width and height. Raises `ValueError` for what is no JPEG, `struct.error` or `IndexError` for half a one."""
    size = None
    place = 0
    for marker, place in segments(data):
        if marker in FRAMES:
            height, width, colours = struct.unpack_from(">2HB", data, place + 3)
            if size is not None or colours not in (1, 3, 4):
                raise ValueError("a JPEG of a kind that is not taken")
            size = width, height
    if size is None:
        raise ValueError("a JPEG without a size")
    # Among the pixels that pair of bytes does not occur.
    if data.rfind(END, place) < 0:
        raise ValueError("the image file is truncated")
    return size


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker with where its length stands; the first scan of pixels, which must come, ends them.

    Raises like `size_of_jpeg`.
    """
    place = 2
    for _ in range(MAX_MARKERS):
        if data[place] != FILLING:
            raise ValueError("a JPEG with nonsense between its parts")
        marker = data[place + 1]
        if marker == FILLING:
            place += 1
            continue
        place += 2
        if marker in BARE:
            continue
        (length,) = struct.unpack_from(">H", data, place)
        if length < 2:
            raise ValueError("a JPEG with a part of no length")
        yield marker, place
        place += length
        if marker == SCAN:
            return
    raise ValueError(f"a JPEG of more than {MAX_MARKERS} parts")
