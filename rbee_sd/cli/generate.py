"""`rbee-sd generate`: a prompt, or an image and a prompt, to a file.

By the running worker, or by one of its own where none runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbee_sd import log as logs
from rbee_sd.cli import inputs, options
from rbee_sd.cli.progress import Progress
from rbee_sd.client import Client, ClientError
from rbee_sd.engine.config import model_name
from rbee_sd.errors import StartError
from rbee_sd.settings import Settings, worker_url

if TYPE_CHECKING:
    from rbee_sd.server import Server

FIELDS = ("negative_prompt", "steps", "guidance_scale", "seed", "width", "height", "scheduler", "count", "strength")
SETTINGS = (
    *("host", "port", "api_key", "model", "model_config", "lora_dir", "device", "dtype", "threads"),
    "fake_pipeline",
)


ROWS = 8
"""Rows of a forward in a worker for one call, unless the settings say."""


class GenerateError(Exception):
    """There is no picture. The message says why."""


@click.command("generate", short_help="Make an image.")
@click.argument("prompt")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write (PNG).")
@click.option("--url", help="The worker to use; by default the one at --host and --port, else one of its own.")
@click.option("-n", "--negative-prompt", help="What the image must not show.")
@click.option("--steps", type=int, help="Denoise steps.")
@click.option("--guidance-scale", type=inputs.Number(), help="How closely to follow the prompt.")
@click.option("--seed", type=int, help="Same seed, same image.")
@click.option("--width", type=int, help="Pixels, a multiple of 8.")
@click.option("--height", type=int, help="Pixels, a multiple of 8.")
@click.option("--scheduler", help="Such as euler or ddim.")
@click.option("--count", type=int, help="Images to make: out.png, and out-1.png, out-2.png … for the others.")
@click.option("--image", type=inputs.FILE, help="Image to start from (PNG, JPEG or WebP); the result has its size.")
@click.option("--mask", type=inputs.FILE, help="Image of the same size as --image: only where it is white is painted.")
@click.option("--strength", type=inputs.Number(), help="How much of --image is changed, from 0 to 1.")
@click.option("--lora", "loras", type=inputs.Lora(), multiple=True, help="LoRA to apply; can be given several times.")
@options.with_settings(SETTINGS)
def command(prompt: str, output: Path | None, url: str | None, conf: str | None, **flags: Any) -> None:
    """Make an image of PROMPT, with a progress bar.

    With --image that image is changed, with --mask only in part.
    """
    fields = {name: flags.pop(name) for name in FIELDS}
    wanted = {name: value for name, value in fields.items() if value is not None}
    wanted |= inputs.operation_on(flags.pop("image"), flags.pop("mask"), wanted)
    if loras := flags.pop("loras"):
        wanted["loras"] = list(loras)
    settings = options.read(conf, flags)
    if output is not None and not output.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {output.parent} to write to")
    # Of a worker that runs already, only a model that was asked for by name is asked for.
    if flags["model"] is not None:
        wanted["model"] = model_name(flags["model"])
    try:
        asyncio.run(_interruptible(_generate(settings, url, output, {"prompt": prompt, **wanted})))
    except asyncio.CancelledError:
        _end("terminated", 128 + signal.SIGTERM)
    except ClientError as error:
        _end(str(error), 2 if error.status == 400 else 1)
    except StartError as error:
        _end(str(error), 2)
    except (GenerateError, OSError) as error:
        _end(str(error), 1)


def _end(message: str, status: int) -> None:
    click.echo(f"rbee-sd: {message}", err=True)
    sys.exit(status)


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Unwind on SIGTERM as on Ctrl-C: cancel the job, end the worker, remove its folder."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


async def _generate(settings: Settings, url: str | None, output: Path | None, request: dict[str, Any]) -> None:
    async with _worker(settings, url, request) as client:
        job = await client.submit(**request)
        job_id = job["job_id"]
        try:
            final = await _follow(client, job_id)
        except asyncio.CancelledError:
            # Leaving the stream would cancel the job too, but only after the grace period.
            with suppress(ClientError):
                await client.call("DELETE", f"/v1/jobs/{job_id}")
            raise
        first = output or Path(f"rbee-sd-{final['seed']}.png")
        for image in final["images"]:
            path = first if image["index"] == 0 else first.with_stem(f"{first.stem}-{image['index']}")
            _write(path, await client.image(job_id, image["index"]))
            click.echo(f"{path}  {final['width']} x {final['height']}, seed {image['seed']}")


async def _follow(client: Client, job_id: str) -> dict[str, Any]:
    with Progress() as progress:
        async for event in client.follow(job_id):
            progress.show(event)
            if event["event"] == "complete":
                return event
            if event["event"] == "error":
                raise GenerateError(event["message"])
            if event["event"] == "cancelled":
                raise GenerateError("the job was cancelled")
    raise GenerateError("the stream ended without a result")


@asynccontextmanager
async def _worker(settings: Settings, url: str | None, request: dict[str, Any]) -> AsyncIterator[Client]:
    """A client of the running worker, or of one that lives for this call."""
    async with Client(url or worker_url(settings.host, settings.port), settings.api_key) as client:
        if await client.healthy():
            yield client
            return
    if url is not None:
        raise GenerateError(f"no worker answers at {url}")
    # It serves just this model, under whatever name.
    request.pop("model", None)
    async with _own_worker(settings) as client:
        yield client


@asynccontextmanager
async def _own_worker(settings: Settings) -> AsyncIterator[Client]:
    from rbee_sd.server import Server

    logs.configure("warning", settings.log_format)
    with tempfile.TemporaryDirectory(prefix="rbee-sd-") as folder:
        own = replace(
            settings,
            host="127.0.0.1",
            port=0,
            api_key="",
            api_keys="",
            client_jobs=0,
            client_rate=0.0,
            client_streams=0,
            state_dir=folder,
            log_level="warning",
            drain_timeout=0.0,
            # Measuring how many rows pay takes longer than it saves in one call.
            max_rows=settings.max_rows or ROWS,
        )
        server = Server(own)
        await server.start()
        despair = asyncio.create_task(_despair(server))
        try:
            async with Client(server.url) as client:
                yield client
        finally:
            despair.cancel()
            await server.drain()
            await server.stop()


async def _despair(server: Server) -> None:
    """A worker waits for better days when its engine keeps dying. Somebody at a terminal does not."""
    while not server.engine_given_up:
        await asyncio.sleep(0.2)
    server.dispatcher.refuse("engine_crashed", "the engine dies at every start; see what it has written above")


def _write(path: Path, data: bytes) -> None:
    """Write a whole file or none."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
