"""Finished images, as files: `FOLDER/<job id>/<n>.png`, or `.jpeg`, or `.webp`; beside it `<n>.thumbnail.jpeg`.

Called from the front's IOLoop thread; the blocking work runs on one thread of its own. A file appears under its
name only when all of it is on disk (written aside, synced, renamed).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rbee_sd.disk import sync
from rbee_sd.messages import JPEG, PNG

T = TypeVar("T")

FOLDER = "images"
"""In the state folder."""
PART = ".part"
THUMBNAIL = "thumbnail.jpeg"
ID = re.compile(r"job_[\w-]+", re.ASCII)
OURS = re.compile(r"job_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\.part)?")
"""Names of the folders made here; what else lies there is somebody else's."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image on disk. `etag` is a quoted hash of its bytes, as HTTP wants it; `size` is theirs.

    `format` is one of `messages.FORMATS`. `thumbnail` is a small JPEG of it; None when it is small itself, or is from
    before there were any.
    """

    path: Path
    etag: str
    size: int
    format: str
    thumbnail: ImageFile | None = None


class OpenImage:
    """An image being read. Goes on to the end of it also when it is removed meanwhile. Use as an async context."""

    def __init__(self, file: BinaryIO, opened: set[BinaryIO], call: Callable[..., Awaitable[Any]]) -> None:
        self._file = file
        self._opened = opened
        self._call = call

    async def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, none behind it."""
        part: bytes = await self._call(self._file.read, size)
        return part

    async def __aenter__(self) -> OpenImage:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._opened.discard(self._file)
        self._file.close()


class ImageFiles:
    """Owns the folder of images. Nothing else writes there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="images")
        self._opened: set[BinaryIO] = set()
        self._closed = False

    def prepare(self) -> list[str]:
        """Make the folder; returns the ids of the jobs that have images there. Blocks; raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        left = [name for name in os.listdir(self._folder) if OURS.fullmatch(name)]
        for name in left:
            if name.endswith(PART):
                shutil.rmtree(self._folder / name, ignore_errors=True)
        return [name for name in left if not name.endswith(PART)]

    def file(self, job_id: str, number: int, etag: str, size: int, kind: str = PNG, small: int = 0) -> ImageFile:
        """What is known of an image that was saved, in a format that is PNG unless there is word of it.

        Its thumbnail has `small` bytes; 0: there is none.
        """
        folder = self._folder / job_id
        # The two are made together, so what names the one names the other.
        tag = f'{etag[:-1]}-thumbnail"'
        thumbnail = ImageFile(folder / f"{number}.{THUMBNAIL}", tag, small, JPEG) if small else None
        return ImageFile(folder / f"{number}.{kind}", etag, size, kind, thumbnail)

    async def save(
        self, job_id: str, images: Sequence[bytes], kind: str = PNG, thumbnails: Sequence[bytes] = ()
    ) -> list[ImageFile]:
        """Store a job's images, which are of this format, all or none. Raises `OSError`.

        Of `thumbnails`, one for each or none at all, those that are empty are left out.
        """
        return await self._call(self._write, job_id, images, kind, thumbnails or [b""] * len(images))

    async def open(self, image: ImageFile) -> OpenImage:
        """Open an image for reading. Raises `OSError` when the file is gone."""
        return OpenImage(await self._call(self._open, image.path), self._opened, self._call)

    def remove(self, job_id: str) -> None:
        """Delete a job's images, in the background as long as there is one. No effect when it has none."""
        if not ID.fullmatch(job_id):
            # What is deleted is a folder with all that is in it.
            return
        if self._closed:
            shutil.rmtree(self._folder / job_id, ignore_errors=True)
        else:
            self._thread.submit(shutil.rmtree, self._folder / job_id, ignore_errors=True)

    def close(self) -> None:
        """Finish what was begun, end the thread, close what is open. Idempotent; blocks for the writes in hand."""
        self._closed = True
        self._thread.shutdown()
        # Whoever asked for these will not be resumed any more: the loop ends before they hear that theirs is open.
        while self._opened:
            self._opened.pop().close()

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _open(self, path: Path) -> BinaryIO:
        file = path.open("rb")
        self._opened.add(file)
        return file

    def _write(self, job_id: str, images: Sequence[bytes], kind: str, thumbnails: Sequence[bytes]) -> list[ImageFile]:
        aside, final = self._folder / f"{job_id}{PART}", self._folder / job_id
        pairs = list(zip(images, thumbnails, strict=True))
        try:
            aside.mkdir()
            for number, (image, small) in enumerate(pairs):
                _write_synced(aside / f"{number}.{kind}", image)
                if small:
                    _write_synced(aside / f"{number}.{THUMBNAIL}", small)
            sync(aside)
            aside.rename(final)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        try:
            sync(self._folder)
        except OSError:
            shutil.rmtree(final, ignore_errors=True)
            raise
        return [
            self.file(job_id, number, f'"{hashlib.sha256(image).hexdigest()[:32]}"', len(image), kind, len(small))
            for number, (image, small) in enumerate(pairs)
        ]


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
