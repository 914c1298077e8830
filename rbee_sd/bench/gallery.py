"""A state folder with thousands of jobs that have pictures: a few are made for real, the others are copies of them.

Their files are links to those of the few, so that the disk holds each once; a browser sees as many different ones.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rbee_sd.bench import worker
from rbee_sd.bench.progress import progress
from rbee_sd.bench.wire import Connection, Listener
from rbee_sd.jobs.images import FOLDER
from rbee_sd.jobs.store import DATABASE

MADE = 8
"""Jobs that are done for real."""
AT_ONCE = 100


async def fill(state: Path, flags: Sequence[str], jobs: int, side: int) -> None:
    """Have `jobs` ended jobs in this state folder, each with one picture of `side` pixels squared."""
    await _made(flags, side)
    with closing(sqlite3.connect(state / DATABASE)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(jobs)") if row[1] != "number"]
        rows = connection.execute(f"SELECT {', '.join(names)} FROM jobs ORDER BY number")  # noqa: S608
        made = [dict(zip(names, row, strict=True)) for row in rows]
        copy = f"INSERT INTO jobs ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        with progress(f"keeping {jobs} jobs with pictures of {side} px", jobs // AT_ONCE) as tick:
            for number in range(MADE, jobs):
                row = _copied(made[number % MADE], state / FOLDER, number / 1000)
                connection.execute(copy, [row[name] for name in names])
                if number % AT_ONCE == 0:
                    tick()
                    await asyncio.sleep(0)
            connection.commit()


async def _made(flags: Sequence[str], side: int) -> None:
    async with worker.started(*flags) as benched:
        port = await benched.port()
        connection = await Connection.open(port)
        for seed in range(MADE):
            asked = {"prompt": f"a picture of {side} pixels", "width": side, "height": side, "steps": 1, "seed": seed}
            listener = await Listener.open(port, await connection.submit(**asked))
            async for _ in listener.events():
                pass
        connection.close()


def _copied(row: dict[str, Any], images: Path, later: float) -> dict[str, Any]:
    """The row of a job like this one, made `later` seconds after it; its files are there already."""
    was, name = row["id"], f"job_{uuid.uuid4()}"
    (images / name).mkdir()
    for file in (images / was).iterdir():
        os.link(file, images / name / file.name)
    # The addresses of its pictures are in there.
    outcome = row["outcome"].replace(was.encode(), name.encode())
    return row | {"id": name, "outcome": outcome, "created_at": row["created_at"] + later}
