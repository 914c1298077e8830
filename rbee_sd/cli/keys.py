"""`rbee-sd keys`: make, list and remove the API keys in a file, for the setting `api_keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rbee_sd import keys
from rbee_sd.cli import options


@click.group("keys", short_help="Make, list or remove API keys.")
@options.with_settings(("api_keys",))
def command(conf: str | None, **flags: Any) -> None:
    """Keys in the file that the setting api_keys names. A worker reads it when it starts."""
    settings = options.read(conf, flags)
    if not settings.api_keys:
        raise click.UsageError("say in which file: --api-keys FILE, or the setting api_keys")
    click.get_current_context().obj = Path(settings.api_keys).expanduser()


@command.command("add")
@click.argument("name")
@click.pass_obj
def add_key(path: Path, name: str) -> None:
    """Make a key for NAME and print it. It is told this once: only its fingerprint is kept."""
    with options.usage_errors():
        click.echo(keys.add(path, name))


@command.command("list")
@click.pass_obj
def list_keys(path: Path) -> None:
    """List the names of the keys, and the beginnings of their fingerprints."""
    with options.usage_errors():
        found = keys.read(path)
    for name, digits in found.items():
        click.echo(f"{name}  {digits[:12]}")


@command.command("remove")
@click.argument("name")
@click.pass_obj
def remove_key(path: Path, name: str) -> None:
    """Remove the key of NAME."""
    with options.usage_errors():
        keys.remove(path, name)
