"""`rbee-sd jobs`: list, show, cancel and watch the jobs of a running worker."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from rbee_sd.cli import calling, watching
from rbee_sd.cli.calling import Worker


@click.group("jobs", invoke_without_command=True, short_help="List, show, cancel or watch jobs.")
@calling.with_worker
def command(url: str | None, conf: str | None, **flags: Any) -> None:
    """Jobs of a running worker. Without a subcommand: list them."""
    ctx = click.get_current_context()
    ctx.obj = calling.worker_of(url, conf, flags)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_jobs)


@command.command("list")
@click.option("--state", default="", help="Only jobs in this state.")
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_jobs(worker: Worker, state: str = "", limit: int = 20, as_json: bool = False) -> None:
    """List jobs, newest first."""

    async def ask() -> list[dict[str, Any]]:
        async with worker.client() as client:
            return await client.jobs(state=state, limit=limit)

    for job in calling.run(ask()):
        click.echo(json.dumps(job) if as_json else _line(job))


@command.command("show")
@click.argument("job_id")
@click.pass_obj
def show_job(worker: Worker, job_id: str) -> None:
    """Show everything about one job, as JSON."""

    async def ask() -> dict[str, Any]:
        async with worker.client() as client:
            return await client.job(job_id)

    click.echo(json.dumps(calling.run(ask()), indent=2))


@command.command("cancel")
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")
@click.pass_obj
def cancel_jobs(worker: Worker, job_ids: tuple[str, ...]) -> None:
    """Cancel jobs; no effect on one that has ended. Tells the state each is in then."""

    async def ask() -> None:
        async with worker.client() as client:
            for job_id in job_ids:
                click.echo((await client.cancel(job_id))["state"])

    calling.run(ask())


@command.command("watch")
@click.argument("job_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each event.")
@click.pass_obj
def watch_jobs(worker: Worker, job_id: str | None, as_json: bool) -> None:
    """Follow a job to its end, or all jobs until Ctrl-C. Watching keeps no job alive, and leaving cancels none.

    Exit status 1 when the job does not complete.
    """

    async def ask() -> None:
        async with worker.client() as client:
            if job_id is None:
                await watching.all_jobs(client, as_json=as_json)
            else:
                await watching.one_job(client, job_id, as_json=as_json)

    calling.run(ask())


def _line(job: dict[str, Any]) -> str:
    made = datetime.fromtimestamp(job["created_at"]).strftime("%H:%M:%S")
    steps = f"{job['step']}/{job['total'] or '?'}"
    prompt = job["request"].get("prompt", job["operation"])
    return f"{job['job_id']}  {made}  {job['state']:<9}  {steps:>8}  {prompt[:50]!r}"
