"""Submit a long job, listen, hang up, and prove by the engine's own count that it stopped."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from rbee_sd.client import AsyncClient, Failed, Progress
from rbee_sd.smoke import SmokeError, say

MARGIN = 15.0
"""Seconds a job must still have to run beyond the grace period, to be worth hanging up on."""
SETTLE = 2.0
"""Seconds the engine's count must stand still."""
POLL = 0.2


async def check_cancel(client: AsyncClient) -> None:
    """One long job, abandoned. Raises `SmokeError`, or `ClientError`."""
    limits = (await client.capabilities())["limits"]
    grace = limits["disconnect_grace"]
    job_id = await _abandon_long_job(client, limits, grace + MARGIN)
    say(f"hung up on {job_id}; the worker waits {grace:g} s for somebody to come back")
    job = await _ended(client, job_id, grace + MARGIN)
    if job["state"] != "cancelled":
        raise SmokeError(f"the job {job['state']} although nobody listened")
    if job["step"] >= job["total"]:
        raise SmokeError(f"the job was cancelled only after all its {job['total']} steps")
    say(f"cancelled at step {job['step']} of {job['total']}")
    before = await _settled_count(client, grace + MARGIN)
    await asyncio.sleep(SETTLE)
    after = await _settled_count(client, 0)
    if before != after:
        raise SmokeError(f"the engine went on: {before} denoiser calls, {SETTLE:g} s later {after}")
    say(f"the engine stands at {after} denoiser calls, and did {SETTLE:g} s ago")


async def _abandon_long_job(client: AsyncClient, limits: dict[str, Any], seconds: float) -> str:
    """Listen to a job that has at least `seconds` to go, hang up in its midst, and return its id."""
    side = 512
    while side <= limits["max_side"]:
        steps = _steps_within_budget(limits, side)
        job = await client.submit(
            prompt="a picture nobody waits for", width=side, height=side, steps=steps, on_disconnect="cancel"
        )
        job_id = job.job_id
        eta = await _listen_for_a_while(client, job_id)
        if eta >= seconds:
            return job_id
        say(f"{side} x {side} takes {eta:g} s more, too short to hang up on; trying a larger one")
        await client.cancel(job_id)
        side *= 2
    raise SmokeError("the largest job this worker takes is over too soon; raise max_side, max_steps or the budget")


async def _listen_for_a_while(client: AsyncClient, job_id: str) -> float:
    """Seconds that are left after the second step; 0 for a job that ends before."""
    # Leaving the block closes the connection: it is the hanging up.
    async with aclosing(client.stream(job_id)) as events:
        async for event in events:
            if isinstance(event, Failed):
                raise SmokeError(f"the job failed: {event.message}")
            if isinstance(event, Progress) and event.step >= 2:
                return float(event.eta_s or 0.0)
    return 0.0


def _steps_within_budget(limits: dict[str, Any], side: int) -> int:
    return max(3, min(int(limits["max_steps"]), int(limits["max_megapixel_steps"] * 1e6 / side**2)))


async def _ended(client: AsyncClient, job_id: str, seconds: float) -> dict[str, Any]:
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        job = await client.job(job_id)
        if job["state"] not in ("queued", "running"):
            return job
        await asyncio.sleep(POLL)
    raise SmokeError(f"the job still runs {seconds:g} s after the last listener left")


async def _settled_count(client: AsyncClient, seconds: float) -> int:
    """The denoiser's calls, once the engine has let go of every job. Waits `seconds` for that at most."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        status = await client.result("status")
        if not status["engine"]["jobs"]:
            return int(status["engine"]["forwards"])
        if status["jobs"]["running"]:
            raise SmokeError("other jobs run on this worker, so its count says nothing; try again when it is idle")
        if asyncio.get_running_loop().time() > deadline:
            raise SmokeError("the engine has not let go of the job")
        await asyncio.sleep(POLL)
