"""Calling a worker from a subcommand: which one, and what becomes of what goes wrong. Blocks until the call is done."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

from rbee_sd.cli import options
from rbee_sd.client import AsyncClient, ClientError
from rbee_sd.errors import StartError
from rbee_sd.settings import worker_url

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
BAD_REQUEST = 400


class FailedError(Exception):
    """What was asked for could not be done. The message says why."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Where a running worker is."""

    url: str
    api_key: str

    def client(self) -> AsyncClient:
        """A client of it, to be used as a context manager."""
        return AsyncClient(self.url, self.api_key)


def with_worker(command: F) -> F:
    """Add the flags that say which worker, to a group whose subcommands call it."""
    add = options.with_settings(("host", "port", "api_key"))
    return click.option("--url", help="The worker; by default the one at --host and --port.")(add(command))


def worker_of(url: str | None, conf: str | None, flags: dict[str, Any]) -> Worker:
    """The worker that the flags of `with_worker` name."""
    settings = options.read(conf, flags)
    return Worker(url or worker_url(settings.host, settings.port), settings.api_key)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, or end the process with what went wrong: status 2 for what was asked wrongly, else 1."""
    try:
        return asyncio.run(_interruptible(work))
    except asyncio.CancelledError:
        end("terminated", 128 + signal.SIGTERM)
    except ClientError as error:
        end(str(error), status_of(error))
    except StartError as error:
        end(str(error), 2)
    except (FailedError, OSError) as error:
        end(str(error), 1)


def end(message: str, status: int) -> NoReturn:
    """Say why, and end the process."""
    click.echo(f"rbee-sd: {message}", err=True)
    sys.exit(status)


def status_of(error: ClientError) -> int:
    """The exit status for what a worker refused, or could not be asked."""
    return 2 if error.status == BAD_REQUEST else 1


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Unwind on SIGTERM as on Ctrl-C: cancel the job, end the worker, remove its folder."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
