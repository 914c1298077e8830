"""`jobs.store` and the registry over it: what was accepted is on disk, and is there again after any end."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from rbee_sd.errors import RequestError, StartError
from rbee_sd.jobs import store as store_module
from rbee_sd.jobs import tables
from rbee_sd.jobs.images import ImageFiles
from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.records import RUN
from rbee_sd.jobs.registry import RECENT, JobRegistry
from rbee_sd.jobs.runner import Runner
from rbee_sd.jobs.store import Store, StoreError
from rbee_sd.jobs.tables import Record
from rbee_sd.messages import Generate
from tests.conftest import eventually
from tests.unit.conftest import names, order, quick_order

BOUNDS: dict[str, Any] = {
    "queue_size": 64,
    "queue_bytes": 1_000_000,
    "share": 0,
    "ttl": 3600.0,
    "history": 2000,
    "size": 1_000_000,
}


class Run:
    """One run of the front over a state folder, as far as jobs go."""

    def __init__(self, folder: Path, **bounds: Any) -> None:
        self.store = Store(folder / "jobs.sqlite")
        self.images = ImageFiles(folder / "images")
        self.registry = JobRegistry(self.store, self.images, **BOUNDS | bounds)

    async def begin(self) -> Run:
        """Open what is there and take it up."""
        self.store.open()
        await self.registry.restore(self.images.prepare(), 2)
        return self

    def end(self) -> None:
        """Close, with what is on disk by now: to the store it is all the same whether the process is killed."""
        self.images.close()
        self.store.close()

    async def accept(self, key: str | None = None, digest: bytes = b"", **changes: Any) -> Job:
        """A job that waits."""
        job = self.registry.accept(order(**changes), key, digest)
        await self.registry.stored(job)
        return job

    async def tried(self, job: Job | None = None) -> Job:
        """A job that runs."""
        job = job or await self.accept()
        self.registry.queue.take(job)
        noted: list[bool] = []
        self.registry.attempt(job, noted.append)
        await eventually(lambda: noted)
        assert noted == [True]
        return job

    async def completed(self, images: tuple[bytes, ...] = (b"one", b"two")) -> Job:
        """A job that is done."""
        job = await self.tried()
        job.start(2, {"width": 64, "height": 64, "guidance_scale": 7.5, "scheduler": "euler"})
        job.progress(1, 2, 0.0)
        job.preview(0, 1, b"jpeg")
        job.progress(2, 2, 0.0)
        job.files = await self.images.save(job.id, images)
        self.registry.complete(job)
        await self.registry.closed(job)
        return job


Begin = Callable[..., Any]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Begin a run over the test's folder, ending the one before: `await begin(history=2)`."""
    runs: list[Run] = []

    async def make(**bounds: Any) -> Run:
        if runs:
            runs[-1].end()
        runs.append(Run(tmp_path, **bounds))
        return await runs[-1].begin()

    yield make
    for run in runs:
        run.end()


def rows(folder: Path, query: str) -> list[Any]:
    """What a query finds in the database, from outside."""
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as connection:
        return connection.execute(query).fetchall()


def plain(view: dict[str, Any]) -> Any:
    """A view as clients get it."""
    return orjson.loads(orjson.dumps(view))


# Restarts.


async def test_what_waits_waits_again_in_its_order_and_what_ran_comes_first(begin: Begin) -> None:
    run = await begin()
    first, second = await run.accept(), await run.accept(work=Generate("", "a blue square", "", 5))
    urgent = await run.accept(priority=3, owner="192.0.2.1", timeout=7.0, on_disconnect="finish")
    running = await run.tried(await run.accept())
    again = await begin()
    assert [job.id for job in again.registry.queue] == [urgent.id, running.id, first.id, second.id]
    restored = again.registry.find(urgent.id)
    assert restored.order == urgent.order
    assert again.registry.find(second.id).order.work.prompt == "a blue square"
    assert plain(again.registry.view(again.registry.find(first.id)))["created_at"] == first.created_at
    assert again.registry.find(running.id).attempt == 1
    assert again.registry.counts()["queued"] == 4


async def test_input_images_come_back_to_the_byte_and_count_again(begin: Begin) -> None:
    run = await begin()
    work = Generate("", "a", "", 5, operation="image_inpaint", inputs=(bytes(range(256)), b"mask"))
    job = await run.accept(work=work)
    again = await begin()
    assert again.registry.find(job.id).order.work.inputs == (bytes(range(256)), b"mask")
    assert again.registry.input_bytes == 260
    again.registry.cancel(again.registry.find(job.id), "requested")
    await again.registry.settle()
    assert (await begin()).registry.input_bytes == 0


async def test_a_job_that_was_tried_twice_is_not_tried_again(begin: Begin) -> None:
    run = await begin()
    job = await run.tried()
    run = await begin()
    await run.tried(run.registry.find(job.id))
    run = await begin()
    restored = run.registry.find(job.id)
    await run.registry.closed(restored)
    assert (restored.state, restored.attempt, restored.error["code"]) == (State.FAILED, 2, "interrupted")
    assert len(run.registry.queue) == 0
    assert run.registry.counts()["failed"] == 1


async def test_event_numbers_of_a_job_go_on_above_those_of_the_run_before(begin: Begin) -> None:
    run = await begin()
    job = await run.tried()
    job.start(2, {})
    job.progress(1, 2, 0.0)
    seen = job.log.last
    run = await begin()
    restored = run.registry.find(job.id)
    assert restored.log.first == run.store.run * RUN + 1 > seen
    assert names(restored) == ["queued", "narration"]
    assert [number for number, _ in restored.log.after(seen)] == [restored.log.first, restored.log.first + 1]


async def test_an_ended_job_is_told_again_as_it_was(begin: Begin) -> None:
    run = await begin()
    done = await run.completed()
    failed = await run.tried()
    run.registry.fail(failed, "out_of_memory", "too large")
    cancelled = await run.accept()
    run.registry.cancel(cancelled, "requested")
    quick = run.registry.accept(quick_order())
    await run.registry.stored(quick)
    run.registry.complete(quick, result={"ready": True})
    await run.registry.settle()
    run = await begin()
    for job in (done, failed, cancelled, quick):
        assert run.registry.find(job.id) is None
        restored = await run.registry.recall(job.id)
        assert plain(run.registry.view(restored)) == plain(run.registry.view(job))
        assert restored.log.after(0) == job.log.after(0)
        assert restored.log.closed
    pictures = [await run.images.open(file) for file in (await run.registry.recall(done.id)).files]
    assert [await picture.read(100) for picture in pictures] == [b"one", b"two"]
    assert run.registry.counts() == {"queued": 0, "running": 0, "completed": 2, "failed": 1, "cancelled": 1}


async def test_images_of_a_job_that_is_not_done_are_dropped_at_the_start(begin: Begin, tmp_path: Path) -> None:
    run = await begin()
    running = await run.tried()
    done = await run.completed()
    await run.images.save(running.id, (b"not noted yet",))
    nobodys = f"job_{uuid.uuid4()}"
    await run.images.save(nobodys, (b"of a job that was forgotten",))
    run = await begin()
    await eventually(lambda: [path.name for path in (tmp_path / "images").iterdir()] == [done.id])
    assert (await run.images.save(running.id, (b"the second time",)))[0].size == 15


async def test_a_question_that_was_not_answered_in_time_is_asked_again(begin: Begin) -> None:
    run = await begin()
    quick = run.registry.accept(quick_order())
    await run.registry.stored(quick)
    run = await begin()
    restored = run.registry.find(quick.id)
    assert restored.state is State.QUEUED

    async def status(_: Job) -> dict[str, Any]:
        return {"ready": True}

    Runner(run.registry, {"status": status}).resume()
    await eventually(lambda: restored.state is State.COMPLETED)
    assert restored.result == {"ready": True}


async def test_an_operation_that_this_version_does_not_know_is_interrupted(begin: Begin) -> None:
    run = await begin()
    quick = run.registry.accept(quick_order())
    await run.registry.stored(quick)
    run = await begin()
    restored = run.registry.find(quick.id)
    Runner(run.registry, {}).resume()
    await eventually(lambda: restored.state is State.FAILED)
    assert restored.error["code"] == "interrupted"


async def test_an_idempotency_key_holds_across_a_restart(begin: Begin) -> None:
    run = await begin()
    waiting = await run.accept(key="one", digest=b"body")
    ended = await run.accept(key="two", digest=b"body")
    run.registry.cancel(ended, "requested")
    await run.registry.settle()
    run = await begin()
    assert await run.registry.repeated("one", b"body") is run.registry.find(waiting.id)
    assert (await run.registry.repeated("two", b"body")).id == ended.id
    assert await run.registry.repeated("three", b"body") is None
    with pytest.raises(RequestError, match="different body"):
        await run.registry.repeated("one", b"other")


async def test_a_job_that_is_suspended_waits_for_the_next_run_and_that_was_no_attempt(begin: Begin) -> None:
    run = await begin()
    running, waiting = await run.tried(), await run.accept()
    for job in (running, waiting):
        run.registry.suspend(job)
    assert [job.log.closed for job in (running, waiting)] == [True, True]
    run = await begin()
    assert [job.id for job in run.registry.queue] == [running.id, waiting.id]
    assert run.registry.find(running.id).attempt == 0


async def test_a_record_that_cannot_be_read_ends_its_job_and_no_other(begin: Begin, tmp_path: Path) -> None:
    run = await begin()
    broken, ended, sound = await run.accept(), await run.completed(), await run.accept()
    run.end()
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        connection.execute("UPDATE jobs SET treatment = x'0102' WHERE id = ?", (broken.id,))
        connection.execute("UPDATE jobs SET events = x'0102' WHERE id = ?", (ended.id,))
        connection.commit()
    run = await begin()
    restored = run.registry.find(broken.id)
    await run.registry.closed(restored)
    assert restored.error["code"] == "interrupted"
    assert [job.id for job in run.registry.queue] == [sound.id]
    with pytest.raises(RequestError) as caught:
        await run.registry.recall(ended.id)
    assert (caught.value.status, caught.value.code) == (410, "job_expired")
    assert {job.id for job in await run.registry.page("", None, 10)} == {broken.id, ended.id, sound.id}


async def test_what_another_version_kept_is_read_as_far_as_it_is_known(begin: Begin, tmp_path: Path) -> None:
    run = await begin()
    job = await run.accept(work=Generate("", "a", "", 5, count=3, inputs=(b"image",)), timeout=7.0)
    run.end()
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        (kept,) = connection.execute("SELECT treatment FROM jobs").fetchone()
        treatment = orjson.loads(kept) | {"a field": "of a newer version"}
        treatment["work"] |= {"control": [1, 2]}
        del treatment["timeout"], treatment["work"]["count"]
        connection.execute("UPDATE jobs SET treatment = ?", (orjson.dumps(treatment),))
        connection.commit()
    run = await begin()
    restored = run.registry.find(job.id)
    assert (restored.order.timeout, restored.order.work.count) == (300.0, 1)
    assert (restored.order.work.prompt, restored.order.work.inputs) == ("a", (b"image",))


async def test_images_of_every_format_are_found_again_and_those_of_before_there_were_formats(
    begin: Begin, tmp_path: Path
) -> None:
    run = await begin()
    old = await run.completed()
    new = await run.tried(await run.accept(work=Generate("", "a", "", 5, format="webp")))
    new.files = await run.images.save(new.id, (b"webp",), new.order.format, (b"jpeg",))
    run.registry.complete(new)
    await run.registry.settle()
    run.end()
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        (kept,) = connection.execute("SELECT outcome FROM jobs WHERE id = ?", (old.id,)).fetchone()
        outcome = orjson.loads(kept)
        outcome["files"] = [file[:2] for file in outcome["files"]]
        connection.execute("UPDATE jobs SET outcome = ? WHERE id = ?", (orjson.dumps(outcome), old.id))
        connection.commit()
    run = await begin()
    for job, formats in ((old, ["png", "png"]), (new, ["webp"])):
        restored = await run.registry.recall(job.id)
        assert restored.files == job.files
        assert [file.format for file in restored.files] == formats
    # A thumbnail takes its place on the disk too.
    assert run.registry.image_bytes == len(b"onetwo") + len(b"webpjpeg")


async def test_a_page_reads_no_images_and_no_events(begin: Begin) -> None:
    run = await begin()
    await run.completed()
    await run.accept(work=Generate("", "a", "", 5, inputs=(b"x" * 100_000,)))
    records = await run.store.page("", None, 10)
    assert [(record.work, record.events) for record in records] == [(b"", b""), (b"", b"")]


# Pages, and forgetting.


async def test_pages_go_through_all_jobs_newest_first_across_restarts(begin: Begin) -> None:
    run = await begin()
    made = [(await run.completed(())).id for _ in range(3)]
    run = await begin()
    made += [(await run.accept()).id for _ in range(3)]
    run.registry.cancel(run.registry.find(made[4]), "requested")
    seen: list[str] = []
    before = None
    while page := await run.registry.page("", before, 2):
        seen += [job.id for job in page]
        before = page[-1].number
    assert seen == made[::-1]
    assert [job.id for job in await run.registry.page("queued", None, 10)] == [made[5], made[3]]
    assert [job.id for job in await run.registry.page("completed", None, 2)] == [made[2], made[1]]


async def test_the_memory_keeps_only_the_last_of_the_ended(begin: Begin) -> None:
    run = await begin()
    first = await run.accept(key="key")
    run.registry.cancel(first, "requested")
    for _ in range(RECENT + 3):
        run.registry.cancel(await run.accept(), "requested")
    await run.registry.settle()
    await eventually(lambda: run.registry.find(first.id) is None)
    assert (await run.registry.recall(first.id)).state is State.CANCELLED
    assert (await run.registry.repeated("key", b"")).id == first.id
    assert run.registry.counts()["cancelled"] == RECENT + 4


async def test_an_ended_job_is_forgotten_with_its_images_when_its_time_is_up(begin: Begin, tmp_path: Path) -> None:
    run = await begin(ttl=0.05)
    job = await run.completed()
    waiting = await run.accept()
    await run.registry.forget_old()
    assert (await run.registry.recall(job.id)).state is State.COMPLETED

    async def gone() -> bool:
        await run.registry.forget_old()
        return run.registry.find(job.id) is None

    await eventually(gone)
    with pytest.raises(RequestError) as caught:
        await run.registry.recall(job.id)
    assert (caught.value.status, caught.value.code) == (410, "job_expired")
    await eventually(lambda: list((tmp_path / "images").iterdir()) == [])
    assert run.registry.counts() == {"queued": 1, "running": 0, "completed": 0, "failed": 0, "cancelled": 0}
    assert run.registry.live() == [waiting]
    run = await begin()
    with pytest.raises(RequestError, match="forgotten"):
        await run.registry.recall(job.id)


async def test_the_oldest_endings_go_first_when_there_are_too_many(begin: Begin) -> None:
    run = await begin(history=2)
    jobs = [await run.accept() for _ in range(5)]
    for place in (3, 1, 0, 4, 2):
        run.registry.cancel(jobs[place], "requested")
        await run.registry.closed(jobs[place])
    await run.registry.forget_old()
    assert {job.id for job in await run.registry.page("", None, 10)} == {jobs[2].id, jobs[4].id}


async def test_the_oldest_images_go_first_when_they_are_too_large(begin: Begin) -> None:
    run = await begin(size=25)
    jobs = [await run.completed((b"ten bytes!",)) for _ in range(4)]
    await run.registry.forget_old()
    assert [job.id for job in await run.registry.page("", None, 10)] == [jobs[3].id, jobs[2].id]


async def test_questions_do_not_push_pictures_out(begin: Begin) -> None:
    run = await begin(history=2)
    picture = await run.completed()
    for _ in range(5):
        quick = run.registry.accept(quick_order())
        await run.registry.stored(quick)
        run.registry.complete(quick, result={})
    await run.registry.settle()
    await run.registry.forget_old()
    assert len(await run.registry.page("", None, 10)) == 3
    assert await run.registry.recall(picture.id) is picture


async def test_a_key_is_free_again_when_its_job_is_forgotten(begin: Begin) -> None:
    run = await begin(history=1)
    for digest in (b"one", b"two", b"three"):
        run.registry.cancel(await run.accept(key=digest.decode(), digest=digest), "requested")
        await run.registry.settle()
    await run.registry.forget_old()
    assert await run.registry.repeated("one", b"other") is None
    again = await run.accept(key="one", digest=b"other")
    assert await run.registry.repeated("one", b"other") is again


async def test_ages_do_not_hang_on_the_wall_clock_or_on_the_time_between_runs(begin: Begin) -> None:
    run = await begin(ttl=100.0)
    job = await run.completed()
    job.finished_at = 0.0
    clock = run.store.clock
    run = await begin(ttl=100.0)
    assert clock <= run.store.clock < clock + 60
    await run.registry.forget_old()
    assert (await run.registry.recall(job.id)).id == job.id


async def test_forgotten_ids_are_told_apart_only_as_long_as_there_is_room(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "REMEMBERED", 3)
    run = await begin(history=1)
    jobs = []
    for _ in range(6):
        jobs.append(await run.accept())
        run.registry.cancel(jobs[-1], "requested")
        await run.registry.settle()
        await run.registry.forget_old()
    codes = []
    for job in jobs[:5]:
        with pytest.raises(RequestError) as caught:
            await run.registry.recall(job.id)
        codes.append(caught.value.status)
    assert codes == [404, 404, 410, 410, 410]


# Disks that fail.


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Have every transaction find the disk full, or not any more."""
    real = store_module._together
    state = {"full": False}

    def together(connection: sqlite3.Connection, calls: Any, last_try: bool = False) -> bool:
        connection.execute(f"PRAGMA max_page_count={1 if state['full'] else 1_000_000}")
        return real(connection, calls, last_try)

    monkeypatch.setattr(store_module, "_together", together)

    def switch(to: bool) -> None:
        state["full"] = to

    return switch


async def test_a_job_that_cannot_be_stored_is_refused_and_leaves_nothing(
    begin: Begin, full: Callable[[bool], None], tmp_path: Path
) -> None:
    run = await begin()
    full(True)
    work = Generate("", "a", "", 5, inputs=(b"x" * 100_000,))
    job = run.registry.accept(order(work=work), "key", b"body")
    with pytest.raises(RequestError) as caught:
        await run.registry.stored(job)
    assert (caught.value.status, caught.value.code) == (503, "storage_unavailable")
    assert int(caught.value.headers["Retry-After"]) > 0
    assert run.registry.live() == []
    assert (len(run.registry.queue), run.registry.input_bytes) == (0, 0)
    full(False)
    assert (await run.accept(key="key", digest=b"body", work=work)).state is State.QUEUED
    assert rows(tmp_path, "SELECT count(*) FROM jobs") == [(1,)]


async def test_a_picture_whose_end_cannot_be_noted_fails_and_that_is_noted_later(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = await begin()
    job = await run.tried()
    job.files = await run.images.save(job.id, (b"one",))
    real = tables.finish

    def broken(record: Record, connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tables, "finish", broken)
    run.registry.complete(job)
    await run.registry.closed(job)
    assert (job.state, job.error["code"], names(job)[-1]) == (State.FAILED, "storage_failed", "error")
    assert rows(tmp_path, "SELECT state, ended FROM jobs") == [("running", None)]
    monkeypatch.setattr(tables, "finish", real)
    await run.registry.forget_old()
    await eventually(lambda: rows(tmp_path, "SELECT state, ended IS NULL FROM jobs") == [("failed", 0)])
    await eventually(lambda: list((tmp_path / "images").iterdir()) == [])


async def test_what_fails_alone_does_not_undo_what_shares_its_commit(begin: Begin) -> None:
    run = await begin()
    await run.accept(key="taken")
    # The registry knows the key; this is what a defect of it would do.
    run.registry._keys.clear()
    jobs = [run.registry.accept(order(), key) for key in (None, "taken", "free")]
    answers = []
    for job in jobs:
        try:
            await run.registry.stored(job)
            answers.append("stored")
        except RequestError as error:
            answers.append(error.code)
    assert answers == ["stored", "storage_unavailable", "stored"]


async def test_many_jobs_at_once_share_commits_and_are_all_there(begin: Begin, tmp_path: Path) -> None:
    run = await begin(queue_size=500)
    jobs = [run.registry.accept(order(prompt=str(n))) for n in range(300)]
    for job in jobs:
        await run.registry.stored(job)
    assert [job.number for job in jobs] == list(range(1, 301))
    run = await begin(queue_size=500)
    assert [job.id for job in run.registry.queue] == [job.id for job in jobs]


# The file.


def database_files(folder: Path) -> dict[str, int]:
    """The modes of the database and of the files that SQLite keeps beside it."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("jobs.sqlite*")}


async def test_the_database_is_for_its_owner_alone(begin: Begin, tmp_path: Path) -> None:
    run = await begin()
    await run.accept()
    assert database_files(tmp_path) == dict.fromkeys(("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"), 0o600)
    run.end()
    assert database_files(tmp_path) == {"jobs.sqlite": 0o600}
    assert not any(thread.name == "store" for thread in threading.enumerate())


@pytest.mark.parametrize("damage", ["text", "foreign", "newer", "folder", "half"])
async def test_a_file_that_is_no_database_of_ours_is_left_as_it_is(begin: Begin, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "jobs.sqlite"
    match damage:
        case "text":
            path.write_bytes(b"these are my notes\n" * 100)
        case "foreign":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE photos (name TEXT)")
        case "newer":
            run = await begin()
            run.end()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA user_version={tables.VERSION + 1}")
        case "folder":
            path.mkdir()
        case "half":
            run = await begin()
            await run.accept()
            run.end()
            os.truncate(path, 5000)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises((StartError, OSError)) as caught:
        await begin()
    assert str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not any(thread.name == "store" for thread in threading.enumerate())


async def test_whatever_fails_in_the_store_is_told_and_the_thread_lives(begin: Begin) -> None:
    run = await begin()
    for value in ("\ud800", 2**70):
        with pytest.raises(StoreError):
            await run.store._ask(lambda connection, value=value: connection.execute("SELECT ?", (value,)))
    with pytest.raises(StoreError):
        await run.store._ask(lambda connection: connection.execute("SELECT nonsense"))
    assert (await run.store.totals()).bytes == 0


async def test_a_store_that_is_not_open_says_so(begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not open"):
        await Store(tmp_path / "jobs.sqlite").totals()
    run = await begin()
    run.end()
    with pytest.raises(StoreError, match="not open"):
        await run.store.totals()


async def test_an_end_that_could_not_be_written_is_tried_once_more_as_the_worker_stops(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = await begin()
    job = await run.accept()
    real = tables.finish

    def broken(record: Record, connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tables, "finish", broken)
    run.registry.cancel(job, "requested")
    await run.registry.settle()
    assert names(job)[-1] == "cancelled"
    assert rows(tmp_path, "SELECT ended FROM jobs") == [(None,)]
    monkeypatch.setattr(tables, "finish", real)
    await run.registry.write_left()
    assert rows(tmp_path, "SELECT state FROM jobs WHERE ended IS NOT NULL") == [("cancelled",)]
