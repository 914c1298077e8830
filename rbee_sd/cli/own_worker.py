"""A worker that lives for one call of the command line, in its process, where none runs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rbee_sd import log as logs
from rbee_sd.client import AsyncClient
from rbee_sd.errors import SettingsError
from rbee_sd.settings import Settings, models_dir_of

if TYPE_CHECKING:
    from rbee_sd.server import Server

INHERITED = (
    *("model", "model_config", "lora_dir", "device", "dtype", "threads", "channels_last", "attention", "vae_tiling"),
    *("taesd", "max_side", "max_steps", "max_count", "max_megapixel_steps", "max_body", "job_timeout", "step_timeout"),
    *("load_timeout", "log_format", "fake_pipeline"),
)
"""What it has of the user's settings: how images are made, and how large. Who may call is for workers others use."""
ROWS = 8
"""Rows of a forward, unless the settings say: measuring how many pay takes longer than it saves in one call."""


@asynccontextmanager
async def own_worker(settings: Settings) -> AsyncIterator[AsyncClient]:
    """A client of such a worker, which is gone with all it has kept when this is left. Raises `StartError`."""
    from rbee_sd.server import Server

    logs.configure("warning", settings.log_format)
    with tempfile.TemporaryDirectory(prefix="rbee-sd-") as folder:
        inherited = {name: getattr(settings, name) for name in INHERITED}
        own = Settings(
            port=0,
            state_dir=folder,
            models_dir=_models_dir(settings),
            log_level="warning",
            drain_timeout=0.0,
            max_rows=settings.max_rows or ROWS,
            **inherited,
        )
        server = Server(own)
        await server.start()
        despair = asyncio.create_task(_despair(server))
        try:
            async with AsyncClient(server.url) as client:
                yield client
        finally:
            despair.cancel()
            await server.drain()
            await server.stop()


def _models_dir(settings: Settings) -> str:
    """Where the models are that were downloaded; who has no place for a state folder has none."""
    try:
        return str(models_dir_of(settings))
    except SettingsError:
        return ""


async def _despair(server: Server) -> None:
    """A worker waits for better days when its engine keeps dying. Somebody at a terminal does not."""
    while not server.engine_given_up:
        await asyncio.sleep(0.2)
    server.dispatcher.refuse("engine_crashed", "the engine dies at every start; see what it has written above")
