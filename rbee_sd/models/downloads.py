"""Downloads: each in a process of its own, which can be ended at any moment and goes on where it was when asked again.

Owned by the front's IOLoop thread; nothing here blocks. The process (`engine.fetch`) is started with the repository
and the folder, says what it does in lines of JSON on its standard output, and ends when its standard input does: when
the front has died, however that came.
"""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rbee_sd.jobs.runner import ErrandError

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Downloads that run; more wait."""
UNFINISHED = "the download ended unexpectedly; ask for it again, and it goes on where it was"

Line = dict[str, Any]


class Downloads:
    """Runs `command` for each download, which puts the model into `folder`."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._places = asyncio.Semaphore(AT_ONCE)
        self._wanted: dict[str, str] = {}
        self._processes: dict[str, Process] = {}

    async def fetch(self, repo: str, job_id: str, tell: Callable[[Line], None]) -> None:
        """Download a model; `tell` gets what the process says on the way: `text`, or `bytes` and `total_bytes`.

        Raises `ErrandError`. Cancelled, it ends the process and leaves what it has.
        """
        if repo in self._wanted:
            text = f"{self._wanted[repo]} downloads the model {repo} already; listen to that job"
            raise ErrandError("model_in_use", text)
        self._wanted[repo] = job_id
        try:
            if self._places.locked():
                tell({"text": f"waiting for one of {AT_ONCE} other downloads"})
            async with self._places:
                await self._run(repo, tell)
        finally:
            self._release(repo, job_id)

    async def _run(self, repo: str, tell: Callable[[Line], None]) -> None:
        job_id = self._wanted[repo]
        if repo in self._processes:
            # That of a job which was cancelled a moment ago: there must not be two at one file.
            await self._processes[repo].wait()
        # In a session of its own: what interrupts the worker's terminal must not fail a download that its next run
        # goes on with.
        process = await asyncio.create_subprocess_exec(
            *self._command, repo, str(self._folder), stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        self._processes[repo] = process
        log.info("%s downloads %s, pid %s", job_id, repo, process.pid)
        try:
            last = await _follow(process, tell)
        finally:
            # Who asks for it again need not wait until the process has gone.
            self._release(repo, job_id)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if self._processes.get(repo) is process:
                del self._processes[repo]
        if "error" in last:
            raise ErrandError(last["error"], last["message"])
        if "done" not in last:
            raise ErrandError("download_failed", UNFINISHED)

    def _release(self, repo: str, job_id: str) -> None:
        if self._wanted.get(repo) == job_id:
            del self._wanted[repo]


async def _follow(process: Process, tell: Callable[[Line], None]) -> Line:
    """Pass on what a process says until it ends; its last line."""
    last: Line = {}
    async for line in process.stdout or ():  # type: ignore[union-attr]
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            # Libraries print too.
            log.debug("a download said %r", line)
            continue
        last = said
        if "error" not in last and "done" not in last:
            tell(last)
    return last
