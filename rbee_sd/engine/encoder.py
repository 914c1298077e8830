"""The engine's other threads: one encodes files while the steps go on, one reads them; results are handed back.

`submit`, `read` and `deliver` belong to the engine's main thread and do not block; the work runs on the two threads,
almost all of it without the GIL. What follows from a result runs on the main thread, in `deliver`. Finished pictures do
not wait behind a slow disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Encoder:
    """Does work aside. `wakeup` is a file descriptor that is readable while something waits to be delivered."""

    def __init__(self) -> None:
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._done: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self.wakeup, self._bell = os.pipe()
        os.set_blocking(self.wakeup, False)

    def submit(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Do `work`, which encodes, aside; `deliver` then calls one of the two others with what came of it."""
        self._encoding.submit(self._do, work, then, failed)

    def read(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        """Like `submit`, for work that reads and decodes."""
        self._reading.submit(self._do, work, then, failed)

    def deliver(self) -> None:
        """Call what follows from the work that is done."""
        while True:
            try:
                follow = self._done.get_nowait()
            except Empty:
                return
            os.read(self.wakeup, 1)
            follow()

    def close(self) -> None:
        """Drop what has not begun and end the threads. Idempotent; blocks for the work in hand."""
        for threads in (self._encoding, self._reading):
            threads.shutdown(cancel_futures=True)
        if self._bell >= 0:
            os.close(self.wakeup)
            os.close(self._bell)
            self._bell = -1

    def _do(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
        follow: Callable[[], None]
        try:
            follow = partial(then, work())
        except Exception as error:
            follow = partial(failed, error)
        # The bell first: whoever finds a result finds a byte to take with it.
        os.write(self._bell, b"\0")
        self._done.put(follow)
