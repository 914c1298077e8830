"""One file from the hub, beginning where an earlier attempt ended, and checked when it is whole.

Blocks; several threads of a download's process do this at once. Ranges and retries are huggingface_hub's `http_get`,
whose own downloads begin from the start in another process: they keep no part. Nor does Xet, which is why files come
over plain HTTP here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.file_download import http_get

CHUNK = 256 * 1024
"""Bytes: what a kill loses, and how often progress is told."""


DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Git's, or a SHA-256."""


class DamagedError(Exception):
    """What came is not what the hub has."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the hub. `digest` is the SHA-256 of large files and git's own hash of small ones.

    Raises `DamagedError` for anything else: it becomes the name of a file.
    """

    url: str
    size: int
    digest: str

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.digest):
            raise DamagedError

    def have(self, folder: Path) -> int:
        """Bytes of it that are in a folder already."""
        for path in (folder / self.digest, self._part(folder)):
            if path.is_file():
                return min(path.stat().st_size, self.size)
        return 0

    def fetch(self, folder: Path, headers: dict[str, str], count: Callable[[int], None]) -> None:
        """Have all of it in `folder`, under its digest. `count` is told how many bytes there are now.

        Raises what huggingface_hub does, `OSError`, and `DamagedError`.
        """
        whole, part = folder / self.digest, self._part(folder)
        if not whole.is_file():
            constants.DOWNLOAD_CHUNK_SIZE = CHUNK
            with part.open("ab") as file:
                begun = file.tell()
                if begun > self.size:
                    file.truncate(begun := 0)
                http_get(
                    self.url,
                    file,
                    resume_size=begun,
                    headers=headers,
                    expected_size=self.size,
                    tqdm_class=lambda **options: _Bar(count, options.get("initial", 0)),  # type: ignore[arg-type]
                )
            if self._digest_of(part) != self.digest:
                part.unlink()
                raise DamagedError
            part.replace(whole)
        count(self.size)

    def _part(self, folder: Path) -> Path:
        return folder / f"{self.digest}.part"

    def _digest_of(self, path: Path) -> str:
        with path.open("rb") as file:
            if len(self.digest) == hashlib.sha256().digest_size * 2:
                return hashlib.file_digest(file, "sha256").hexdigest()
            # Git's, which begins with what the content is.
            digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()


class _Bar:
    """What `http_get` takes for a progress bar."""

    def __init__(self, count: Callable[[int], None], done: int) -> None:
        self._count = count
        self._done = done

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def update(self, more: int) -> None:
        self._done += more
        self._count(self._done)
