"""Entry of the engine process: signals, the watch on the front, the model, then the loop.

`run` is called in the spawned child, on its main thread, and is all the front knows of this package besides
`config`. Everything heavy is imported inside it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait

from rbee_sd import log as logs
from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.loop import Engine, serve
from rbee_sd.engine.pipeline import ModelError, Pipeline
from rbee_sd.messages import Fatal, Message, Narration, encode

log = logging.getLogger(__name__)


def run(pipe: Connection, config: EngineConfig) -> None:
    """Be an engine until the front says Shutdown or dies."""
    # A Ctrl-C reaches the whole terminal group; the front decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(config.log_level, config.log_format)
    threading.Thread(target=_leave_with_front, name="front-watch", daemon=True).start()

    def emit(message: Message) -> None:
        pipe.send_bytes(encode(message))

    try:
        emit(Narration(f"loading model {config.name}"))
        try:
            pipeline = _load(config, pipe)
        except ModelError as error:
            emit(Fatal("model_failed", str(error)))
            return
        emit(pipeline.describe())
        serve(pipe, Engine(pipeline, emit))
    except (EOFError, OSError):
        log.info("the front has gone; so does the engine")


def _load(config: EngineConfig, pipe: Connection) -> Pipeline:
    if config.fake_pipeline:
        from rbee_sd.engine.fake import FakePipeline

        return FakePipeline(config, pipe)
    from rbee_sd.engine.loading import load

    return load(config)


def _leave_with_front() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
