"""The process that measures the engine, `python -m rbee_sd.engine.bench`: started, followed, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

from rbee_sd.bench.progress import Tick, progress
from rbee_sd.bench.wire import BenchError

MAX_LINE = 64 * 1024 * 1024
LAST_WORDS = 2000
"""Characters of its log that are shown when it fails."""


async def measured(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What it has measured by this plan. Raises `BenchError`."""
    async with _started(json.dumps(plan)) as (process, log):
        result = await _follow(process)
        await process.wait()
        if result is None:
            log.seek(0)
            raise BenchError(f"the engine's part ended early:\n{log.read()[-LAST_WORDS:]}")
        return result


@asynccontextmanager
async def _started(argument: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    # The settings of whoever runs this must not change what is measured.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_SD_")}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rbee_sd.engine.bench",
            argument,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environ,
            limit=MAX_LINE,
            start_new_session=True,
        )
        try:
            yield process, log
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _follow(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    result: dict[str, Any] | None = None
    tick: Tick = _nothing
    assert process.stdout is not None  # noqa: S101  (it was asked for)
    with ExitStack() as part:
        async for line in process.stdout:
            match json.loads(line):
                case {"part": str(sentence), "parts": int(parts)}:
                    part.close()
                    tick = part.enter_context(progress(sentence, parts))
                case {"done": _}:
                    tick()
                case {"error": error}:
                    raise BenchError(str(error))
                case {"result": dict(result)}:
                    pass
    return result


def _nothing() -> None:
    pass
