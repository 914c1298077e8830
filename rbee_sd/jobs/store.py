"""The store: jobs on disk, so that what was acknowledged survives a crash of the front.

One SQLite connection on one thread of its own; everybody else calls from the front's IOLoop thread and never waits.
What is asked for while a commit is on its way shares the next one, so a commit's cost is shared by all who wait for it.
A call's `then` is called on the IOLoop with what came of it, when it is on disk (`synchronous=FULL`) or has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from rbee_sd.errors import StartError
from rbee_sd.jobs import tables
from rbee_sd.jobs.tables import Record, Totals

log = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE = "jobs.sqlite"
"""Its name in the state folder."""
TOGETHER = 256
"""Calls that share a commit at most."""


class StoreError(Exception):
    """The store could not read or write: no room, no rights, a broken disk. Says which, in a few words."""


Work = Callable[[sqlite3.Connection], T]
Then = Callable[[T | None, StoreError | None], None]


class Store:
    """The database of one state folder. `open` first, `close` last; both block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._calls: SimpleQueue[tuple[Work[Any], Callable[[Any, StoreError | None], None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._base = 0.0
        self._opened = time.monotonic()
        self.run = 0

    @property
    def clock(self) -> float:
        """Seconds that workers ran on this folder, about: ages by it are right whatever becomes of the wall clock."""
        return self._base + time.monotonic() - self._opened

    def open(self) -> None:
        """Open the database, or make it. One that cannot be used stays as it was; raises `StartError` or `OSError`."""
        # It holds what people asked for: for its owner alone.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self.run, self._base = tables.prepare(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as error:
            # No room, no rights, a lock: nothing is wrong with what is in it.
            raise StartError(f"the database {self.path} cannot be opened: {error}") from error
        except sqlite3.Error as error:
            advice = "restore it from a copy; moved away, all jobs in it are lost"
            raise StartError(f"the database {self.path} cannot be used: {error}; {advice}") from error
        self._thread = threading.Thread(target=self._run, args=(connection,), name="store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was asked for and close the database. Idempotent."""
        if self._thread is not None:
            self._calls.put((partial(tables.tick, self.clock), lambda _, __: None))
            self._calls.put(None)
            self._thread.join()
            self._thread = None

    # What is kept.

    def accept(self, record: Record, then: Then[int]) -> None:
        """Keep a new job; gives its number, which is larger than all before."""
        self._call(partial(tables.accept, record), then)

    def attempt(self, job_id: str, attempt: int, state: str, then: Then[None]) -> None:
        """Note that a job is about to be tried, or waits again."""
        self._call(partial(tables.attempt, job_id, attempt, state), then)

    def finish(self, record: Record, then: Then[None]) -> None:
        """Note how a job ended."""
        self._call(partial(tables.finish, record), then)

    # What is asked. Coroutines; raise `StoreError`.

    async def live(self) -> list[Record]:
        """The jobs that have not ended, in the order they were accepted in."""
        return await self._ask(partial(tables.records, f"{tables.SELECT} WHERE ended IS NULL ORDER BY number"))

    async def find(self, job_id: str) -> Record | None:
        """A job by its id."""
        return await self._ask(partial(tables.record, f"{tables.SELECT} WHERE id = ?", job_id))

    async def find_key(self, key: str) -> Record | None:
        """A job by its Idempotency-Key."""
        return await self._ask(partial(tables.record, f"{tables.SELECT} WHERE key = ?", key))

    async def forgotten(self, job_id: str) -> bool:
        """Whether there was a job of this id."""
        return await self._ask(partial(tables.forgotten, job_id))

    async def page(self, state: str, before: int | None, limit: int) -> list[Record]:
        """`limit` jobs in `state` (empty: any) numbered below `before`, newest first, without work and events."""
        return await self._ask(partial(tables.page, state, before, limit))

    async def totals(self) -> Totals:
        """How many jobs there are in each state, and the bytes of their images."""
        return await self._ask(tables.totals)

    async def holding(self, job_ids: list[str]) -> set[str]:
        """Those of some jobs, 500 at most, that ended with images."""
        return await self._ask(partial(tables.holding, job_ids))

    async def forget(self, age: float, count: int | None, size: int | None) -> list[tuple[str, str, bool, int]]:
        """Forget jobs that ended `age` seconds ago, the oldest over `count`, the oldest over `size` bytes.

        Gives their ids and states, whether they were for the engine, and the bytes of their images.

        None bounds nothing, and costs nothing. Jobs for the engine and others are counted apart, so that many small
        questions do not push the images out.
        """
        return await self._ask(partial(tables.forget, self.clock - age, count, size))

    async def remove(self, job_id: str) -> list[tuple[str, str, bool, int]]:
        """Forget one job that has ended; gives what `forget` gives of it, nothing when it is not there."""
        return await self._ask(partial(tables.remove, job_id))

    def _call(self, work: Work[T], then: Then[T]) -> None:
        loop = asyncio.get_running_loop()

        def later(result: T | None, error: StoreError | None) -> None:
            # The loop of a test may be gone.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(then, result, error)

        if self._thread is None:
            # Nobody would ever answer.
            later(None, StoreError("the store is not open"))
        else:
            self._calls.put((work, later))

    async def _ask(self, work: Work[T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: Any, error: StoreError | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self._call(work, settle)
        return await answer

    # The store's thread.

    def _run(self, connection: sqlite3.Connection) -> None:
        last = False
        while not last:
            calls = [self._calls.get()]
            with contextlib.suppress(Empty):
                while calls[-1] is not None and len(calls) < TOGETHER:
                    calls.append(self._calls.get_nowait())
            last = calls[-1] is None
            some = [call for call in calls if call is not None]
            # What one of them cannot do must not undo what the others did.
            if some and not _together(connection, some):
                for call in some:
                    _together(connection, [call], last_try=True)
        connection.close()


def _together(
    connection: sqlite3.Connection,
    calls: list[tuple[Work[Any], Callable[[Any, StoreError | None], None]]],
    last_try: bool = False,
) -> bool:
    """Do some calls in one transaction and tell each; False, and nothing done or told, when one of several fails."""
    last_try = last_try or len(calls) == 1
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [work(connection) for work, _ in calls]
        connection.execute("COMMIT")
    except Exception as error:
        # Not only SQLite's own: no memory, a number or a text that it cannot hold. Whoever waits must hear of it.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if last_try:
            log.error("the store failed: %s: %s", type(error).__name__, error)
            calls[0][1](None, StoreError(str(error)))
        return last_try
    for (_, then), result in zip(calls, results, strict=True):
        then(result, None)
    return True
