"""Whether bytes are a whole, intact PNG, without an image library.

Format: W3C PNG specification (third edition), sections 5 and 10. Eight bits a channel, not interlaced.
"""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


class BrokenPngError(Exception):
    """The bytes are no PNG, or a damaged one."""


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height, once every checksum and the amount of pixel data have been checked. Raises `BrokenPngError`."""
    if not data.startswith(SIGNATURE):
        raise BrokenPngError("it does not begin like a PNG")
    chunks = _chunks(data)
    if not chunks or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND" or len(chunks[0][1]) != 13:
        raise BrokenPngError("it lacks its beginning or its end")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth != 8 or colour not in CHANNELS or interlaced:
        raise BrokenPngError("it is of a kind the worker does not write")
    try:
        pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    except zlib.error as error:
        raise BrokenPngError("its pixels cannot be unpacked") from error
    if len(pixels) != height * (1 + width * CHANNELS[colour]):
        raise BrokenPngError("it holds more or fewer pixels than it says")
    return width, height


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks = []
    place = len(SIGNATURE)
    while place < len(data):
        try:
            length, kind = struct.unpack_from(">I4s", data, place)
            body = data[place + 8 : place + 8 + length]
            (checksum,) = struct.unpack_from(">I", data, place + 8 + length)
        except struct.error as error:
            raise BrokenPngError("it is cut off") from error
        if zlib.crc32(kind + body) != checksum:
            raise BrokenPngError(f"its {kind.decode('latin-1')} part is damaged")
        chunks.append((kind, body))
        place += 12 + length
    return chunks
