"""The client side: HTTP/1.1 and SSE on plain asyncio streams, with as little work between socket and clock as can be.

A usual HTTP client costs more per request than the front does, and would measure itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
DEADLINE = 30.0
"""Seconds any one answer may take."""


class BenchError(Exception):
    """The measurement could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Received:
    """One event of a stream, and the wall clock (Unix seconds) when its bytes were here."""

    data: dict[str, Any]
    at: float

    @property
    def name(self) -> str:
        """`progress`, `complete`, …"""
        return str(self.data["event"])


def request(method: str, path: str, body: dict[str, Any] | None = None, headers: str = "") -> bytes:
    """The bytes of a request. `headers` are lines that end in CR LF."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


class Connection:
    """One kept-alive connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to the worker on this port. Raises `OSError`."""
        return cls(*await asyncio.open_connection(HOST, port))

    def close(self) -> None:
        """Hang up, as a client does that has ended."""
        self._writer.close()

    async def head(self, sent: bytes) -> tuple[int, bytes]:
        """Send a request; the status of its answer, and the answer's headers in lower case."""
        self._writer.write(sent)
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head[9:12]), head.lower()

    async def exchange(self, sent: bytes) -> tuple[int, bytes]:
        """Send a request; the status and the whole body of its answer."""
        status, head = await self.head(sent)
        _, found, rest = head.partition(b"\r\ncontent-length: ")
        return status, await self.reader.readexactly(int(rest.split(b"\r", 1)[0])) if found else b""

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; the JSON object of its answer, which must be 200. Raises `BenchError`."""
        async with asyncio.timeout(DEADLINE):
            status, answer = await self.exchange(request(method, path, body))
        if status != 200:
            raise BenchError(f"{method} {path} was answered {status}: {answer.decode(errors='replace')}")
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    async def submit(self, **fields: Any) -> str:
        """Submit an operation; returns the job's id."""
        return str((await self.call("POST", "/v1/jobs", fields))["job_id"])

    async def status(self) -> dict[str, Any]:
        """What the operation `status` answers."""
        job_id = await self.submit(operation="status")
        async with asyncio.timeout(DEADLINE):
            while not (job := await self.call("GET", f"/v1/jobs/{job_id}"))["result"]:
                await asyncio.sleep(0.001)
        result: dict[str, Any] = job["result"]
        return result


class Listener:
    """One stream, listened to on a connection of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, port: int, job_id: str, headers: str = "") -> Listener:
        """Ask for a job's stream; returns when the server has begun to answer. Raises `BenchError`."""
        connection = await Connection.open(port)
        async with asyncio.timeout(DEADLINE):
            status, _ = await connection.head(request("GET", f"/v1/jobs/{job_id}/stream", headers=headers))
        if status != 200:
            connection.close()
            raise BenchError(f"the stream of {job_id} was answered {status}")
        return cls(connection)

    def close(self) -> None:
        """Stop listening."""
        self._connection.close()

    async def events(self) -> AsyncIterator[Received]:
        """The events as they come, up to the end of the stream; then the connection is closed."""
        pending = b""
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk, at in chunks:
                    *blocks, pending = (pending + chunk).split(b"\n\n")
                    for block in blocks:
                        _, found, data = block.partition(b"data: ")
                        if found and data != b"[DONE]":
                            yield Received(json.loads(data), at)
        finally:
            self.close()

    async def _chunks(self) -> AsyncGenerator[tuple[bytes, float]]:
        """The chunks of the body (RFC 9112, section 7.1), each with the time it began to arrive."""
        reader = self._connection.reader
        while size := int(await reader.readline(), 16):
            at = time.time()
            yield (await reader.readexactly(size + 2))[:-2], at
