"""What `/metrics` tells, in Prometheus' text format (by its own client library).

Front process, IOLoop thread; does not block. What is counted as it happens is counted here; the rest is read from its
owners when somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.messages import OPERATIONS
from rbee_sd.worker.worker import Health, Worker

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
LAG_INTERVAL = 0.5


class Metrics:
    """The numbers of one server. `start` once the loop runs, `stop` before it ends."""

    def __init__(self, registry: JobRegistry, watcher: Watcher, worker: Worker, database: Path) -> None:
        self._numbers = CollectorRegistry()
        self._ended = Counter("rbee_sd_jobs_ended", "Jobs that ended.", ("operation", "state"), registry=self._numbers)
        self._waited = Histogram(
            "rbee_sd_queue_wait_seconds",
            "From acceptance to the start, at the first attempt.",
            buckets=SECONDS,
            registry=self._numbers,
        )
        self._ran = Histogram(
            "rbee_sd_run_seconds", "From the start to the end.", ("operation",), buckets=SECONDS, registry=self._numbers
        )
        self._saved = Counter(
            "rbee_sd_steps_saved", "Denoise steps that were not done for cancelled jobs.", registry=self._numbers
        )
        self._dropped = Counter(
            "rbee_sd_listeners_dropped", "Clients cut off because they did not read.", registry=self._numbers
        )
        self._lag = Histogram(
            "rbee_sd_loop_lag_seconds", "How late the front's loop is.", buckets=LAG_SECONDS, registry=self._numbers
        )
        self._numbers.register(_Present(registry, watcher, worker, database))
        ProcessCollector(namespace="rbee_sd_front", registry=self._numbers)
        ProcessCollector(namespace="rbee_sd_engine", pid=lambda: worker.pid or "none", registry=self._numbers)
        self._timer: asyncio.TimerHandle | None = None
        registry.on_told(self._told)
        # There from the start: what begins with its first increase shows none.
        for operation in OPERATIONS:
            for state in State:
                if state.terminal:
                    self._ended.labels(operation, str(state))

    def start(self) -> None:
        """Begin to measure the loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LAG_INTERVAL, self._look, loop.time() + LAG_INTERVAL)

    def stop(self) -> None:
        """Stop measuring it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def dropped(self) -> None:
        """A client that did not read was cut off."""
        self._dropped.inc()

    def text(self) -> bytes:
        """All numbers as they are now."""
        return generate_latest(self._numbers)

    def _look(self, due: float) -> None:
        self._lag.observe(max(0.0, asyncio.get_running_loop().time() - due))
        self.start()

    def _told(self, job: Job) -> None:
        self._ended.labels(job.order.operation, str(job.state)).inc()
        if job.order.work is None:
            return
        if job.run_s is not None and job.attempt == 1:
            self._waited.observe(job.queue_s)
        if job.run_s is not None:
            self._ran.labels(job.order.operation).observe(job.run_s)
        if job.state is State.CANCELLED:
            self._saved.inc(max(0, (job.total or job.order.work.steps or 0) - job.step))


class _Present(Collector):
    """What is read when somebody asks."""

    def __init__(self, registry: JobRegistry, watcher: Watcher, worker: Worker, database: Path) -> None:
        self._registry = registry
        self._watcher = watcher
        self._worker = worker
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Called by the library."""
        registry, worker = self._registry, self._worker
        jobs = GaugeMetricFamily("rbee_sd_jobs", "Jobs that are known.", labels=["state"])
        for state, count in registry.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("rbee_sd_queue_waiting", "Jobs that wait.", len(registry.queue))
        yield GaugeMetricFamily("rbee_sd_queue_size", "Jobs that may wait.", registry.queue.size)
        yield GaugeMetricFamily("rbee_sd_listeners", "Open streams of single jobs.", self._watcher.total)
        yield GaugeMetricFamily("rbee_sd_images_bytes", "Images that are kept.", registry.image_bytes)
        yield GaugeMetricFamily("rbee_sd_database_bytes", "The database, with its log.", _size(self._database))
        yield GaugeMetricFamily("rbee_sd_ready", "1 while the engine takes jobs.", worker.health is Health.READY)
        yield GaugeMetricFamily("rbee_sd_engine_jobs", "Jobs in the engine.", worker.in_flight)
        deaths = CounterMetricFamily("rbee_sd_engine_deaths", "Engines that ended unasked, by cause.", labels=["cause"])
        for cause, count in worker.deaths.items():
            deaths.add_metric([cause], count)
        yield deaths
        done = worker.done
        yield CounterMetricFamily("rbee_sd_forwards", "Forwards of the denoiser.", done.forwards)
        yield CounterMetricFamily("rbee_sd_rows", "Rows of those forwards.", done.rows)
        yield CounterMetricFamily("rbee_sd_model_seconds", "Seconds that the engine spent in the model.", done.worked)
        yield CounterMetricFamily("rbee_sd_engine_busy_seconds", "Seconds in which the engine had jobs.", done.elapsed)
        yield GaugeMetricFamily(
            "rbee_sd_device_memory_bytes",
            "Memory of the device that the engine holds; 0 on a CPU.",
            worker.pulse.memory,
        )


def _size(database: Path) -> int:
    """Bytes of the file and of SQLite's write-ahead log."""
    total = 0
    for path in (database, database.with_name(database.name + "-wal")):
        try:
            total += path.stat().st_size
        except OSError:
            # There is no log just now.
            continue
    return total
