"""The tables of the store, and everything that is asked of them, as functions of a connection.

Runs on the store's thread, inside a transaction; `prepare` while the store is opened. Raises `sqlite3.Error`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Any

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
PAGE_CACHE = 8 * 1024
"""KiB of the database that SQLite keeps in memory."""


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
    ended: dict[bool, int]
    """Those that ended, for the engine or not."""
    bytes: int


COLUMNS = tuple(field.name for field in fields(Record))
FINISHED = ("state", "work", "attempt", "outcome", "events", "bytes", "ended")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"  # noqa: S608
_SHORT = ("x''" if name in ("work", "events") else name for name in COLUMNS)
_SELECT_SHORT = f"SELECT {', '.join(_SHORT)} FROM jobs"  # noqa: S608
"""Without what is long: input images of those that live, events of those that ended."""
_INSERT = f"INSERT INTO jobs ({', '.join(COLUMNS[:-1])}) VALUES ({', '.join('?' * (len(COLUMNS) - 1))})"  # noqa: S608

_OVER_COUNT = """
SELECT number FROM jobs WHERE image = ? AND ended IS NOT NULL ORDER BY ended DESC, number DESC LIMIT -1 OFFSET ?
"""
_OVER_SIZE = """
SELECT number FROM (
    SELECT number, sum(bytes) OVER (ORDER BY ended DESC, number DESC) AS held
    FROM jobs WHERE image = 1 AND ended IS NOT NULL
) WHERE held > ?
"""


def prepare(connection: sqlite3.Connection) -> tuple[int, float]:
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


def record(query: str, value: str, connection: sqlite3.Connection) -> Record | None:
    """The first row that a query finds for one value."""
    row = connection.execute(query, (value,)).fetchone()
    return None if row is None else _made(row)


def records(query: str, connection: sqlite3.Connection) -> list[Record]:
    """Every row that a query finds."""
    return [_made(row) for row in connection.execute(query)]


def accept(record: Record, connection: sqlite3.Connection) -> int:
    """Insert a new job; its number."""
    values = [getattr(record, name) for name in COLUMNS[:-1]]
    return connection.execute(_INSERT, values).lastrowid or 0


def attempt(job_id: str, attempt: int, state: str, connection: sqlite3.Connection) -> None:
    """Note the number of an attempt, and the state that the job is in with it."""
    connection.execute("UPDATE jobs SET attempt = ?, state = ? WHERE id = ?", (attempt, state, job_id))


def finish(record: Record, connection: sqlite3.Connection) -> None:
    """Note how a job ended."""
    connection.execute(
        "UPDATE jobs SET state = ?, work = ?, attempt = ?, outcome = ?, events = ?, bytes = ?, ended = ? WHERE id = ?",
        (*(getattr(record, name) for name in FINISHED), record.id),
    )


def page(state: str, before: int | None, limit: int, connection: sqlite3.Connection) -> list[Record]:
    """Some jobs, newest first, without `work` and `events`; see `Store.page`."""
    conditions, values = ["number < ?"], [2**62 if before is None else before]
    if state:
        conditions.append("state = ?")
    query = f"{_SELECT_SHORT} WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
    return [_made(row) for row in connection.execute(query, [*values, *([state] if state else []), limit])]


def totals(connection: sqlite3.Connection) -> Totals:
    """How many jobs there are in each state, and the bytes of images."""
    states = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
    ended, held = {False: 0, True: 0}, 0
    for image, count, size in connection.execute(
        "SELECT image, count(*), sum(bytes) FROM jobs WHERE ended IS NOT NULL GROUP BY image"
    ):
        ended[bool(image)] = count
        held += size
    return Totals(states, ended, held)


def forgotten(job_id: str, connection: sqlite3.Connection) -> bool:
    """Whether there was a job of this id."""
    return connection.execute("SELECT 1 FROM forgotten WHERE id = ?", (job_id,)).fetchone() is not None


def holding(job_ids: list[str], connection: sqlite3.Connection) -> set[str]:
    """Those of some jobs that ended with images."""
    query = f"SELECT id FROM jobs WHERE bytes > 0 AND id IN ({', '.join('?' * len(job_ids))})"  # noqa: S608
    return {job_id for (job_id,) in connection.execute(query, job_ids)}


def forget(
    before: float, count: int | None, size: int | None, connection: sqlite3.Connection
) -> list[tuple[str, str, bool, int]]:
    """Delete ended jobs and remember their ids; see `Store.forget`. `before` is of the store's clock."""
    gone = {
        number
        for image in (0, 1)
        for (number,) in connection.execute("SELECT number FROM jobs WHERE image = ? AND ended <= ?", (image, before))
    }
    if count is not None:
        gone |= {number for image in (0, 1) for (number,) in connection.execute(_OVER_COUNT, (image, count))}
    if size is not None:
        gone |= {number for (number,) in connection.execute(_OVER_SIZE, (size,))}
    return _delete(gone, connection)


def remove(job_id: str, connection: sqlite3.Connection) -> list[tuple[str, str, bool, int]]:
    """Delete one ended job and remember its id."""
    found = connection.execute("SELECT number FROM jobs WHERE id = ? AND ended IS NOT NULL", (job_id,))
    return _delete({number for (number,) in found}, connection)


def _delete(gone: set[int], connection: sqlite3.Connection) -> list[tuple[str, str, bool, int]]:
    if not gone:
        return []
    jobs: list[tuple[str, str, bool, int]] = [
        connection.execute("DELETE FROM jobs WHERE number = ? RETURNING id, state, image, bytes", (number,)).fetchone()
        for number in sorted(gone)
    ]
    connection.executemany("INSERT OR IGNORE INTO forgotten (id) VALUES (?)", [(job_id,) for job_id, *_ in jobs])
    connection.execute("DELETE FROM forgotten WHERE number <= (SELECT max(number) FROM forgotten) - ?", (REMEMBERED,))
    return jobs


def tick(seconds: float, connection: sqlite3.Connection) -> None:
    """Keep what the store's clock stands at."""
    connection.execute("UPDATE runs SET seconds = ?", (seconds,))


def _made(row: tuple[Any, ...]) -> Record:
    record = Record(*row)
    record.image = bool(record.image)
    return record
