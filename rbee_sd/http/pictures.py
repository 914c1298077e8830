"""Finished images inside other text: JSON in which each stands as base64.

Front process, IOLoop thread; files are read on the thread that owns them, as fast as the client takes them, so no image
is ever in memory as a whole.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import orjson

from rbee_sd.http.transfer import SLICE
from rbee_sd.jobs.images import ImageFile, ImageFiles, OpenImage

ENCODED = SLICE // 4 * 3
"""Bytes of an image that make one slice of base64."""

Part = bytes | ImageFile
Send = Callable[[bytes], Awaitable[bool]]


def parts_of(body: Any) -> list[Part]:
    """JSON in which each `ImageFile` of `body` is a string; its content is a part of its own, the rest is bytes."""
    mark = secrets.token_hex(16)
    files: list[ImageFile] = []

    def stand_in(value: Any) -> str:
        if not isinstance(value, ImageFile):
            raise TypeError(type(value).__name__)
        files.append(value)
        return mark

    text = orjson.dumps(body, default=stand_in, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    first, *others = text.split(mark.encode())
    parts: list[Part] = [first]
    for file, rest in zip(files, others, strict=True):
        parts += [file, rest]
    return parts


def length_of(parts: Sequence[Part]) -> int:
    """Bytes that they take on the wire."""
    return sum(len(part) if isinstance(part, bytes) else (part.size + 2) // 3 * 4 for part in parts)


class Pictures:
    """Parts to be sent, whose files are open. Use as an async context."""

    def __init__(self, parts: Sequence[bytes | OpenImage], files: AsyncExitStack) -> None:
        self._parts = parts
        self._files = files

    @classmethod
    async def of(cls, parts: Sequence[Part], images: ImageFiles) -> Pictures:
        """Open the files of all parts. Raises `OSError` when one is gone."""
        async with AsyncExitStack() as files:
            opened: list[bytes | OpenImage] = []
            for part in parts:
                if isinstance(part, ImageFile):
                    opened.append(await files.enter_async_context(await images.open(part)))
                else:
                    opened.append(part)
            return cls(opened, files.pop_all())

    async def __aenter__(self) -> Pictures:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._files.aclose()

    async def send(self, send: Send) -> bool:
        """Send them all, in slices; False when the client has gone."""
        for part in self._parts:
            if isinstance(part, bytes):
                if not await send(part):
                    return False
                continue
            while piece := await part.read(ENCODED):
                if not await send(base64.b64encode(piece)):
                    return False
        return True
