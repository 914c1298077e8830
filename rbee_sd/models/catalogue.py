"""The catalogue: the models that jobs may name, found in one folder, besides the embedded one and the default.

Owned by the front's IOLoop thread. `scan` blocks for reading the folder; `refresh` does that in a thread. A name is
a key here and nothing else: requests are compared with the names that were found, and open no path.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import KeysView
from dataclasses import dataclass
from pathlib import Path

from rbee_sd.errors import StartError

log = logging.getLogger(__name__)

INDEX = "model_index.json"
"""What makes a folder a model, in diffusers' layout."""
MANIFEST = ".rbee-sd.json"
"""What makes a folder a download of ours, whole; only such a folder is ever removed."""
ENDING = ".safetensors"
NAME = re.compile(r"\w[\w .+()-]{0,127}")
"""Words of any script. Nothing that is special in a path, a log line or on the command line."""
ALLOWED = "letters, digits, spaces and . + - _ ( )"
REPO = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}(?<![.-])/[A-Za-z0-9][\w.-]{0,95}(?<![.-])", re.ASCII)
"""Owner and name of a model on the hub, by the hub's own rules."""
MAX_INDEX = 64 * 1024
"""Bytes of an index that is worth reading."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model. `kind` is embedded, folder, file, download or hub (which diffusers fetches itself).

    `source` is where the engine finds it, `size` the bytes of its weights, `pipeline` diffusers' class; 0 and "" where
    that is not known.
    """

    name: str
    source: str
    kind: str
    size: int = 0
    pipeline: str = ""


class Catalogue:
    """The models in `folder`, the embedded one if there is, and the default.

    `default` is a setting that names one of these, or a path, or a hub id; `default_name` is what clients call that
    where it is none of these. Raises `StartError` for a folder that cannot be
    read.
    """

    def __init__(self, folder: Path, embedded: Path | None, default: str, default_name: str) -> None:
        self.folder = folder
        self._embedded = {"demo": _folder("demo", embedded, "embedded")} if embedded else {}
        self._hidden: set[str] = set()
        self._warned: set[str] = set()
        try:
            found = self._scan()
        except OSError as error:
            raise StartError(f"the folder of models {folder} cannot be read: {error.strerror}") from error
        # A path goes before a name that looks like it; but `demo` is always the embedded one.
        if default in self._embedded or (default in found and not os.path.exists(os.path.expanduser(default))):
            self._default = found[default]
        else:
            self._default = _at(default, default_name)
        self._entries: dict[str, Entry] = {}
        self._take(found)

    @property
    def default(self) -> str:
        """The name of the model for jobs that name none."""
        return self._default.name

    @property
    def default_source(self) -> str:
        """Where that lies."""
        return self._default.source

    @property
    def names(self) -> KeysView[str]:
        """All names, the default first; changes as models come and go."""
        return self._entries.keys()

    def find(self, name: str) -> Entry | None:
        """The model of this name."""
        return self._entries.get(name)

    def source_of(self, name: str) -> str | None:
        """Where a model of this name (empty: the default) lies; None when there is none."""
        entry = self._entries.get(name) if name else self._default
        return None if entry is None else entry.source

    async def refresh(self) -> None:
        """Look what there is now. A folder that cannot be read just now changes nothing."""
        try:
            self._take(await asyncio.to_thread(self._scan))
        except OSError as error:
            log.error("the folder of models cannot be read: %s", error.strerror)

    def hide(self, name: str, hidden: bool = True) -> None:
        """A model is about to be removed: nobody may name it any more. Or it stays after all."""
        if hidden:
            self._hidden.add(name)
            self._entries.pop(name, None)
        else:
            self._hidden.discard(name)

    def _take(self, found: dict[str, Entry]) -> None:
        default = self._default
        if default.kind == "download" and default.name in found:
            default = found[default.name]
        found = {default.name: default} | {name: entry for name, entry in found.items() if name not in self._hidden}
        # In place: views of the names stay what they are.
        self._entries.clear()
        self._entries.update({**found, default.name: default})

    def _scan(self) -> dict[str, Entry]:
        found = dict(self._embedded)
        try:
            paths = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return found
        for path in paths:
            try:
                entry = _entry(path)
            except OSError as error:
                self._warn(f"{path.name!r} among the models is left out: it cannot be read ({error.strerror})")
                continue
            if entry is None:
                continue
            if entry.kind != "download" and NAME.fullmatch(entry.name) is None:
                self._warn(f"the model {entry.name!r} is left out: rename it to {ALLOWED}")
            elif found.setdefault(entry.name, entry) is not entry:
                self._warn(f"the model {entry.name} is there twice; {path.name} is left out")
        return found

    def _warn(self, text: str) -> None:
        """Once: clients can have the folder looked at as often as they like."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)


def folder_of(repo: str) -> str:
    """The name of the folder for a download: `owner--name`, which no other has, since the hub has no `--` in names."""
    return repo.replace("/", "--")


def _entry(path: Path) -> Entry | None:
    if path.name.startswith("."):
        return None
    if path.is_file() and path.name.endswith(ENDING):
        return Entry(path.stem, str(path), "file", path.stat().st_size)
    if not (path / INDEX).is_file():
        return None
    repo = path.name.replace("--", "/", 1)
    if (path / MANIFEST).is_file() and REPO.fullmatch(repo):
        return _folder(repo, path, "download")
    return _folder(path.name, path, "folder")


def _folder(name: str, path: Path, kind: str) -> Entry:
    source = "demo" if kind == "embedded" else str(path)
    size = sum(file.stat().st_size for file in path.rglob(f"*{ENDING}") if file.is_file())
    return Entry(name, source, kind, size, _pipeline(path / INDEX))


def _pipeline(index: Path) -> str:
    try:
        with index.open("rb") as file:
            kind = json.loads(file.read(MAX_INDEX))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        # The engine says what is wrong with it, when somebody wants it.
        return ""
    return kind if isinstance(kind, str) else ""


def _at(source: str, name: str) -> Entry:
    """The model of the setting: a path, or a hub id, or nothing that there is."""
    path = Path(os.path.expanduser(source))
    if os.path.isfile(path):
        return Entry(name, source, "file", path.stat().st_size)
    if os.path.isdir(path):
        entry = _folder(name, path, "folder")
        return Entry(name, source, "folder", entry.size, entry.pipeline)
    return Entry(name, source, "hub")
