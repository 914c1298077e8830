"""What the unit tests share: orders and jobs made in a line, seats that play an engine, and seeded chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from rbee_sd.jobs.dispatcher import Dispatcher
from rbee_sd.jobs.images import ImageFiles
from rbee_sd.jobs.job import Job, Order
from rbee_sd.jobs.queue import JobQueue
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.store import StoreError, Then
from rbee_sd.jobs.tables import Record
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.messages import Event, Generate


class PromptStore:
    """Stands in for the store: what it is given is kept at once, or refused while `broken`."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.broken = False
        self.run = 1
        self.clock = 0.0

    def accept(self, record: Record, then: Then[int]) -> None:
        """See `Store`."""
        record.number = len(self.records) + 1
        self._keep(lambda: self.records.update({record.id: record}), then, record.number)

    def attempt(self, job_id: str, attempt: int, state: str, then: Then[None]) -> None:
        """See `Store`."""
        self._keep(lambda: vars_of(self.records[job_id], attempt=attempt, state=state), then)

    def finish(self, record: Record, then: Then[None]) -> None:
        """See `Store`."""
        self._keep(lambda: self.records.update({record.id: record}), then)

    async def find(self, job_id: str) -> Record | None:
        """See `Store`."""
        return self.records.get(job_id)

    async def find_key(self, key: str) -> Record | None:
        """See `Store`."""
        return next((record for record in self.records.values() if record.key == key), None)

    async def forgotten(self, job_id: str) -> bool:
        """See `Store`."""
        return False

    def _keep(self, change: Callable[[], None], then: Then[Any], result: Any = None) -> None:
        if self.broken:
            then(None, StoreError("no room"))
            return
        change()
        then(result, None)


def vars_of(record: Record, **changes: Any) -> None:
    """Change a record."""
    for name, value in changes.items():
        setattr(record, name, value)


TERMINAL = ("complete", "error", "cancelled")


def seeded(seed: int) -> random.Random:
    """Chance that is the same in every run."""
    return random.Random(seed)


def order(prompt: str = "a red circle", **changes: Any) -> Order:
    """An order for the engine, as `image_generation` makes it."""
    values: dict[str, Any] = {
        "operation": "image_generation",
        "request": {"operation": "image_generation", "prompt": prompt},
        "work": Generate(job_id="", prompt=prompt, negative_prompt="", seed=5),
        "seed": 5,
    }
    return Order(**(values | changes))


def quick_order() -> Order:
    """An order that needs no engine, as `status` makes it."""
    return Order(operation="status", request={"operation": "status"})


def names(job: Job) -> list[str]:
    """The names of a job's events so far."""
    return [event.name for _, event in job.log.after(0)]


def bodies(job: Job, name: str) -> list[dict[str, Any]]:
    """The data of a job's events of one name."""
    return [orjson.loads(event.data) for _, event in job.log.after(0) if event.name == name]


def terminal_events(job: Job) -> list[str]:
    """The terminal events of a job; one, or none while it lives."""
    return [name for name in names(job) if name in TERMINAL]


def take(queue: JobQueue) -> Job:
    """Take the job whose turn it is, as the dispatcher does."""
    job = next(queue.foremost())
    queue.take(job)
    return job


class ScriptedSeats:
    """Stands in for the worker: holds as many jobs as one would until the test says how they end."""

    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity
        self.running: list[str] = []
        self.submitted: list[Generate] = []
        self.cancelled: list[str] = []
        self.watches: list[tuple[str, bool]] = []

    @property
    def in_flight(self) -> int:
        """See `Seats`."""
        return len(self.running)

    def takes(self, priority: int, owner: str, model: str = "", pixels: int = 0) -> bool:
        """See `Seats`; as the worker has it."""
        running = {work.job_id: work for work in self.submitted if work.job_id in self.running}
        ahead = [work.owner for work in running.values() if work.priority >= priority]
        return (len(ahead) < self.capacity or owner not in ahead) and len(self.running) < 2 * self.capacity

    def submit(self, work: Generate) -> None:
        """See `Seats`; fails the test when there is no room."""
        assert self.takes(work.priority, work.owner)
        self.running.append(work.job_id)
        self.submitted.append(work)

    def cancel(self, job_id: str) -> None:
        """See `Seats`."""
        if job_id in self.running:
            self.cancelled.append(job_id)

    def watch(self, job_id: str, watched: bool) -> None:
        """See `Seats`."""
        if job_id in self.running:
            self.watches.append((job_id, watched))

    def end(self, dispatcher: Dispatcher, message: Event) -> None:
        """What the worker does with a terminal message: the place is free, then the dispatcher is told."""
        self.running.remove(getattr(message, "job_id", ""))
        dispatcher.said(message)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[ImageFiles]:
    """An empty folder of images, at `tmp_path / "images"`."""
    files = ImageFiles(tmp_path / "images")
    files.prepare()
    yield files
    files.close()


MakeRegistry = Callable[..., JobRegistry]


@pytest.fixture
def store() -> PromptStore:
    """A store that is never late."""
    return PromptStore()


@pytest.fixture
def make_registry(store: Any, images: ImageFiles) -> MakeRegistry:
    """Make registries: `make_registry(queue_size=2)`."""

    def make(queue_size: int = 64, queue_bytes: int = 1_000_000, share: int = 0) -> JobRegistry:
        return JobRegistry(
            store,
            images,
            queue_size=queue_size,
            queue_bytes=queue_bytes,
            share=share,
            ttl=3600.0,
            history=2000,
            size=1_000_000,
        )

    return make


@pytest.fixture
def registry(make_registry: MakeRegistry) -> JobRegistry:
    """A registry with room for everything."""
    return make_registry()


@pytest.fixture
def seats() -> ScriptedSeats:
    """An engine for one job at a time."""
    return ScriptedSeats()


@pytest.fixture
def watcher(registry: JobRegistry) -> Watcher:
    """A watcher with the usual grace period."""
    return Watcher(registry, 5.0)


@pytest.fixture
def dispatcher(registry: JobRegistry, watcher: Watcher, seats: ScriptedSeats) -> Dispatcher:
    """A dispatcher between `registry` and `seats`."""
    made = Dispatcher(registry, watcher)
    made.worker = seats
    return made
