"""The size of a PNG, from its chunks. Front process.

Reads what is around the pixels, bounded by the file's length, the number of its chunks, and what its texts unpack to.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

MAX_CHUNKS = 10_000
"""Encoders write the pixels in pieces of some kilobytes."""
MAX_TEXT = 1024 * 1024
"""Bytes of all texts and profiles, unpacked."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bit depths that go with each colour type."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def size_of_png(data: bytes) -> tuple[int, int]:
    """Width and height. Raises `ValueError` for what is no still PNG, `struct.error` for half a one."""
    width = height = text = 0
    pixels = False
    for number, (name, start, length) in enumerate(chunks(data)):
        if number == 0:
            if (name, length) != (b"IHDR", 13):
                raise ValueError("a PNG that does not begin with its size")
            width, height, depth, colour, *rest, interlaced = struct.unpack_from(">2I5B", data, start)
            if depth not in DEPTHS.get(colour, ()) or any(rest) or interlaced > 1:
                raise ValueError("a PNG of a kind that does not exist")
        elif name == b"IHDR":
            raise ValueError("a PNG with two sizes")
        elif name in ANIMATION:
            raise ValueError("animated images are not taken")
        elif name in TEXTS:
            text += _text_size(name, data[start : start + length], MAX_TEXT - text)
            if text > MAX_TEXT:
                raise ValueError(f"the texts in the image file are larger than {MAX_TEXT} bytes")
        pixels |= name == b"IDAT"
    if not pixels:
        raise ValueError("a PNG without pixels")
    return width, height


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk; IEND, which must come, ends them. Raises like `size_of_png`."""
    place = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", data, place)
        start = place + 8
        place = start + length + 4
        if place > len(data):
            raise ValueError("the image file is truncated")
        if name == b"IEND":
            return
        yield name, start, length
    raise ValueError(f"a PNG of more than {MAX_CHUNKS} parts")


def _text_size(name: bytes, chunk: bytes, room: int) -> int:
    """How large the text in a chunk is, unpacked; more than `room` is not counted to its end."""
    _, _, rest = chunk.partition(b"\0")
    packed = b""
    if name == b"iTXt" and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]
    elif name in (b"zTXt", b"iCCP"):
        packed = rest[1:]
    try:
        return len(chunk) + len(zlib.decompressobj().decompress(packed, room + 1))
    except zlib.error as error:
        # How much came out before is not known, and it could come out again for each of many chunks.
        raise ValueError("a PNG with a text that cannot be unpacked") from error
