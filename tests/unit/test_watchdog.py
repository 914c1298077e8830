"""`worker.watchdog`: silence at work is noticed, once, and nothing else is."""

from __future__ import annotations

import asyncio
import time

from rbee_sd.worker.watchdog import Watchdog
from tests.conftest import eventually


async def silent_for(seconds: float) -> None:
    """Let the loop run for so long."""
    over = asyncio.get_running_loop().time() + seconds
    await eventually(lambda: asyncio.get_running_loop().time() > over)


async def test_silence_at_work_is_noticed_once() -> None:
    barks: list[float] = []
    dog = Watchdog(0.1, lambda: barks.append(asyncio.get_running_loop().time()))
    began = asyncio.get_running_loop().time()
    dog.watch()
    dog.watch()
    await eventually(lambda: barks)
    assert barks[0] - began >= 0.09
    await silent_for(0.3)
    assert len(barks) == 1


async def test_an_engine_that_speaks_or_rests_is_left_alone() -> None:
    barks: list[int] = []
    dog = Watchdog(0.2, lambda: barks.append(1))
    dog.watch()
    for _ in range(20):
        await silent_for(0.02)
        dog.heard()
    dog.rest()
    dog.rest()
    await silent_for(0.4)
    assert barks == []
    # New work begins with all the patience there is.
    dog.watch()
    await silent_for(0.02)
    assert barks == []
    dog.rest()


async def test_time_in_which_the_front_stood_still_does_not_count() -> None:
    barks: list[int] = []
    dog = Watchdog(1.0, lambda: barks.append(1))
    dog.watch()
    await silent_for(0.05)
    # What a stopped process does.
    time.sleep(1.2)  # noqa: ASYNC251
    await silent_for(0.05)
    assert barks == []
    dog.rest()
