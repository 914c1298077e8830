"""The user comment in an EXIF block: where programs write into a JPEG or WebP what a PNG has a text for. Pure.

Format: Exif 2.32, sections 4.6.2 (directories), 4.6.3 (pointers) and 4.6.5 (UserComment). Bounded by the number of
entries: of each directory the first of the wanted tag counts, and only two directories are ever read.
"""

from __future__ import annotations

import struct

from rbee_sd.operations.png_header import MAX_TEXT

ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
EXIF_DIRECTORY = 0x8769
USER_COMMENT = 0x9286
ENTRY = 12
"""Bytes of an entry: tag, kind, count, and the value or where it is."""
CODE = 8
"""Bytes that say how the comment is written."""


def user_comment(block: bytes) -> str:
    """The comment, empty without one. Raises `ValueError` for a damaged block, `struct.error` for half a one."""
    if not block:
        return ""
    order = ORDERS.get(block[:4])
    if order is None:
        raise ValueError("an image file with damaged EXIF data")
    (first,) = struct.unpack_from(f"{order}I", block, 4)
    directory = _entry(block, order, first, EXIF_DIRECTORY)
    comment = directory and _entry(block, order, directory[1], USER_COMMENT)
    if not comment:
        return ""
    length, place = comment
    if place + length > len(block):
        raise ValueError("an image file with damaged EXIF data")
    if length > MAX_TEXT:
        raise ValueError(f"the texts in the image file are larger than {MAX_TEXT} bytes")
    code, text = block[place : place + CODE], block[place + CODE : place + length]
    return _decoded(code, text).strip("\0")


def _entry(block: bytes, order: str, directory: int, wanted: int) -> tuple[int, int] | None:
    """Count and value of an entry of a directory."""
    (entries,) = struct.unpack_from(f"{order}H", block, directory)
    for number in range(entries):
        tag, _, count, value = struct.unpack_from(f"{order}2H2I", block, directory + 2 + number * ENTRY)
        if tag == wanted:
            return count, value
    return None


def _decoded(code: bytes, text: bytes) -> str:
    if code == b"UNICODE\0":
        return text.decode(_utf16(text), errors="replace")
    if code in (b"ASCII\0\0\0", bytes(CODE)):
        return text.decode(errors="replace")
    return ""


def _utf16(text: bytes) -> str:
    """The byte order of UTF-16. Programs disagree, whatever the order of the block: settings are mostly ASCII."""
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-16-le" if text[1::2].count(0) > text[::2].count(0) else "utf-16-be"
