"""One life of one engine process: started, spoken to, listened to, ended.

Made and used on the front's IOLoop thread, which must be the main thread: the engine's death signal is tied to
the thread that starts it. Nothing here blocks that thread for longer than a spawn (some milliseconds): a reader
thread turns frames into callbacks on the IOLoop, a writer thread sends. Both end with the process.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from tornado.ioloop import IOLoop

from rbee_sd.messages import MAX_FRAME, Message, ProtocolError, Shutdown, decode, encode

log = logging.getLogger(__name__)

LINGER = 1.0
"""Seconds a process may live on after it closed its pipe."""
SHUTDOWN_GRACE = 1.0
TERMINATE_GRACE = 0.5
"""Seconds for each rung of the ladder. No job is waited for here: draining comes before."""

EngineMain = Callable[[Connection, Any], None]
"""Entry of the child: gets its end of the pipe and its configuration."""


class EngineProcess:
    """A child process. `on_message` gets each message; `on_exit` gets the exit code, once, last."""

    def __init__(
        self,
        target: EngineMain,
        config: Any,
        on_message: Callable[[Message], None],
        on_exit: Callable[[int | None], None],
    ) -> None:
        self._loop = IOLoop.current()
        self._on_message = on_message
        self._on_exit = on_exit
        self.exited = asyncio.Event()
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(target=target, args=(child_end, config), name="rbee-sd-engine", daemon=True)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()
            child_end.close()
            raise
        self.pid = self._process.pid
        # While the front holds a copy of the child's end, a dead child never gives an end of file.
        child_end.close()
        self._writer = threading.Thread(target=self._write, name="engine-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="engine-reader", daemon=True)
        self._writer.start()
        self._reader.start()

    def send(self, message: Message) -> None:
        """Queue a message. Lost without complaint if the process has died: its death is told by `on_exit`."""
        self._outbox.put(encode(message))

    def kill(self) -> None:
        """End the process at once, also a stopped one. No effect on one that has ended."""
        self._signal(self._process.kill)

    async def stop(self, listening: bool) -> None:
        """End the process: a Shutdown message, then SIGTERM, then SIGKILL, each with a deadline.

        One that is not `listening`, because it loads a model, is spared the message.
        """
        self.send(Shutdown())
        if not (listening and await self._exits_within(SHUTDOWN_GRACE)):
            self._signal(self._process.terminate)
            if not await self._exits_within(TERMINATE_GRACE):
                self.kill()
                await self.exited.wait()

    def _signal(self, send: Callable[[], None]) -> None:
        # The reader thread may have seen the end of the process, and let go of it, a moment ago.
        with suppress(ValueError):
            send()

    async def _exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            return False
        return True

    def _write(self) -> None:
        try:
            while (frame := self._outbox.get()) is not None:
                self._pipe.send_bytes(frame)
                # It may hold input images, and it can be long until the next one comes.
                del frame
        except OSError:
            log.debug("the engine's pipe is closed for writing")

    def _read(self) -> None:
        try:
            while True:
                # In no variable, which would keep a job's images until the engine speaks again.
                self._loop.add_callback(self._on_message, decode(self._pipe.recv_bytes(MAX_FRAME)))
        except ProtocolError as error:
            log.error("the engine broke the protocol (%s); it is replaced", error)
            self._process.kill()
        except (EOFError, OSError):
            # A child killed in the middle of a message gives OSError rather than EOFError.
            log.debug("the engine's pipe is closed for reading")
        self._process.join(LINGER)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        self._outbox.put(None)
        self._writer.join()
        self._pipe.close()
        self._process.close()
        self._loop.add_callback(self._exit, code)

    def _exit(self, code: int | None) -> None:
        self.exited.set()
        self._on_exit(code)
