"""`rbee-sd jobs`: list, show and cancel the jobs of a running worker."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime
from typing import Any

import click

from rbee_sd.cli import options
from rbee_sd.client import Client, ClientError
from rbee_sd.settings import worker_url


@click.group("jobs", invoke_without_command=True, short_help="List, show or cancel jobs.")
@click.option("--url", help="The worker; by default the one at --host and --port.")
@options.with_settings(("host", "port", "api_key"))
def command(url: str | None, conf: str | None, **flags: Any) -> None:
    """Jobs of a running worker. Without a subcommand: list them."""
    settings = options.read(conf, flags)
    ctx = click.get_current_context()
    ctx.obj = (url or worker_url(settings.host, settings.port), settings.api_key)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_jobs)


@command.command("list")
@click.option("--state", default="", help="Only jobs in this state.")
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@click.pass_obj
def list_jobs(worker: tuple[str, str], state: str = "", limit: int = 20) -> None:
    """List jobs, newest first."""
    for job in _call(worker, "GET", "/v1/jobs", state=state, limit=limit)["jobs"]:
        made = datetime.fromtimestamp(job["created_at"]).strftime("%H:%M:%S")
        steps = f"{job['step']}/{job['total'] or '?'}"
        prompt = job["request"].get("prompt", job["operation"])
        click.echo(f"{job['job_id']}  {made}  {job['state']:<9}  {steps:>8}  {prompt[:50]!r}")


@command.command("show")
@click.argument("job_id")
@click.pass_obj
def show_job(worker: tuple[str, str], job_id: str) -> None:
    """Show everything about one job, as JSON."""
    click.echo(json.dumps(_call(worker, "GET", f"/v1/jobs/{job_id}"), indent=2, ensure_ascii=False))


@command.command("cancel")
@click.argument("job_id")
@click.pass_obj
def cancel_job(worker: tuple[str, str], job_id: str) -> None:
    """Cancel a job; no effect on one that has ended."""
    click.echo(_call(worker, "DELETE", f"/v1/jobs/{job_id}")["state"])


def _call(worker: tuple[str, str], method: str, path: str, **query: Any) -> Any:
    async def ask() -> Any:
        async with Client(*worker) as client:
            return await client.call(method, path, **query)

    try:
        return asyncio.run(ask())
    except ClientError as error:
        click.echo(f"rbee-sd: {error}", err=True)
        sys.exit(2 if error.status == 400 else 1)
