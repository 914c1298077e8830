"""Entry of the engine process: signals, the watch on the front, the model, then the loop.

`run` is called in the spawned child, on its main thread, and is all the front knows of this package besides
`config`. Everything else is imported inside it, once the watch on the front stands: until then an engine outlives a
front that is killed.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection, wait

from rbee_sd.engine.config import EngineConfig

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def run(pipe: Connection, config: EngineConfig) -> None:
    """Be an engine until the front says Shutdown or dies."""
    # A Ctrl-C reaches the whole terminal group; the front decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_front()
    _run(pipe, config)
    pipe.close()
    logging.shutdown()
    # Taking torch down in good order takes a second, and nothing here needs it.
    os._exit(0)


def _run(pipe: Connection, config: EngineConfig) -> None:
    from rbee_sd import log as logs
    from rbee_sd.engine.loop import Engine, FrontGoneError, send, serve
    from rbee_sd.engine.models import Models
    from rbee_sd.engine.pipeline import ModelError
    from rbee_sd.engine.supply import ModelSupply
    from rbee_sd.messages import Fatal, Narration

    logs.configure(config.log_level, config.log_format, background=True)
    emit = partial(send, pipe)
    models = Models(ModelSupply(config, pipe), emit, config.name, config.max_models)
    try:
        try:
            models.load(config.name, config.model, (), (), lambda text: emit(Narration(text)))
        except ModelError as error:
            emit(Fatal("model_failed", str(error)))
        else:
            serve(pipe, Engine(models, emit))
    except FrontGoneError:
        log.info("the front has gone; so does the engine")


def _die_with_front() -> None:
    """Make sure that the front's death, however it comes, is the engine's too."""
    if sys.platform == "linux":
        # Reaches a stopped engine too. It is tied to the thread that started this process: the front's main one.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_leave_with_front, name="front-watch", daemon=True).start()


def _leave_with_front() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
