"""The cable between a client and a worker, for tests: it can be cut, and it can lose an answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Cable:
    """Carries connections to the worker at `port`. `lose_answers`: so many answers still to be lost, whole."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.lose_answers = 0
        self.connections = 0
        self.url = ""

    async def lay(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """End all connections in their midst."""
        for end in self._ends:
            end.transport.abort()

    async def close(self) -> None:
        """Cut it and listen no more."""
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back), self._answer(there, writer))
        finally:
            self._ends -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        if self.lose_answers:
            with suppress(OSError):
                await source.read(1)
            self.lose_answers -= 1
            sink.transport.abort()
            return
        await self._pass(source, sink)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
