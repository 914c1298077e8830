"""Image files for tests: real ones, made by Pillow, and PNGs put together by hand."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image

Size = tuple[int, int]


def picture(kind: str = "PNG", size: Size = (96, 64), mode: str = "RGB", **options: Any) -> bytes:
    """A file with a gradient. `options` go to Pillow's `save`."""
    image = Image.linear_gradient("L").resize(size).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animation(kind: str, size: Size = (96, 64)) -> bytes:
    """A file with two pictures, one after the other."""
    frames = [Image.new("RGB", size, colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: bytes, size: Size = (64, 64), depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of one colour, with more chunks before its pixels; true to the format even where it is huge."""
    width, height = size
    packed = zlib.compressobj(1)
    row = b"\0" * (width * depth // 8 + 1)
    pixels = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND")),
    )


def text(data: bytes) -> str:
    """A file as a request holds it."""
    return base64.b64encode(data).decode()
