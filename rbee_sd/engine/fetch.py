"""A download, in a process of its own: `python -m rbee_sd.engine.fetch OWNER/NAME FOLDER`.

It says on its standard output what it does, an object of JSON a line: `text` for people; `bytes` and `total_bytes`; and
last `done`, or `error` (a code of the contract) with `message`. It ends when its standard input does. Killed, it leaves
what it has in FOLDER/.partial, where the next one finds it. A model that is whole appears in FOLDER by one rename.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, RepoFile, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._headers import build_hf_headers

from rbee_sd.disk import sync
from rbee_sd.engine.choice import INDEX, choose
from rbee_sd.engine.pipeline import ModelError
from rbee_sd.engine.transfer import DamagedError, Remote

PARTIAL = ".partial"
MANIFEST = ".rbee-sd.json"
"""As the catalogue knows it: in a folder that is a download, whole."""
FILES_AT_ONCE = 4
SPARE = 64 << 20
"""Bytes that stay free: the worker's own store may be on the same disk."""
KEPT = 30 * 86400.0
"""Seconds for which what there is of a model that nobody asks for again is kept."""
MAX_INDEX = 64 * 1024
STEP = 0.002
"""Of the whole: progress is told when it has grown by this, but not more often than every `INTERVAL`, or `SELDOM`."""
INTERVAL = 0.2
SELDOM = 10.0
FULL = "the disk is full; make room and ask again, and the download goes on where it was"


class FetchError(Exception):
    """The model cannot be downloaded. `code` is an error code of the contract, the message for clients."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def fetch(repo: str, folder: Path) -> None:
    """Download a model, unless it is there. Raises `FetchError`, `ModelError`, and what the hub and the disk raise."""
    name = repo.replace("/", "--")
    partial = folder / PARTIAL / name
    partial.parent.mkdir(parents=True, exist_ok=True)
    with (folder / PARTIAL / f"{name}.lock").open("w") as lock:
        # Another worker may have the same folder of models.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / name / MANIFEST).exists():
            return
        if (folder / name).exists():
            raise FetchError("model_not_ours", f"there is a folder {name} among the models, which is no download")
        partial.mkdir(exist_ok=True)
        # What `_sweep` goes by.
        os.utime(partial)
        _sweep(folder / PARTIAL)
        _fetch(repo, folder, partial)


def _fetch(repo: str, folder: Path, partial: Path) -> None:
    api, headers = HfApi(), build_hf_headers()
    commit = api.model_info(repo).sha
    tree = api.list_repo_tree(repo, recursive=True, revision=commit)
    files = {each.path: each for each in tree if isinstance(each, RepoFile)}
    if INDEX not in files or files[INDEX].size > MAX_INDEX:
        raise ModelError(f"the model {repo} is not in diffusers' layout: it has no {INDEX}")
    remotes = {
        path: Remote(hf_hub_url(repo, path, revision=commit), each.size, each.lfs.sha256 if each.lfs else each.blob_id)
        for path, each in files.items()
    }
    remotes[INDEX].fetch(partial, headers, lambda _: None)
    chosen = choose(repo, _read(partial / remotes[INDEX].digest), remotes)
    wanted = {path: remotes[path] for path in chosen}
    progress = _Progress({each.digest: each for each in wanted.values()}, partial)
    _check_room(repo, progress, folder)
    say(text=f"downloading {repo}: {len(wanted)} files, {in_words(progress.total)}")
    progress.tell()
    # Its end would wait for all threads: the first that fails is told at once, and the process ends under the others.
    threads = ThreadPoolExecutor(FILES_AT_ONCE)
    fetching = [threads.submit(each.fetch, partial, headers, progress.of(each)) for each in progress.remotes.values()]
    for each in as_completed(fetching):
        each.result()
    progress.tell()
    _put_together(repo, commit or "", {target: remotes[path].digest for path, target in chosen.items()}, folder)


def say(**line: Any) -> None:
    """Tell the front something, in one write: several threads do."""
    os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")


def in_words(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


class _Progress:
    """Adds up what the threads have. Each file counts once, also one that is in several places."""

    def __init__(self, remotes: dict[str, Remote], partial: Path) -> None:
        self.remotes = remotes
        self.total = sum(each.size for each in remotes.values())
        self._partial = partial
        self._done = {digest: each.have(partial) for digest, each in remotes.items()}
        self._lock = threading.Lock()
        self._told = 0
        self._told_at = 0.0

    @property
    def done(self) -> int:
        return sum(self._done.values())

    def of(self, remote: Remote) -> Any:
        """What a file's transfer calls with the bytes that there are of it. Raises `FetchError` on a full disk."""

        def count(size: int) -> None:
            if shutil.disk_usage(self._partial).free < SPARE:
                # Somebody else fills it too.
                raise FetchError("disk_full", FULL)
            with self._lock:
                self._done[remote.digest] = size
                since = time.monotonic() - self._told_at
                if since >= SELDOM or (since >= INTERVAL and abs(self.done - self._told) >= STEP * self.total):
                    self.tell()

        return count

    def tell(self) -> None:
        self._told, self._told_at = self.done, time.monotonic()
        say(bytes=self._told, total_bytes=self.total)


def _read(index: Path) -> dict[str, Any]:
    try:
        content = json.loads(index.read_bytes())
    except ValueError as error:
        raise ModelError(f"the model's {INDEX} is not JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"the model's {INDEX} is no list of parts")
    return content


def _check_room(repo: str, progress: _Progress, folder: Path) -> None:
    missing, free = progress.total - progress.done, shutil.disk_usage(folder).free
    if missing + SPARE > free:
        text = f"the model {repo} needs {in_words(missing + SPARE)} more on the disk, where {in_words(free)} are free"
        raise FetchError("disk_full", text)


def _put_together(repo: str, commit: str, digests: dict[str, str], folder: Path) -> None:
    """From files under their digests, which stay until it is there, to the model's folder."""
    name = repo.replace("/", "--")
    partial, whole = folder / PARTIAL / name, folder / PARTIAL / f"{name}.whole"
    shutil.rmtree(whole, ignore_errors=True)
    for target, digest in digests.items():
        (whole / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(partial / digest, whole / target)
        except OSError:
            # Not every file system has links.
            shutil.copyfile(partial / digest, whole / target)
    (whole / MANIFEST).write_text(json.dumps({"repo": repo, "commit": commit}), encoding="utf-8")
    for path in (*whole.rglob("*"), whole):
        sync(path)
    os.rename(whole, folder / name)
    sync(folder)
    shutil.rmtree(partial)


def _sweep(folder: Path) -> None:
    """Remove what no download has begun with for long. The locks stay: others may hold them."""
    for path in folder.iterdir():
        # Another worker may be done with it just now; and what stays harms no download.
        with suppress(OSError):
            if path.is_dir() and path.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(path)


def _failure(repo: str, error: Exception) -> tuple[str, str]:
    """The code and the message for what went wrong. No address and no path in them."""
    match error:
        case FetchError():
            return error.code, str(error)
        case ModelError():
            return "model_unsuitable", str(error)
        case GatedRepoError():
            text = f"the model {repo} is gated: accept its terms on the hub, and start the worker with an HF_TOKEN"
            return "model_not_found", text
        case RepositoryNotFoundError() | RevisionNotFoundError():
            text = f"the hub has no model {repo}, or it is private: then start the worker with an HF_TOKEN"
            return "model_not_found", text
        case OfflineModeIsEnabled():
            return "hub_unreachable", "HF_HUB_OFFLINE is set for this worker: it downloads nothing"
        case HfHubHTTPError():
            text = f"the hub answered {error.response.status_code}; ask again, and the download goes on where it was"
            return "hub_unreachable", text
        case httpx2.HTTPError():
            text = f"the hub cannot be reached ({type(error).__name__}); ask again, and it goes on where it was"
            return "hub_unreachable", text
        case OSError(errno=errno.ENOSPC):
            return "disk_full", FULL
        case DamagedError():
            return "download_failed", "a file arrived damaged and was dropped; ask again for it"
    print(f"the download of {repo} failed: {type(error).__name__}: {error}", file=sys.stderr)
    return "download_failed", f"the download failed ({type(error).__name__}); the worker's log says more"


def _leave_with_front() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Entry of the process."""
    repo, folder = sys.argv[1], Path(sys.argv[2])
    threading.Thread(target=_leave_with_front, name="front-watch", daemon=True).start()
    try:
        fetch(repo, folder)
    except Exception as error:
        code, message = _failure(repo, error)
        say(error=code, message=message)
    else:
        say(done=True)
    # After a failure, threads still fetch other files: they are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
