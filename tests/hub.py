"""A small hub on loopback: what huggingface_hub asks for when a model is looked at and its files are fetched."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c" * 40
LARGE = 4096
"""Bytes from which a file is kept with its SHA-256, as the hub does with those of many megabytes."""
PATIENCE = 30.0


class Hub:
    """Repositories by name, each with its files. `asked` holds every request for a file: its path, and where it began.

    `sizes` and `digests` are told in place of the true ones. A file in `held` is sent up to so many bytes, and then
    nothing until `release`. Repositories in `refused` are answered with a status and a code.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.held: dict[str, int] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, int]] = []
        self._may_go = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def add(self, name: str, folder: Path) -> dict[str, bytes]:
        """Serve a folder; returns its files, which may be changed."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[name] = files
        return files

    def tree(self, name: str) -> list[dict[str, Any]]:
        """What the hub says of the files of a repository."""
        files = self.repositories[name]
        entries = [_entry(each, files[each], self.sizes.get(each, len(files[each]))) for each in sorted(files)]
        for entry in entries:
            entry["oid"] = self.digests.get(entry["path"], entry["oid"])
        return entries

    def release(self) -> None:
        """Send what was held back, and hold nothing more."""
        self.held.clear()
        self._may_go.set()

    def wait(self) -> None:
        """Wait for `release`, in a thread of the server."""
        self._may_go.wait(PATIENCE)

    def close(self) -> None:
        """Hang up."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub, closed at the end."""
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


def _entry(path: str, content: bytes, size: int) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": size}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
    return entry


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed here: a connection that breaks is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        name = "/".join(path.removeprefix("api/models/").split("/")[:2])
        if name in self.hub.refused:
            status, code = self.hub.refused[name]
            self._answer(status, {}, code)
        elif name not in self.hub.repositories:
            self._answer(404, {}, "RepoNotFound")
        elif path == f"api/models/{name}":
            self._answer(200, {"id": name, "sha": COMMIT, "siblings": []})
        elif path == f"api/models/{name}/tree/{COMMIT}":
            self._answer(200, self.hub.tree(name))
        else:
            file = path.removeprefix(f"{name}/resolve/{COMMIT}/")
            self._send(file, self.hub.repositories[name][file])

    def _send(self, file: str, content: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(match[1]) if match else 0
        self.hub.asked.append((file, first))
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if match:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if file in self.hub.held:
            until = self.hub.held[file]
            self.wfile.write(content[first:until])
            first = max(first, until)
            self.hub.wait()
        self.wfile.write(content[first:])

    def _answer(self, status: int, content: object, code: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""
