"""Where the engine's models come from: the real loader or the tests' fake, and the memory that there is for them.

Runs on the engine's main thread and blocks it. Imports what is heavy only when a model is opened.
"""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.pipeline import Pipeline
from rbee_sd.engine.weights import weigh


class ModelSupply:
    """See `Supply`. `config` is that of the model the engine was started with, `pipe` the fake one's."""

    def __init__(self, config: EngineConfig, pipe: Connection) -> None:
        self._config = config
        self._pipe = pipe

    def open(self, name: str, source: str) -> Pipeline:
        """See `Supply`."""
        config = self._config
        if name != config.name:
            # The configuration of a checkpoint and the TAESD are settings that belong to the one model.
            config = replace(config, name=name, model=source, model_config="", taesd="")
        if config.fake_pipeline:
            from rbee_sd.engine.fake import FakePipeline

            return FakePipeline(config, self._pipe)
        from rbee_sd.engine.loading import load

        return load(config)

    def weigh(self, source: str) -> int:
        """See `Supply`. Files may hold their numbers in half of the precision that is used, or in twice that."""
        if self._config.fake_pipeline:
            return 0
        from rbee_sd.engine.device import choose_device, choose_dtype

        itemsize = choose_dtype(self._config.dtype, choose_device(self._config.device)).itemsize
        path = Path(os.path.expanduser(source or self._config.model))
        try:
            files = [path] if path.is_file() else path.rglob("*.safetensors")
            return sum(weigh(file, itemsize) for file in files if file.is_file())
        except OSError:
            return 0

    def free(self) -> int | None:
        """See `Supply`."""
        if self._config.fake_pipeline:
            return None
        from rbee_sd.engine.device import choose_device, free_memory

        return free_memory(choose_device(self._config.device))

    def settle(self) -> None:
        """See `Supply`."""
        # What is loaded stays; without this the collector looks through all of it again and again.
        gc.unfreeze()
        gc.collect()
        if not self._config.fake_pipeline:
            from rbee_sd.engine.device import choose_device, release

            release(choose_device(self._config.device))
        gc.freeze()

    def is_full(self, error: Exception) -> bool:
        """See `Supply`."""
        if self._config.fake_pipeline:
            return False
        from rbee_sd.engine.device import is_out_of_memory

        return is_out_of_memory(error)
