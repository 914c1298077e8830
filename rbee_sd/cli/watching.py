"""Following jobs as an onlooker, for `rbee-sd jobs watch`: over the stream of all jobs, which nobody's job hangs on.

Listening to a job's own stream would count: when the onlooker left, the job of a client that does not listen would be
cancelled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

import click

from rbee_sd.cli.calling import FailedError
from rbee_sd.cli.progress import ProgressDisplay
from rbee_sd.client import (
    AsyncClient,
    Cancelled,
    Complete,
    Event,
    Failed,
    Narration,
    Preview,
    Progress,
    Queued,
    Started,
)

SILENCE = 2.0
"""Seconds without an event of the job after which it is asked whether it has ended."""
LIVE = ("queued", "running")


async def one_job(client: AsyncClient, job_id: str, *, as_json: bool) -> None:
    """Follow a job to its end. Raises `FailedError` for one that does not complete, and `ClientError`."""
    with ProgressDisplay() as display:
        async with aclosing(_events_of(client, job_id)) as events:
            async for event in events:
                if as_json:
                    _tell(event)
                else:
                    display.show(event)
    job = await client.job(job_id)
    if job["state"] != "completed":
        why = job["error"]["message"] if job["error"] else "it was cancelled"
        raise FailedError(f"{job_id}: {why}")
    if not as_json:
        click.echo(f"{job_id}  completed, {len(job['images'])} images")


async def all_jobs(client: AsyncClient, *, as_json: bool) -> None:
    """Tell of all jobs from now on, until this is cancelled."""
    async with aclosing(client.events()) as events:
        async for event in events:
            if as_json:
                _tell(event)
            elif text := _sentence(event):
                at = datetime.fromtimestamp(event.at).strftime("%H:%M:%S")
                click.echo(f"{at}  {event.job_id}  {text}")


async def _events_of(client: AsyncClient, job_id: str) -> AsyncGenerator[Event]:
    """The job's events from now on, until it has ended."""
    async with aclosing(client.events()) as events:
        coming = asyncio.ensure_future(anext(events))
        try:
            # It may have ended before the stream was open, and is asked until it speaks.
            while (await client.job(job_id))["state"] in LIVE:
                while (await asyncio.wait([coming], timeout=SILENCE))[0]:
                    event = coming.result()
                    coming = asyncio.ensure_future(anext(events))
                    if event.job_id == job_id:
                        yield event
                        if isinstance(event, Complete | Failed | Cancelled):
                            return
        finally:
            coming.cancel()
            await asyncio.wait([coming])


def _tell(event: Event) -> None:
    # A preview is a picture in base64, nothing for a line.
    if not isinstance(event, Preview):
        click.echo(json.dumps(event.data))


def _sentence(event: Event) -> str:
    match event:
        case Queued():
            return f"queued, {event.position} ahead"
        case Started():
            return f"started, {event.total or 'no'} steps"
        case Narration():
            return event.text
        case Complete():
            return f"completed, {len(event.images)} images"
        case Failed():
            return f"failed: {event.message}"
        case Cancelled():
            return f"cancelled ({event.reason})"
        case Progress() | Preview():
            return ""
        case _:
            return event.name
