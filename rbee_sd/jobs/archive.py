"""The archive: jobs read from the store again, and their images looked after.

Front process, IOLoop thread; waits for the store and does not block. It knows nothing of the jobs in memory: whoever
asks looks there first, and once more afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from rbee_sd.errors import RequestError
from rbee_sd.jobs.event_log import EventLog
from rbee_sd.jobs.images import OURS, ImageFiles
from rbee_sd.jobs.job import Job, Order, State
from rbee_sd.jobs.records import RecordError, job_of
from rbee_sd.jobs.store import Store, StoreError
from rbee_sd.jobs.tables import Record

log = logging.getLogger(__name__)

SWEPT = 500
"""Folders of images that are looked at together."""
RETRY_AFTER = {"Retry-After": "5"}


class Archive:
    """The jobs in `store`, with their `images`. Those that are made again tell their events to `feed` too."""

    def __init__(self, store: Store, images: ImageFiles, feed: EventLog) -> None:
        self._store = store
        self._images = images
        self._feed = feed

    async def live(self) -> list[Job]:
        """The jobs of earlier runs that have not ended; those that ran come first. Raises `StoreError`.

        One that cannot be read has no work.
        """
        records = await self._store.live()
        return [self._live(record) for record in sorted(records, key=lambda each: (each.attempt == 0, each.number))]

    async def find(self, job_id: str) -> Job:
        """A job by its id. Raises 404 for one never known, 410 for one forgotten, 503 when the disk fails."""
        if OURS.fullmatch(job_id):
            try:
                if (record := await self._store.find(job_id)) is not None:
                    return self._read(record)
                if await self._store.forgotten(job_id):
                    text = "this job finished a while ago and was forgotten with its images"
                    raise RequestError(410, "job_expired", text)
            except StoreError as error:
                raise unavailable() from error
            except RecordError as error:
                raise RequestError(410, "job_expired", "what was kept of this job cannot be read any more") from error
        raise RequestError(404, "job_not_found", "there is no job with this id")

    async def find_key(self, key: str) -> tuple[bytes, str] | None:
        """The digest and the job's id that an Idempotency-Key was used with. Raises 503 when the disk fails."""
        try:
            record = await self._store.find_key(key)
        except StoreError as error:
            raise unavailable() from error
        return None if record is None else (record.digest, record.id)

    async def page(
        self, state: str, before: int | None, limit: int, known: Callable[[str], Job | None]
    ) -> tuple[list[Job], int | None]:
        """`limit` jobs at most, newest first, and the number to go on from; None at the end. Raises 503.

        Those in `state`, unless it is empty, with numbers below `before`. One that is `known` by its id is that; the
        others come without their events.
        """
        try:
            records = await self._store.page(state, before, limit)
        except StoreError as error:
            raise unavailable() from error
        jobs = []
        for record in records:
            try:
                jobs.append(known(record.id) or self._read(record))
            except RecordError:
                continue
        return jobs, records[-1].number if len(records) == limit else None

    async def sweep(self, left: list[str]) -> None:
        """Of `left`, job ids that images were found for, remove those of no job that ended with any.

        The worker ended after they were written, and before that was noted. Raises `StoreError`.
        """
        for first in range(0, len(left), SWEPT):
            some = left[first : first + SWEPT]
            for job_id in set(some) - await self._store.holding(some):
                self._images.remove(job_id)

    def _live(self, record: Record) -> Job:
        # What it had come to goes with the run it came to it in.
        self._images.remove(record.id)
        try:
            return self._read(record)
        except RecordError:
            job = Job(Order(record.operation, {}), self._feed, id=record.id, number=record.number)
            # All that can be meant: it has not ended.
            job.state = State.RUNNING if record.state == State.RUNNING else State.QUEUED
            return job

    def _read(self, record: Record) -> Job:
        try:
            return job_of(record, self._feed, self._images, self._store.run)
        except RecordError as error:
            log.error("%s cannot be read from the store: %s", record.id, error)
            raise


def unavailable() -> RequestError:
    """The answer to a request that needs the disk when that fails."""
    text = "the worker cannot write to its disk, or read from it; try again in a moment"
    return RequestError(503, "storage_unavailable", text, headers=RETRY_AFTER)
