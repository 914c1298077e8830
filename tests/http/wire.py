"""A TCP connection on which a test says exactly what it wants, byte by byte, where a client would tidy up.

Plain sockets on the test's own loop: nothing is read before the test asks for it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rbee_sd.server import Server

PATIENCE = 15.0
"""Seconds to wait for the server's next byte before a test fails."""


@dataclass(frozen=True)
class Answer:
    """One HTTP response. Names of headers are in lower case; a repeated one is joined with a comma."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def request(method: str, path: str, *headers: str, body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """A request as it goes over the wire. A Host and a Content-Length are added unless `headers` have them."""
    lines = [f"{method} {path} {version}", *headers]
    given = {line.partition(":")[0].strip().lower() for line in headers}
    if "host" not in given:
        lines.insert(1, "Host: localhost")
    if body and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def submission(body: bytes, *headers: str) -> bytes:
    """A `POST /v1/jobs` of JSON."""
    return request("POST", "/v1/jobs", "Content-Type: application/json", *headers, body=body)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; of no bytes, the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Wire:
    """One connection to a server."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    @classmethod
    async def to(cls, server: Server, receive_buffer: int | None = None) -> Wire:
        """Connect. `receive_buffer`: bytes that the kernel may hold unread on this side."""
        address = urlsplit(server.url)
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host = "127.0.0.1" if address.hostname in (None, "0.0.0.0") else address.hostname
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, address.port))
        except OSError:
            connection.close()
            raise
        return cls(connection)

    async def send(self, data: bytes) -> None:
        """Send all of it; a server that has hung up in the middle is no error here."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._loop.sock_sendall(self.socket, data)
        except (BrokenPipeError, ConnectionResetError):
            return

    async def receive(self) -> bytes:
        """The next bytes; none when the server has closed the connection, in whichever way."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._loop.sock_recv(self.socket, 65536)
        except ConnectionResetError:
            return b""

    async def until(self, marker: bytes) -> bytes:
        """Everything up to and with `marker`."""
        data = b""
        while marker not in data:
            more = await self.receive()
            assert more, f"closed before {marker!r}; there was {data!r}"
            data += more
        end = data.index(marker) + len(marker)
        self._buffer = data[end:] + self._buffer
        return data[:end]

    async def rest(self) -> bytes:
        """Everything until the server closes the connection."""
        data = b""
        while more := await self.receive():
            data += more
        return data

    async def answer(self, head_only: bool = False) -> Answer:
        """One response with its body; `head_only`: to a HEAD request, which has none whatever its length says."""
        head = (await self.until(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip("\r\n").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        length = 0 if head_only else int(headers.get("content-length", "0"))
        body = b""
        while len(body) < length:
            more = await self.receive()
            assert more, f"closed with {len(body)} of {length} bytes"
            body += more
        self._buffer = body[length:] + self._buffer
        return Answer(int(start.split(" ")[1]), headers, body[:length])

    async def exchange(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer(head_only=data.startswith(b"HEAD "))

    def half_close(self) -> None:
        """Say that nothing more will be sent, and stay."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave, as a program that ends does. Idempotent."""
        self.socket.close()

    def reset(self) -> None:
        """Leave with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
