"""What the store keeps of a job, and the job made of it again. Pure functions; front process.

A live job is kept with its work, input images included; an ended one without it, but with all its events, so that its
stream can be read again from the first. What another version of the worker kept is read as far as it is known: fields
that are gone are left out, and those that are new have their defaults.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import fields
from itertools import accumulate, pairwise
from typing import Any

import orjson

from rbee_sd.jobs.event_log import Event, EventLog
from rbee_sd.jobs.images import ImageFile, ImageFiles
from rbee_sd.jobs.job import Job, Order, State
from rbee_sd.jobs.tables import Record
from rbee_sd.messages import Generate

RUN = 1_000_000
"""Events of a job in one run of the worker, at most: those of the next run are numbered from the next multiple on."""
TREATMENT = ("request", "priority", "timeout", "on_disconnect", "seed", "owner", "call")
WORK = tuple(field.name for field in fields(Generate) if field.name != "inputs")
OUTCOME = ("step", "total", "settled", "images", "result", "error", "started_at", "finished_at")


class RecordError(Exception):
    """A record cannot be read: another version of the worker wrote it, or the file was changed."""


def record_of(job: Job, key: str | None, digest: bytes) -> Record:
    """A live job, as it is accepted."""
    order = job.order
    treatment = {name: getattr(order, name) for name in TREATMENT}
    if order.work is not None and not job.state.terminal:
        work = {name: getattr(order.work, name) for name in WORK}
        treatment |= {"work": work, "inputs": [len(file) for file in order.work.inputs]}
    return Record(
        id=job.id,
        operation=order.operation,
        state=str(job.state),
        image=order.work is not None,
        key=key,
        digest=digest,
        treatment=orjson.dumps(treatment),
        work=b"" if order.work is None else b"".join(order.work.inputs),
        attempt=job.attempt,
        created_at=job.created_at,
    )


def ended_record(job: Job, last: Event, clock: float) -> Record:
    """A job that has ended, with its `last` event. `clock` is the store's."""
    record = record_of(job, None, b"")
    outcome = {name: getattr(job, name) for name in OUTCOME}
    outcome |= {
        "queue_s": job.queue_s,
        "run_s": job.run_s,
        "files": [(file.etag, file.size, file.format, _small(file)) for file in job.files],
    }
    record.outcome = orjson.dumps(outcome)
    events = [*job.log.after(0), (job.log.last + 1, last)]
    record.events = zlib.compress(orjson.dumps([(number, each.name, each.data.decode()) for number, each in events]))
    record.bytes = sum(file.size + _small(file) for file in job.files)
    record.ended = clock
    return record


def _small(file: ImageFile) -> int:
    return 0 if file.thumbnail is None else file.thumbnail.size


def job_of(record: Record, feed: EventLog, images: ImageFiles, run: int = 0) -> Job:
    """The job of a record. A live one goes on with event numbers of this `run`. Raises `RecordError`."""
    try:
        return _job_of(record, feed, images, run)
    except (zlib.error, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from error


def _job_of(record: Record, feed: EventLog, images: ImageFiles, run: int) -> Job:
    kept: dict[str, Any] = orjson.loads(record.treatment)
    treatment = {name: kept[name] for name in TREATMENT if name in kept}
    order = Order(record.operation, work=_work_of(kept, record.work), **treatment)
    job = Job(order, feed, id=record.id, number=record.number, created_at=record.created_at, attempt=record.attempt)
    job.state = State(record.state)
    if record.ended is None:
        job.log = EventLog(first=run * RUN + 1)
        # So that it shows how long it has waited in all.
        job.created -= max(0.0, time.time() - record.created_at)
        return job
    outcome: dict[str, Any] = orjson.loads(record.outcome or b"")
    for name in OUTCOME:
        setattr(job, name, outcome[name])
    job.files = [images.file(job.id, number, *each) for number, each in enumerate(outcome["files"])]
    # Only differences of these are ever told.
    job.created = 0.0
    job.started = None if outcome["run_s"] is None else outcome["queue_s"]
    job.finished = outcome["queue_s"] + (outcome["run_s"] or 0.0)
    # Pages leave them out.
    events = orjson.loads(zlib.decompress(record.events)) if record.events else []
    job.log = EventLog.whole([(number, Event(name, data.encode())) for number, name, data in events])
    job.told = True
    return job


def _work_of(kept: dict[str, Any], files: bytes) -> Generate | None:
    if "work" not in kept:
        return None
    values = {name: value for name, value in kept["work"].items() if name in WORK}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    ends = list(accumulate(kept["inputs"], initial=0))
    # A page leaves the files out, and nobody makes images of what it shows.
    return Generate(**values, inputs=tuple(files[start:end] for start, end in pairwise(ends)))
