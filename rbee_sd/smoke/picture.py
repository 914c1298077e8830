"""Submit, stream, check the PNG."""

from __future__ import annotations

from rbee_sd.client import AsyncClient, Complete, Event, Failed, Narration
from rbee_sd.smoke import SmokeError, say
from rbee_sd.smoke.png import BrokenPngError, size_of

STEPS = 8


async def check_picture(client: AsyncClient) -> None:
    """One job from end to end. Raises `SmokeError`, or `ClientError`."""
    job = await client.submit(prompt="a red circle on a blue background", steps=STEPS)
    say(f"submitted {job.job_id}")
    names: list[str] = []
    final: Event | None = None
    async for event in client.stream(job.job_id):
        names.append(event.name)
        final = event
        if isinstance(event, Narration):
            say(event.text)
    if not isinstance(final, Complete):
        why = f": {final.message}" if isinstance(final, Failed) else ""
        raise SmokeError(f"the job ended with {final.name if final else 'nothing'}{why}")
    if names.count("progress") != STEPS:
        raise SmokeError(f"{names.count('progress')} progress events for {STEPS} steps")
    say(f"{STEPS} progress events for {STEPS} steps")
    data = await client.image(job.job_id)
    try:
        width, height = size_of(data)
    except BrokenPngError as error:
        raise SmokeError(f"the picture is damaged: {error}") from error
    if (width, height) != (final.width, final.height):
        raise SmokeError(f"the picture is {width} x {height}, the worker said {final.width} x {final.height}")
    say(f"the picture is whole: {width} x {height}, {len(data)} bytes")
