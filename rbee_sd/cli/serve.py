"""`rbee-sd serve`: be the worker, until a signal."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import click

from rbee_sd import log as logs
from rbee_sd.cli import options
from rbee_sd.errors import StartError


@click.command("serve", short_help="Run the worker.")
@options.with_settings()
def command(conf: str | None, **flags: Any) -> None:
    """Run the worker until SIGTERM or Ctrl-C; a second one skips the draining."""
    settings = options.read(conf, flags)
    logs.configure(settings.log_level, settings.log_format, background=True)
    try:
        asyncio.run(_serve(settings))
    except StartError as error:
        click.echo(f"rbee-sd: {error}", err=True)
        sys.exit(2)


async def _serve(settings: Any) -> None:
    # What is made until the worker listens stays for good. To look through it for garbage would take a tenth of the
    # start, and later, again and again, a moment in which nobody is answered.
    gc.disable()
    from rbee_sd.server import Server

    server = Server(settings)
    await server.start()
    gc.freeze()
    gc.enable()
    await server.serve()
