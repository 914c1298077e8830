"""The line between the page and its worker, for tests: answers can be lost or held on it, and it can go dead.

It listens on a port of its own and has a thread of its own; what it is to do is said from the test's.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

PAUSE = 0.01


class Connection:
    """One of the page's: both its ends, and how the request began that is answered on it now."""

    def __init__(self, page: asyncio.StreamWriter, worker: asyncio.StreamWriter) -> None:
        self.page = page
        self.worker = worker
        self.asked = b""
        self.dead = False

    def cut(self) -> None:
        """End it, for both. Idempotent."""
        self.page.transport.abort()
        self.worker.transport.abort()


class Line:
    """Carries connections to the worker at `port`.

    `lose` and `hold` name answers by how their requests begin, such as `POST /v1/jobs`; None: no answer. What is held
    comes when it is not to be held any more. `refuse` names requests that do not reach the worker.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.lose: bytes | None = None
        self.hold: bytes | None = None
        self.refuse: bytes | None = None
        self.lost = 0

    def die(self, request: bytes) -> None:
        """Nothing comes any more through the connections on which such a request is answered, and nobody is told."""
        for connection in tuple(self._connections):
            connection.dead |= connection.asked.startswith(request)

    def close(self) -> None:
        """Cut everything and listen no more."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        self.hold = None
        while self._connections:
            for connection in self._connections:
                connection.dead = False
                connection.cut()
            await asyncio.sleep(PAUSE)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, worker = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(writer, worker)
        self._connections.add(connection)
        await asyncio.gather(self._ask(reader, connection), self._answer(answers, connection))
        self._connections.discard(connection)

    async def _ask(self, source: asyncio.StreamReader, connection: Connection) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                # A browser sends the beginning of a request at once.
                if data.startswith((b"GET /", b"POST /", b"DELETE /")):
                    connection.asked = data[:100]
                if self.refuse is not None and connection.asked.startswith(self.refuse):
                    break
                connection.worker.write(data)
                await connection.worker.drain()
        connection.cut()

    async def _answer(self, source: asyncio.StreamReader, connection: Connection) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if self.lose is not None and connection.asked.startswith(self.lose):
                    self.lost += 1
                    break
                while connection.dead or (self.hold is not None and connection.asked.startswith(self.hold)):
                    await asyncio.sleep(PAUSE)
                connection.page.write(data)
                await connection.page.drain()
        connection.cut()
