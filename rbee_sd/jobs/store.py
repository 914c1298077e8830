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
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from rbee_sd.errors import StartError

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = 1
"""Of the tables below. A file of a newer one is left alone; of an older one, it would be brought up to this."""
APPLICATION = 0x72626565
"""What SQLite calls the application id: "rbee"."""
TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    operation TEXT NOT NULL,
    state TEXT NOT NULL,
    image INTEGER NOT NULL,
    key TEXT UNIQUE,
    digest BLOB NOT NULL,
    treatment BLOB NOT NULL,
    work BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    created_at REAL NOT NULL,
    outcome BLOB,
    events BLOB,
    bytes INTEGER NOT NULL,
    ended REAL
) STRICT;
CREATE INDEX ended ON jobs (image, ended, number, bytes) WHERE ended IS NOT NULL;
CREATE INDEX live ON jobs (number) WHERE ended IS NULL;
CREATE INDEX states ON jobs (state, number);
CREATE TABLE forgotten (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE runs (count INTEGER NOT NULL, seconds REAL NOT NULL) STRICT;
INSERT INTO runs VALUES (0, 0);
"""
REMEMBERED = 100_000
"""Ids of forgotten jobs that are still told apart (410) from those never known (404)."""
TOGETHER = 256
"""Calls that share a commit at most."""
PAGE_CACHE = 8 * 1024
"""KiB of the database that SQLite keeps in memory."""


class StoreError(Exception):
    """The store could not read or write: no room, no rights, a broken disk. Says which, in a few words."""


@dataclass(slots=True)
class Record:
    """A row of `jobs`. What `treatment`, `work`, `outcome` and `events` hold is the affair of `records`.

    `image`: it is for the engine. `ended` is of `Store.clock`; None while the job lives. `bytes` are of its images.
    """

    id: str
    operation: str
    state: str
    image: bool
    key: str | None
    digest: bytes
    treatment: bytes
    work: bytes
    attempt: int
    created_at: float
    outcome: bytes | None = None
    events: bytes | None = None
    bytes: int = 0
    ended: float | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """What is in the store."""

    states: dict[str, int]
    bytes: int


COLUMNS = tuple(field.name for field in fields(Record))
FINISHED = ("state", "work", "attempt", "outcome", "events", "bytes", "ended")
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"  # noqa: S608
_INSERT = f"INSERT INTO jobs ({', '.join(COLUMNS[:-1])}) VALUES ({', '.join('?' * (len(COLUMNS) - 1))})"  # noqa: S608

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
                self.run, self._base = _prepare(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise StartError(f"the database {self.path} cannot be used: {error}; move it away to begin anew") from error
        self._thread = threading.Thread(target=self._run, args=(connection,), name="store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was asked for and close the database. Idempotent."""
        if self._thread is not None:
            self._calls.put((partial(_tick, self.clock), lambda _, __: None))
            self._calls.put(None)
            self._thread.join()
            self._thread = None

    # What is kept.

    def accept(self, record: Record, then: Then[int]) -> None:
        """Keep a new job; gives its number, which is larger than all before."""
        self._call(partial(_accept, record), then)

    def attempt(self, job_id: str, attempt: int, state: str, then: Then[None]) -> None:
        """Note that a job is about to be tried, or waits again."""
        self._call(partial(_attempt, job_id, attempt, state), then)

    def finish(self, record: Record, then: Then[None]) -> None:
        """Note how a job ended."""
        self._call(partial(_finish, record), then)

    # What is asked. Coroutines; raise `StoreError`.

    async def live(self) -> list[Record]:
        """The jobs that have not ended, in the order they were accepted in."""
        return await self._ask(partial(_records, f"{_SELECT} WHERE ended IS NULL ORDER BY number"))

    async def find(self, job_id: str) -> Record | None:
        """A job by its id."""
        return await self._ask(partial(_record, f"{_SELECT} WHERE id = ?", job_id))

    async def find_key(self, key: str) -> Record | None:
        """A job by its Idempotency-Key."""
        return await self._ask(partial(_record, f"{_SELECT} WHERE key = ?", key))

    async def forgotten(self, job_id: str) -> bool:
        """Whether there was a job of this id."""
        return await self._ask(partial(_forgotten, job_id))

    async def page(self, state: str, before: int | None, limit: int) -> list[Record]:
        """`limit` jobs in `state` (empty: any) numbered below `before`, newest first."""
        return await self._ask(partial(_page, state, before, limit))

    async def totals(self) -> Totals:
        """How many jobs there are in each state, and the bytes of their images."""
        return await self._ask(_totals)

    async def holding(self, job_ids: list[str]) -> set[str]:
        """Those of some jobs, 500 at most, that ended with images."""
        return await self._ask(partial(_holding, job_ids))

    async def forget(self, age: float, count: int, size: int) -> list[tuple[str, str, int]]:
        """Forget jobs that ended `age` seconds ago, the oldest over `count`, the oldest over `size` bytes.

        Gives their ids, their states, and the bytes of their images.

        Jobs for the engine and others are counted apart, so that many small questions do not push the images out.
        """
        return await self._ask(partial(_forget, self.clock - age, count, size))

    def _call(self, work: Work[T], then: Then[T]) -> None:
        loop = asyncio.get_running_loop()

        def later(result: T | None, error: StoreError | None) -> None:
            # The loop of a test may be gone.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(then, result, error)

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
    except sqlite3.Error as error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if last_try:
            log.error("the store failed: %s", error)
            calls[0][1](None, StoreError(str(error)))
        return last_try
    for (_, then), result in zip(calls, results, strict=True):
        then(result, None)
    return True


def _prepare(connection: sqlite3.Connection) -> tuple[int, float]:
    """Bring the database into order; the number of this run, and what the clock stands at."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION:
        raise sqlite3.DatabaseError("it is a database of something else")
    if version > VERSION:
        raise sqlite3.DatabaseError(f"a newer rbee-sd made it (version {version}, this one knows {VERSION})")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA cache_size=-{PAGE_CACHE}")
    if not tables:
        connection.executescript(
            f"BEGIN; {TABLES} PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT;"
        )
    (ended,) = connection.execute(
        "SELECT max(coalesce((SELECT max(ended) FROM jobs), 0), seconds) FROM runs"
    ).fetchone()
    (run,) = connection.execute("UPDATE runs SET count = count + 1 RETURNING count").fetchone()
    return run, ended


def _record(query: str, value: str, connection: sqlite3.Connection) -> Record | None:
    row = connection.execute(query, (value,)).fetchone()
    return None if row is None else _made(row)


def _records(query: str, connection: sqlite3.Connection) -> list[Record]:
    return [_made(row) for row in connection.execute(query)]


def _made(row: tuple[Any, ...]) -> Record:
    record = Record(*row)
    record.image = bool(record.image)
    return record


def _accept(record: Record, connection: sqlite3.Connection) -> int:
    values = [getattr(record, name) for name in COLUMNS[:-1]]
    return connection.execute(_INSERT, values).lastrowid or 0


def _attempt(job_id: str, attempt: int, state: str, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE jobs SET attempt = ?, state = ? WHERE id = ?", (attempt, state, job_id))


def _finish(record: Record, connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE jobs SET state = ?, work = ?, attempt = ?, outcome = ?, events = ?, bytes = ?, ended = ? WHERE id = ?",
        (*(getattr(record, name) for name in FINISHED), record.id),
    )


def _page(state: str, before: int | None, limit: int, connection: sqlite3.Connection) -> list[Record]:
    conditions, values = ["number < ?"], [2**62 if before is None else before]
    if state:
        conditions.append("state = ?")
    query = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
    return [_made(row) for row in connection.execute(query, [*values, *([state] if state else []), limit])]


def _totals(connection: sqlite3.Connection) -> Totals:
    states = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
    (held,) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM jobs WHERE ended IS NOT NULL").fetchone()
    return Totals(states, held)


def _forgotten(job_id: str, connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM forgotten WHERE id = ?", (job_id,)).fetchone() is not None


def _holding(job_ids: list[str], connection: sqlite3.Connection) -> set[str]:
    query = f"SELECT id FROM jobs WHERE bytes > 0 AND id IN ({', '.join('?' * len(job_ids))})"  # noqa: S608
    return {job_id for (job_id,) in connection.execute(query, job_ids)}


def _forget(before: float, count: int, size: int, connection: sqlite3.Connection) -> list[tuple[str, str, int]]:
    gone = {
        number
        for image in (0, 1)
        for (number,) in connection.execute(
            "SELECT number FROM jobs WHERE image = ? AND ended <= ?"
            " UNION SELECT number FROM (SELECT number FROM jobs WHERE image = ? AND ended IS NOT NULL"
            " ORDER BY ended DESC, number DESC LIMIT -1 OFFSET ?)",
            (image, before, image, count),
        )
    }
    gone |= {
        number
        for (number,) in connection.execute(
            "SELECT number FROM (SELECT number, sum(bytes) OVER (ORDER BY ended DESC, number DESC) AS held FROM jobs"
            " WHERE image = 1 AND ended IS NOT NULL) WHERE held > ?",
            (size,),
        )
    }
    if not gone:
        return []
    jobs: list[tuple[str, str, int]] = [
        connection.execute("DELETE FROM jobs WHERE number = ? RETURNING id, state, bytes", (number,)).fetchone()
        for number in sorted(gone)
    ]
    connection.executemany("INSERT OR IGNORE INTO forgotten (id) VALUES (?)", [(job_id,) for job_id, *_ in jobs])
    connection.execute("DELETE FROM forgotten WHERE number <= (SELECT max(number) FROM forgotten) - ?", (REMEMBERED,))
    return jobs


def _tick(seconds: float, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE runs SET seconds = ?", (seconds,))
