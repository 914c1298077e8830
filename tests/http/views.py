"""What clients see, taken apart: stream frames, errors, the worker's status."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.conftest import Client, eventually
from tests.http.wire import Answer

Told = AsyncIterator[httpx2.ServerSentEvent]
TERMINAL = ("complete", "error", "cancelled")

# The only four blocks that may be in a stream.
_BLOCK = re.compile(
    rb"retry: (?P<retry>[0-9]+)"
    rb"|(?P<heartbeat>: hb)"
    rb"|id: (?P<id>[1-9][0-9]*)\nevent: (?P<event>[a-z]+)\ndata: (?P<data>\{[^\r\n]*\})"
    rb"|data: (?P<done>\[DONE\])"
)


@dataclass(frozen=True)
class Frame:
    """One block of a stream: an event with its id and data, or `retry`, `heartbeat` or `done`, which have none."""

    name: str
    id: int = 0
    data: Any = None


def frames(raw: bytes) -> list[Frame]:
    """A stream's bytes as frames. Fails when there is anything else in it, or half a block at its end."""
    *blocks, tail = raw.split(b"\n\n")
    assert tail == b"", f"the stream ends in the middle of a block: {tail[:200]!r}"
    return [_frame(block) for block in blocks]


def _frame(block: bytes) -> Frame:
    match = _BLOCK.fullmatch(block)
    assert match, f"not a block of the contract: {block[:200]!r}"
    if match["event"]:
        return Frame(match["event"].decode(), int(match["id"]), json.loads(match["data"]))
    return Frame(next(name for name in ("retry", "heartbeat", "done") if match[name] is not None))


def events(raw: bytes) -> list[Frame]:
    """The numbered events of a stream."""
    return [frame for frame in frames(raw) if frame.id]


def steps(raw: bytes) -> list[int]:
    """The denoise steps that a stream told of, in order."""
    return [event.data["step"] for event in events(raw) if event.name == "progress"]


def without_heartbeats(raw: bytes) -> bytes:
    """A stream without what depends on the moment."""
    return raw.replace(b": hb\n\n", b"")


async def raw_stream(client: Client, job_id: str, **options: Any) -> bytes:
    """All bytes of a job's stream, from its first to its end."""
    async with client.http.stream("GET", f"/v1/jobs/{job_id}/stream", **options) as answer:
        assert answer.status_code == 200, await answer.aread()
        return b"".join([part async for part in answer.aiter_raw()])


@asynccontextmanager
async def listening(
    client: Client, job_id: str, **options: Any
) -> AsyncIterator[AsyncIterator[httpx2.ServerSentEvent]]:
    """Listen to a job's events one by one; leaving the block hangs up."""
    async with client.stream(job_id, **options) as source:
        yield (event async for event in source)


async def heard(told: Told, name: str) -> dict[str, Any]:
    """Listen until an event of this name comes; returns its data."""
    async for event in told:
        if event.event == name and event.data:
            data: dict[str, Any] = json.loads(event.data)
            return data
    raise AssertionError(f"the stream ended without {name}")


async def running(client: Client, job_id: str) -> None:
    """Wait until a job runs."""

    async def check() -> bool:
        return bool((await client.job(job_id))["state"] == "running")

    await eventually(check)


async def status(client: Client) -> dict[str, Any]:
    """The worker's status, asked for as a job."""
    answer = await client.http.post("/v1/jobs", json={"operation": "status"})
    assert answer.status_code == 200, answer.text
    view = await client.ended(answer.json()["job_id"])
    result: dict[str, Any] = view["result"]
    return result


async def forwards(client: Client) -> int:
    """How many denoise steps the engine has done since it started."""
    count: int = (await status(client))["engine"]["forwards"]
    return count


def error_of(answer: httpx2.Response | Answer, status: int, code: str | None = None) -> dict[str, Any]:
    """The error in an answer. Fails unless it is the contract's, with this status, and gives nothing away."""
    seen = answer.status_code if isinstance(answer, httpx2.Response) else answer.status
    body = answer.content if isinstance(answer, httpx2.Response) else answer.body
    assert seen == status, body[:500]
    assert answer.headers["content-type"] == "application/json"
    decoded = answer.json()
    assert set(decoded) == {"error"}
    error: dict[str, Any] = decoded["error"]
    assert set(error) == {"code", "type", "message", "param", "request_id", "errors"}
    assert re.fullmatch(r"[a-z_]+", error["code"])
    assert re.fullmatch(r"[a-z_]+", error["type"])
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    for wrong in error["errors"]:
        assert set(wrong) == {"field", "constraint", "message", "value"}
    assert not re.search(rb"Traceback|File \\?\"|\.py\b|site-packages", body), body[:500]
    if code is not None:
        assert error["code"] == code, body[:500]
    return error


def wrong_fields(error: dict[str, Any]) -> set[str]:
    """Which fields an error names."""
    return {wrong["field"] for wrong in error["errors"]}


async def works(client: Client) -> None:
    """Fails unless `/health` answers and one good job completes."""
    answer = await client.http.get("/health", timeout=1.0)
    assert answer.status_code == 200
    view = await client.ended(await client.submit("is all well?", steps=2))
    assert view["state"] == "completed", view
    assert len(view["images"]) == 1
