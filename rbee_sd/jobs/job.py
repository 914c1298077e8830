"""The job: one accepted operation, its state and its event log.

Owned by the front's IOLoop thread; nothing here blocks. `end` is the one door to a terminal state, so a job has
exactly one terminal event whatever races; `close` tells it, once it is on disk.
"""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from rbee_sd.jobs.event_log import Event, EventLog
from rbee_sd.jobs.images import ImageFile
from rbee_sd.messages import PNG, Generate


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a job in this state is over."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done: an operation with its validated request, and how the job is to be treated."""

    operation: str
    request: dict[str, Any]
    work: Generate | None = None
    """For the engine; its `job_id` is filled in when the job is made. None: done in the front at once."""
    priority: int = 0
    timeout: float = 300.0
    on_disconnect: str = "cancel"
    seed: int | None = None
    owner: str = ""
    """Who asks. Those who wait take turns; see `queue`."""
    call: str = ""
    """What the request that waits for the job to end is known by; empty where the client has the job's id instead."""

    @property
    def input_bytes(self) -> int:
        """Bytes of the input images."""
        return 0 if self.work is None else sum(map(len, self.work.inputs))

    @property
    def format(self) -> str:
        """Of the images, if it makes any."""
        return PNG if self.work is None else self.work.format


@dataclass(slots=True, eq=False)
class Job:
    """One accepted operation. Times named `_at` are Unix seconds, the others are of the monotonic clock."""

    order: Order
    feed: EventLog
    """Every job's events; what is emitted goes there too."""
    id: str = field(default_factory=lambda: f"job_{uuid.uuid4()}")
    state: State = State.QUEUED
    log: EventLog = field(default_factory=EventLog)
    number: int = 0
    """The store's: larger than those of all jobs before it; 0 until it is on disk."""
    turn: tuple[int, int] | None = None
    """Its place among those of its priority; given by the queue, once."""
    previews: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The newest preview of each image: its numbers in the log and in the feed."""
    told: bool = False
    """Whether its terminal event is in the log."""
    step: int = 0
    total: int | None = None
    attempt: int = 0
    settled: dict[str, Any] = field(default_factory=dict)
    """What the model settled for values that the request left open: width, height, …"""
    images: list[dict[str, Any]] = field(default_factory=list)
    files: list[ImageFile] = field(default_factory=list)
    """The images on disk, in step with `images`."""
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None

    def emit(self, name: str, **data: Any) -> tuple[int, int]:
        """Append an event to the job's log and to the feed; returns its numbers there. `at` is added unless given."""
        return self._append(self.event(name, **data))

    def event(self, name: str, **data: Any) -> Event:
        """An event of this job, which is not told yet."""
        body = {"event": name, "type": name, "job_id": self.id, **data}
        body.setdefault("at", round(time.time(), 4))
        # A copy of its own size: orjson's keeps the 2 KiB that it was written into, for as long as the job is known.
        return Event(name, memoryview(orjson.dumps(body)).tobytes())

    def start(self, total: int, settled: dict[str, Any]) -> None:
        """The engine has begun."""
        self.total = total
        self.settled = settled
        self.emit("started", total=total, attempt=self.attempt, seed=self.order.seed, **settled)

    def dispatch(self) -> None:
        """The job leaves the queue for an engine: from here it is running."""
        self.state = State.RUNNING
        self.attempt += 1
        self.started_at = time.time()
        self.started = time.monotonic()

    def put_back(self) -> None:
        """The engine died, or nothing could be begun: the job waits again."""
        self.state = State.QUEUED
        self.step = 0
        self.total = None
        self.started_at = None
        self.started = None

    def progress(self, step: int, total: int, at: float) -> None:
        """`step` of `total` denoise steps are done."""
        first = self.started if self.started is not None else self.created
        self.step, self.total = step, total
        eta = (time.monotonic() - first) / max(step, 1) * (total - step)
        percent = round(100 * step / max(total, 1), 1)
        self.emit("progress", step=step, total=total, percent=percent, eta_s=round(eta, 2), at=round(at, 4))

    def preview(self, index: int, step: int, jpeg: bytes) -> None:
        """What an image looks like after `step` steps. Takes the place of the preview before it."""
        self._drop_preview(index)
        image = base64.b64encode(jpeg).decode()
        data = {"index": index, "step": step, "total": self.total, "format": "jpeg", "image_base64": image}
        self.previews[index] = self.emit("preview", **data)

    def end(self, state: State) -> bool:
        """Bring the job to its end; False, and no change, if it has ended before. Nobody is told yet: see `close`."""
        if self.state.terminal:
            return False
        self.state = state
        self.finished_at = time.time()
        self.finished = time.monotonic()
        for index in tuple(self.previews):
            self._drop_preview(index)
        if self.order.work is not None:
            # A finished job is kept for long; the images it was made from were its largest part.
            self.order = replace(self.order, work=replace(self.order.work, inputs=()))
        return True

    def close(self, last: Event) -> None:
        """Tell the last event; none follows. Nobody listens any more to a job that was left to the next run."""
        if not self.log.closed:
            self._append(last)
            self.told = True
            self.log.close()

    @property
    def queue_s(self) -> float:
        """Seconds from acceptance to the start, to the end, or to now."""
        return round((self._until if self.started is None else self.started) - self.created, 3)

    @property
    def run_s(self) -> float | None:
        """Seconds from the start to the end or to now; None if it never started."""
        return None if self.started is None else round(self._until - self.started, 3)

    @property
    def _until(self) -> float:
        return self.finished if self.finished is not None else time.monotonic()

    def view(self, position: int | None) -> dict[str, Any]:
        """The job as clients see it. `position` is the number of jobs ahead of it while it waits."""
        return {
            "job_id": self.id,
            "operation": self.order.operation,
            "state": self.state,
            "position": position,
            "priority": self.order.priority,
            "step": self.step,
            "total": self.total,
            "attempt": self.attempt,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "queue_s": self.queue_s,
            "run_s": self.run_s,
            "seed": self.order.seed,
            "images": self.images,
            "result": self.result,
            "error": self.error,
            "request": self.order.request,
            "settled": self.settled,
            "sse_url": f"/v1/jobs/{self.id}/stream",
        }

    def _append(self, event: Event) -> tuple[int, int]:
        # The feed closes a moment before the worker has gone.
        return self.log.append(event), 0 if self.feed.closed else self.feed.append(event)

    def _drop_preview(self, index: int) -> None:
        if index in self.previews:
            in_log, in_feed = self.previews.pop(index)
            self.log.drop(in_log)
            self.feed.drop(in_feed)
