"""`rbee-sd models`: list, download, remove, load and unload the models of a running worker."""

from __future__ import annotations

import json
from typing import Any

import click

from rbee_sd.cli import calling
from rbee_sd.cli.calling import Worker
from rbee_sd.cli.progress import BYTES, STEP, ProgressDisplay


@click.group("models", invoke_without_command=True, short_help="List, download, remove, load or unload models.")
@calling.with_worker
def command(url: str | None, conf: str | None, **flags: Any) -> None:
    """Models of a running worker. Without a subcommand: list them."""
    ctx = click.get_current_context()
    ctx.obj = calling.worker_of(url, conf, flags)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_models(worker: Worker, as_json: bool = False) -> None:
    """List the models that are there."""
    for model in _result(worker, "model_list")["models"]:
        click.echo(json.dumps(model) if as_json else _line(model))


@command.command("pull")
@click.argument("model")
@click.pass_obj
def pull_model(worker: Worker, model: str) -> None:
    """Download MODEL (owner/name) from the hub. Ctrl-C stops it; the next pull goes on from there."""
    _result(worker, "model_download", unit=BYTES, model=model)
    click.echo(f"{model}  downloaded")


@command.command("remove")
@click.argument("model")
@click.pass_obj
def remove_model(worker: Worker, model: str) -> None:
    """Remove the files of MODEL."""
    _result(worker, "model_delete", model=model)
    click.echo(f"{model}  removed")


@command.command("load")
@click.argument("model")
@click.pass_obj
def load_model(worker: Worker, model: str) -> None:
    """Load MODEL, so that the next job need not wait for it."""
    _result(worker, "model_load", model=model)
    click.echo(f"{model}  loaded")


@command.command("unload")
@click.argument("model")
@click.pass_obj
def unload_model(worker: Worker, model: str) -> None:
    """Free the memory that MODEL takes."""
    _result(worker, "model_unload", model=model)
    click.echo(f"{model}  unloaded")


def _result(worker: Worker, operation: str, unit: str = STEP, **fields: Any) -> Any:
    async def ask() -> Any:
        async with worker.client() as client:
            with ProgressDisplay(unit=unit) as display:
                return await client.result(operation, on_event=display.show, **fields)

    return calling.run(ask())


def _line(model: dict[str, Any]) -> str:
    size = f"{model['size'] / 2**30:.2f} GiB" if model["size"] else "?"
    marks = [mark for mark in ("default", "loaded") if model[mark]]
    return f"{model['name']:<40}  {size:>10}  {model['family'] or model['kind']:<16}  {', '.join(marks)}".rstrip()
