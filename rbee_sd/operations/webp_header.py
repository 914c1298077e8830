"""The size of a WebP, from its chunks. Front process.

Bounded by the length that the file says it has, which must be there, and the number of chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_CHUNKS = 1000

ANIMATED = 0x02


def is_webp(data: bytes) -> bool:
    """Whether the file says that it is one."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def size_of_webp(data: bytes) -> tuple[int, int]:
    """Width and height. Raises `ValueError` for no still WebP, `struct.error` or `IndexError` for half a one."""
    canvas = None
    for name, start, length in chunks(data):
        chunk = data[start : start + min(length, 16)]
        if name in (b"VP8 ", b"VP8L"):
            size = _lossy(chunk) if name == b"VP8 " else _lossless(chunk)
            if canvas not in (None, size):
                raise ValueError("a WebP of two different sizes")
            return size
        if name == b"VP8X":
            canvas = _canvas(chunk)
        if name in (b"ANIM", b"ANMF"):
            raise ValueError("animated images are not taken")
    raise ValueError("a WebP without pixels")


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk. Raises `ValueError`, or `struct.error` for half a file."""
    end = struct.unpack_from("<I", data, 4)[0] + 8
    place = 12
    for _ in range(MAX_CHUNKS):
        if place >= end:
            return
        name, length = struct.unpack_from("<4sI", data, place)
        start = place + 8
        if not start + length <= end <= len(data):
            raise ValueError("the image file is truncated")
        yield name, start, length
        # Chunks begin at even places.
        place = start + length + length % 2
    raise ValueError(f"a WebP of more than {MAX_CHUNKS} parts")


def _canvas(chunk: bytes) -> tuple[int, int]:
    if chunk[0] & ANIMATED:
        raise ValueError("animated images are not taken")
    width, width_high, height, height_high = struct.unpack_from("<HBHB", chunk, 4)
    return (width_high << 16 | width) + 1, (height_high << 16 | height) + 1


def _lossy(chunk: bytes) -> tuple[int, int]:
    tag, code, width, height = struct.unpack_from("<B2x3s2H", chunk)
    if tag & 1 or code != b"\x9d\x01\x2a":
        raise ValueError("a WebP that does not begin with a picture")
    # The two highest bits ask for scaling, which nobody does.
    return width & 0x3FFF, height & 0x3FFF


def _lossless(chunk: bytes) -> tuple[int, int]:
    code, bits = struct.unpack_from("<BI", chunk)
    if code != 0x2F or bits >> 29:
        raise ValueError("a WebP of a kind that does not exist")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
