"""`rbee-sd generate`: prompts, or an image and a prompt, to files.

By the running worker, or by one of its own where none runs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import click

from rbee_sd.cli import calling, inputs, options, terminal
from rbee_sd.cli.calling import FailedError
from rbee_sd.cli.own_worker import own_worker
from rbee_sd.cli.pictures import Pictures
from rbee_sd.cli.progress import ProgressDisplay
from rbee_sd.client import AsyncClient, ClientError
from rbee_sd.engine.config import model_name
from rbee_sd.settings import Settings, worker_url

FIELDS = (
    *("negative_prompt", "steps", "guidance_scale", "seed", "width", "height", "scheduler", "count", "strength"),
    *("format", "quality"),
)
SETTINGS = (
    *("host", "port", "api_key", "model", "model_config", "lora_dir", "device", "dtype", "threads"),
    "fake_pipeline",
)
AT_ONCE = 8
"""Prompts that a worker is given at a time; the others wait here, not in its queue."""


@click.command("generate", short_help="Make images.")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--url", help="The worker to use; by default the one at --host and --port, else one of its own.")
@click.option("-n", "--negative-prompt", help="What the image must not show.")
@click.option("--steps", type=int, help="Denoise steps.")
@click.option("--guidance-scale", type=inputs.Number(), help="How closely to follow the prompt.")
@click.option("--seed", type=int, help="Same seed, same image.")
@click.option("--width", type=int, help="Pixels, a multiple of 8.")
@click.option("--height", type=int, help="Pixels, a multiple of 8.")
@click.option("--scheduler", help="Such as euler or ddim.")
@click.option("--count", type=int, help="Images of each prompt: out.png, and out-1.png, out-2.png … for the others.")
@click.option("--format", type=click.Choice(sorted({*inputs.FORMATS.values()})), help="By default, by FILE's ending.")
@click.option("--quality", type=int, help="Of JPEG and WebP, 1 to 100.")
@click.option("--image", type=inputs.FILE, help="Image to start from (PNG, JPEG or WebP); the result has its size.")
@click.option("--mask", type=inputs.FILE, help="Image of the same size as --image: only where it is white is painted.")
@click.option("--strength", type=inputs.Number(), help="How much of --image is changed, from 0 to 1.")
@click.option("--lora", "loras", type=inputs.Lora(), multiple=True, help="LoRA to apply; can be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Tell what was made as one JSON object a line for each prompt.")
@click.option("--preview/--no-preview", default=None, help="Show the pictures; by default where the terminal can.")
@options.with_settings(SETTINGS)
def command(
    prompts: tuple[str, ...],
    output: Path | None,
    url: str | None,
    conf: str | None,
    as_json: bool,
    preview: bool | None,
    **flags: Any,
) -> None:
    """Make an image of each PROMPT, with a progress bar.

    A PROMPT that is -, or none where something is piped in, is read from standard input. With --image that image is
    changed, with --mask only in part.
    """
    fields = {name: flags.pop(name) for name in FIELDS}
    request = {name: value for name, value in fields.items() if value is not None}
    request |= inputs.operation_on(flags.pop("image"), flags.pop("mask"), request)
    if loras := flags.pop("loras"):
        request["loras"] = list(loras)
    if output is not None and fields["format"] is None and output.suffix.lower() in inputs.FORMATS:
        request["format"] = inputs.FORMATS[output.suffix.lower()]
    settings = options.read(conf, flags)
    if output == Path("-"):
        raise click.UsageError("name a file to write to; /dev/stdout is one")
    if output is not None and not output.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {output.parent} to write to")
    # Of a worker that runs already, only a model that was asked for by name is asked for.
    if flags["model"] is not None:
        request["model"] = model_name(flags["model"])
    wanted = inputs.prompts(prompts)
    pictures = Pictures(output, fields["count"] or 1, same_seed="seed" in request, as_json=as_json, draw=_draw(preview))
    calling.run(_generate(settings, url, wanted, request, pictures))


def _draw(preview: bool | None) -> terminal.Draw | None:
    """How to show pictures, if they are to be shown. Asked for where nothing is known of the terminal: kitty's way."""
    if preview is None:
        return terminal.detect(os.environ) if sys.stderr.isatty() else None
    return (terminal.detect(os.environ) or terminal.kitty) if preview else None


async def _generate(
    settings: Settings, url: str | None, prompts: tuple[str, ...], request: dict[str, Any], pictures: Pictures
) -> None:
    """Raises the error of the last prompt that failed, once all have ended."""
    places = asyncio.Semaphore(AT_ONCE)
    failures: list[Exception] = []
    async with _worker(settings, url, request) as client:
        with ProgressDisplay(len(prompts)) as display:

            async def draw(number: int, prompt: str) -> None:
                try:
                    async with places:
                        result = await client.generate(
                            prompt, on_event=lambda event: display.show(event, number), **request
                        )
                    pictures.keep(number, prompt, result, display.say)
                except (ClientError, OSError) as error:
                    failures.append(error)
                    # It may be standard output itself that is closed.
                    with suppress(OSError):
                        pictures.failed(prompt, error)
                    if len(prompts) > 1:
                        display.say(f"[{number + 1}/{len(prompts)}] failed: {error}")

            async with asyncio.TaskGroup() as tasks:
                for number, prompt in enumerate(prompts):
                    tasks.create_task(draw(number, prompt))
    if failures:
        raise failures[-1]


@asynccontextmanager
async def _worker(settings: Settings, url: str | None, request: dict[str, Any]) -> AsyncIterator[AsyncClient]:
    """A client of the running worker, or of one that lives for this call."""
    async with AsyncClient(url or worker_url(settings.host, settings.port), settings.api_key) as client:
        if await client.healthy():
            yield client
            return
    if url is not None:
        raise FailedError(f"no worker answers at {url}")
    # It serves just this model, under whatever name.
    request.pop("model", None)
    async with own_worker(settings) as client:
        yield client
