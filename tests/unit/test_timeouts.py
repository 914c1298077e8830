"""`jobs.timeouts`: what runs too long is told, once, and time that nobody had does not count."""

from __future__ import annotations

import asyncio
import time

from rbee_sd.jobs.timeouts import Timeouts
from tests.conftest import eventually


async def test_each_expires_once_when_its_time_is_up() -> None:
    expired: list[tuple[str, float]] = []
    now = asyncio.get_running_loop().time
    began = now()
    timeouts = Timeouts(lambda key: expired.append((key, now() - began)))
    timeouts.begin("late", 0.4)
    timeouts.begin("soon", 0.1)
    timeouts.begin("never", 60)
    await eventually(lambda: len(expired) == 2)
    assert [key for key, _ in expired] == ["soon", "late"]
    assert expired[0][1] >= 0.09
    assert expired[1][1] >= 0.39
    timeouts.end("never")
    assert timeouts._timer is None


async def test_what_has_ended_or_begun_anew_does_not_expire() -> None:
    expired: list[str] = []
    timeouts = Timeouts(expired.append)
    timeouts.begin("ended", 0.05)
    timeouts.begin("again", 0.05)
    timeouts.end("ended")
    timeouts.end("ended")
    timeouts.begin("again", 60)
    over = asyncio.get_running_loop().time() + 0.2
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert expired == []
    timeouts.end("again")


async def test_what_expires_may_begin_anew_at_once() -> None:
    expired: list[str] = []

    def again(key: str) -> None:
        expired.append(key)
        if len(expired) < 3:
            timeouts.begin(key, 0.01)

    timeouts = Timeouts(again)
    timeouts.begin("a", 0.01)
    await eventually(lambda: len(expired) == 3)
    assert timeouts._timer is None


async def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    expired: list[str] = []
    timeouts = Timeouts(expired.append)
    timeouts.begin("a", 1.0)
    # What a stopped process does.
    time.sleep(1.3)  # noqa: ASYNC251
    over = asyncio.get_running_loop().time() + 0.1
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert expired == []
    timeouts.end("a")
