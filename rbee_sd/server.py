"""The composition root: builds everything, and takes it through four phases: start, serve, drain, stop.

Front process, main thread. The only module that names both the worker and the engine's entry.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets

from rbee_sd import __version__
from rbee_sd.engine import main as engine_main
from rbee_sd.engine.config import DEMO, EngineConfig, model_name
from rbee_sd.engine.families import family_of
from rbee_sd.errors import StartError
from rbee_sd.http.connections import CappedServer, connections_within
from rbee_sd.http.context import Context
from rbee_sd.http.door import Door, is_loopback
from rbee_sd.http.openai.models import ModelNames
from rbee_sd.http.quotas import Quotas
from rbee_sd.http.retries import Retries
from rbee_sd.http.routes import make_application
from rbee_sd.http.sdapi.callers import Callers
from rbee_sd.jobs.dispatcher import MAX_ATTEMPTS, Dispatcher
from rbee_sd.jobs.images import FOLDER, ImageFiles
from rbee_sd.jobs.job import Job
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.runner import Runner
from rbee_sd.jobs.store import DATABASE, Store, StoreError
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.metrics import Metrics
from rbee_sd.models.catalogue import Catalogue
from rbee_sd.models.downloads import Downloads
from rbee_sd.models.errands import ONCE, ModelErrands
from rbee_sd.operations import loras
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.table import Desk
from rbee_sd.settings import Settings, models_dir_of, state_dir_of, worker_url
from rbee_sd.worker.worker import Health, Worker

log = logging.getLogger(__name__)

FETCH = "rbee_sd.engine.fetch"
"""The module that is a download's process."""
FORGET_INTERVAL = 1.0
DRAIN_INTERVAL = 0.05
RETRY_TIMEOUT = 15.0
"""Seconds that a client has to send a request again whose connection ended with the worker."""
FILES = 65_536
"""Open files that are asked for."""
MAX_HEADER = 16 * 1024
IDLE_CONNECTION_TIMEOUT = 10.0
"""Seconds a client may take to send its headers, or keep a connection without a request."""
BODY_TIMEOUT = 20.0


class Server:
    """One worker, whole. `start` and `stop` are called once each."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._state_dir = state_dir_of(settings)
        self._lock: int | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self.store = Store(self._state_dir / DATABASE)
        self.images = ImageFiles(self._state_dir / FOLDER)
        self.registry = JobRegistry(
            self.store,
            self.images,
            queue_size=settings.queue_size,
            queue_bytes=settings.queue_bytes,
            share=settings.client_jobs,
            ttl=settings.job_ttl,
            history=settings.job_history,
            size=settings.job_bytes,
        )
        self.watcher = Watcher(self.registry, settings.disconnect_grace)
        folder = models_dir_of(settings)
        embedded = None if settings.fake_pipeline else DEMO
        self.catalogue = Catalogue(folder, embedded, settings.model, model_name(settings.model))
        self.dispatcher = Dispatcher(self.registry, self.watcher, self.catalogue.source_of)
        self._loras = loras.scan(settings.lora_dir)
        config = EngineConfig(
            name=self.catalogue.default,
            model=self.catalogue.default_source,
            model_config=settings.model_config,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            channels_last=settings.channels_last,
            attention=settings.attention,
            compiler="inductor" if settings.compile else "",
            vae_tiling=settings.vae_tiling,
            taesd=settings.taesd,
            loras=tuple((name, str(file)) for name, file in self._loras.items()),
            max_models=settings.max_models,
            max_jobs=settings.max_jobs,
            max_side=settings.max_side,
            max_rows=settings.max_rows,
            measured_rows=settings.measured_rows,
            prompt_cache=settings.prompt_cache,
            curves=str(self._state_dir / "curves.json"),
            log_level=settings.log_level,
            log_format=settings.log_format,
            fake_pipeline=settings.fake_pipeline,
        )
        self.worker = Worker(
            engine_main.run,
            config,
            self.dispatcher,
            settings.cancel_timeout,
            settings.step_timeout,
            settings.load_timeout,
            settings.max_jobs,
        )
        self.dispatcher.worker = self.worker
        models = ModelErrands(
            self.catalogue, self.worker, Downloads((sys.executable, "-m", FETCH), folder), _family_name
        )
        self.runner = Runner(self.registry, {**models.table, "status": self._tell_status}, once=ONCE)
        self._models = models
        limits = Limits(
            settings, self.catalogue.names, lambda: self.worker.model, tuple(self._loras), self.worker.known.get
        )
        desk = Desk(self.registry, limits)
        self.metrics = Metrics(self.registry, self.watcher, self.worker, self.store.path)
        self._retries = Retries(time.monotonic)
        quotas = Quotas(settings.client_rate, settings.client_streams, time.monotonic)
        context = Context(
            settings=settings,
            door=Door(settings),
            registry=self.registry,
            watcher=self.watcher,
            desk=desk,
            limits=limits,
            quotas=quotas,
            retries=self._retries,
            model_names=ModelNames(limits),
            metrics=self.metrics,
            callers=Callers(self.registry),
            status=self.status,
            models=models.views,
            batching=self.batching,
        )
        self._http = CappedServer(
            make_application(context),
            max_header_size=MAX_HEADER,
            # The handlers have limits of their own and answer 413; Tornado could only hang up.
            max_body_size=sys.maxsize,
            idle_connection_timeout=IDLE_CONNECTION_TIMEOUT,
            body_timeout=BODY_TIMEOUT,
        )
        self._cleaner = PeriodicCallback(self.registry.forget_old, FORGET_INTERVAL * 1000)
        self.url = ""

    async def start(self) -> None:
        """Take the state folder and the port, then start the engine. Raises `StartError`."""
        if not (
            is_loopback(self.settings.host) or self.settings.api_key or self.settings.api_keys or self.settings.no_auth
        ):
            raise StartError(
                f"listening on {self.settings.host} lets others in: set api_keys or api_key, "
                "or no_auth on a network you trust"
            )
        self._http.cap = connections_within(_raise_file_limit())
        left = self._take_state_dir()
        try:
            await self.registry.restore(left, MAX_ATTEMPTS)
            self._expect_retries()
            self._listen()
            self.runner.resume()
            self._models.sweep()
        except (StartError, StoreError) as error:
            self._release_state_dir()
            if isinstance(error, StoreError):
                raise StartError(f"the database in {self._state_dir} cannot be read: {error}") from error
            raise
        self._cleaner.start()
        self.metrics.start()
        # The first requests are answered before this: /health does not wait for a process to be spawned.
        asyncio.get_running_loop().call_soon(self.worker.start)
        log.info("rbee-sd %s listens on %s, address %s", __version__, self.url, self.settings.host)

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, drain, and stop. A second signal skips the draining."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        await self._stopping.wait()
        await self.drain()
        await self.stop()

    async def drain(self) -> None:
        """Refuse new jobs; let those accepted go on for `drain_timeout` at most, and leave the rest to the next run."""
        self.registry.draining = True
        log.info("draining: %d jobs left", len(self.registry.live()))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout
        able = self.worker.health in (Health.LOADING, Health.READY, Health.RESTARTING)
        while able and self._painting() and loop.time() < deadline and not self._hurry.is_set():
            await asyncio.sleep(DRAIN_INTERVAL)
        self.watcher.close()
        self.dispatcher.close()
        await self.runner.close()
        # What is finished and on its way to the disk is no longer interrupted.
        await self.dispatcher.settle()
        for job in self.registry.live():
            self.registry.suspend(job)

    async def stop(self) -> None:
        """Close everything, in order: engine, streams, files, lock."""
        await self.worker.stop()
        self._cleaner.stop()
        self.metrics.stop()
        self._http.stop()
        await self.dispatcher.settle()
        await self._end_streams()
        await self._http.close_all_connections()
        await self.dispatcher.settle()
        await self.registry.write_left()
        self._release_state_dir()
        log.info("stopped")

    @property
    def engine_given_up(self) -> bool:
        """Whether the engine died so often that it is left alone for a while."""
        return self.worker.health is Health.EXHAUSTED

    def status(self) -> dict[str, Any]:
        """How the worker is, for `/ready` and the operation `status`."""
        worker = self.worker
        reason = "draining" if self.registry.draining else str(worker.health)
        ready = reason == Health.READY
        model, pulse = worker.model, worker.pulse
        return {
            "ready": ready,
            "reason": None if ready else reason,
            "detail": worker.detail if not ready else f"loading model {worker.loading}" if worker.loading else "",
            "version": __version__,
            "model": self.catalogue.default,
            "loaded": sorted(worker.loaded),
            "device": model.device if model else None,
            "dtype": model.dtype if model else None,
            "engine": {
                "pid": worker.pid,
                "starts": worker.starts,
                "jobs": worker.in_flight,
                "forwards": pulse.forwards,
                "rows": pulse.rows,
                "worked": pulse.worked,
                "elapsed": pulse.elapsed,
                "memory": pulse.memory,
            },
            "jobs": self.registry.counts(),
            "queue": {"waiting": len(self.registry.queue), "size": self.settings.queue_size},
            "listeners": self.watcher.total,
        }

    def batching(self) -> dict[str, Any]:
        """How many jobs the engine works on at once, and what sharing a forward costs, for `/v1/capabilities`."""
        model = self.worker.model
        return {"jobs": model.capacity if model else None, "shapes": [asdict(each) for each in self.worker.curves]}

    async def _tell_status(self, job: Job) -> dict[str, Any]:
        told = self.status()
        # Who asks how many jobs there are does not mean the one that asks.
        told["jobs"] = {**told["jobs"], str(job.state): told["jobs"][job.state] - 1}
        return told

    def _painting(self) -> bool:
        """Whether jobs for the engine are left: a download goes on at the next start just as well."""
        return any(job.order.work is not None for job in self.registry.live())

    def _signalled(self, number: int) -> None:
        log.info("%s received", signal.Signals(number).name)
        if self._stopping.is_set():
            self._hurry.set()
            self.worker.kill()
        self._stopping.set()

    def _listen(self) -> None:
        host, port = self.settings.host, self.settings.port
        try:
            sockets = bind_sockets(port, host)
        except UnicodeError as error:
            raise StartError(f"{host[:100]} is no name to listen on") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartError(f"port {port} of {host} is in use; is another worker running?") from error
            raise StartError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
        self._http.add_sockets(sockets)
        self.url = worker_url(host, sockets[0].getsockname()[1])

    def _take_state_dir(self) -> list[str]:
        """Lock the state folder and open what is in it; returns the ids of the jobs that have images there."""
        folder = self._state_dir
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.store.open()
            return self.images.prepare()
        except BlockingIOError as error:
            self._release_state_dir()
            raise StartError(f"the state folder {folder} is in use by another worker; give this one its own") from error
        except OSError as error:
            self._release_state_dir()
            raise StartError(f"the state folder {folder} cannot be used: {error.strerror}") from error
        except StartError:
            self._release_state_dir()
            raise

    def _expect_retries(self) -> None:
        """Jobs whose requests were waiting for them as the worker ended: nobody knows their ids."""
        for job in self.registry.live():
            if job.order.call:
                self._retries.left(job)
                self.watcher.expect(job, RETRY_TIMEOUT)

    def _release_state_dir(self) -> None:
        self.images.close()
        self.store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _end_streams(self) -> None:
        """Let listeners read the terminal events of the jobs that ended just now."""
        self.registry.feed.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 1.0
        while self.watcher.total and loop.time() < deadline:
            await asyncio.sleep(DRAIN_INTERVAL)


def _family_name(pipeline: str) -> str | None:
    family = family_of(pipeline)
    return None if family is None else family.name


def _raise_file_limit() -> int:
    """Each listener is a socket: use what the system allows without asking. Returns how many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not to infinity, which macOS offers and then refuses.
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft
    return wanted
