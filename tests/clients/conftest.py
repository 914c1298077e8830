"""What the tests with other people's programs share: connections that a test can cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import pytest
from tornado.ioloop import IOLoop

from rbee_sd.server import Server


class Relay:
    """Stands between a client and a worker, and can cut every connection that is open."""

    def __init__(self, server: Server) -> None:
        self.to = server
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self) -> str:
        """The address to be called instead of the worker's."""
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def cut(self) -> None:
        """Break all connections, on both sides."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Cut all, and take no more."""
        if self._listener is not None:
            self._listener.close()
        self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        address = urlsplit(self.to.url)
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", address.port)
        both = {writer, upstream}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, upstream), _pump(upstream_reader, writer))
        finally:
            self._writers -= both
            for each in both:
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


MakeRelay = Callable[[Server], Awaitable[tuple[Relay, str]]]


@pytest.fixture
def relayed(io_loop: IOLoop) -> Iterator[MakeRelay]:
    """Put a relay before a server: `relay, address = await relayed(server)`."""
    relays: list[Relay] = []

    async def make(server: Server) -> tuple[Relay, str]:
        relays.append(Relay(server))
        return relays[-1], await relays[-1].listen()

    yield make
    for relay in relays:
        io_loop.run_sync(relay.close)
