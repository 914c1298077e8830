"""Clients as they are: they retry, listen, lose connections and come back, leave, cancel, or do not care."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress

import httpx2
import orjson

from rbee_sd.chaos.books import TERMINAL, Books
from rbee_sd.chaos.measures import Measures

TIMEOUT = 10.0
PAUSE = 0.2
"""Seconds before something is tried again."""
WAYS = ("listen", "leave", "ignore", "cancel", "race")
OFTEN = "listen"
"""What clients do as often as all the rest together, where they do it at all."""


class ChaosClient:
    """One of many, with its `ways`. Runs until it is cancelled, and goes on listening where it can."""

    def __init__(self, url: str, books: Books, measures: Measures, ways: Sequence[str], chance: random.Random) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False)
        self._books = books
        self._measures = measures
        self._ways = [*ways, *[OFTEN] * ((len(ways) - 2) if OFTEN in ways else 0)]
        self._chance = chance
        self._usual = 0.05
        """Seconds until a job of one step is done, about."""

    async def run(self) -> None:
        """Ask for one job after another."""
        try:
            while True:
                way = self._chance.choice(self._ways)
                if way == "race":
                    await self._race()
                elif (job_id := await self._submit(self._chance.randrange(1, 12))) is not None:
                    await self._live_with(job_id, way)
                    await asyncio.sleep(self._chance.uniform(0, PAUSE))
        finally:
            await self._http.aclose()

    async def _submit(self, steps: int) -> str | None:
        """The job's id, after as many tries as it takes; None if the worker does not want it."""
        key = str(uuid.UUID(int=self._chance.getrandbits(128)))
        fields = {
            "prompt": "a red circle",
            "steps": steps,
            "priority": self._chance.choice((0, 0, 0, 1)),
            "on_disconnect": self._chance.choice(("cancel", "finish")),
            "preview": self._chance.random() < 0.3,
        }
        while True:
            try:
                answer = await self._http.post("/v1/jobs", json=fields, headers={"Idempotency-Key": key})
            except httpx2.TransportError:
                self._books.counts["submissions without an answer"] += 1
                await asyncio.sleep(PAUSE)
                continue
            if answer.status_code == 200:
                job_id: str = answer.json()["job_id"]
                self._books.acknowledged(key, job_id)
                return job_id
            self._books.counts[f"answers {answer.status_code}"] += 1
            if answer.status_code != 503:
                self._books.wrong.append(f"a good request was answered {answer.status_code}: {answer.text[:200]}")
                return None
            await asyncio.sleep(PAUSE)

    async def _race(self) -> None:
        """Cancel a job at about the moment of its end, and listen to it meanwhile."""
        job_id = await self._submit(1)
        if job_id is None:
            return
        listening = asyncio.create_task(self._listen(job_id, None))
        try:
            await asyncio.sleep(self._chance.uniform(0, 2 * self._usual))
            await self._cancel(job_id)
            await listening
        finally:
            listening.cancel()
        end = "complete" if any(name == "complete" for _, name in self._books.told.get(job_id, ())) else "cancelled"
        self._books.counts[f"races that ended {end}"] += 1
        # So that about as many are won as are lost, however fast the worker is.
        self._usual = min(max(self._usual * (0.95 if end == "complete" else 1.05), 0.001), 1.0)

    async def _live_with(self, job_id: str, way: str) -> None:
        match way:
            case "listen":
                await self._listen(job_id, None)
            case "leave":
                await self._listen(job_id, self._chance.uniform(0, 1))
            case "cancel":
                await asyncio.sleep(self._chance.uniform(0, 0.5))
                await asyncio.gather(*(self._cancel(job_id) for _ in range(self._chance.randrange(1, 4))))

    async def _listen(self, job_id: str, seconds: float | None) -> None:
        """Follow the stream to its end, through lost connections; or leave it after so many seconds."""
        last, told = 0, 0.0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    headers = {"Last-Event-ID": str(last)} if last else {}
                    since = time.monotonic()
                    try:
                        async with self._http.sse(
                            f"/v1/jobs/{job_id}/stream", params={"images": "url"}, headers=headers
                        ) as source:
                            if source.response.status_code == 204:
                                return
                            if source.response.status_code != 200:
                                self._books.wrong.append(f"{job_id}: its stream is {source.response.status_code}")
                                return
                            async for event in source:
                                if event.data == "[DONE]":
                                    return
                                if event.data:
                                    last = self._heard(job_id, last, int(event.id), event.event)
                                if event.event == "narration" and "engine" in event.data:
                                    told = self._measures.heard(since, told)
                    except httpx2.TransportError:
                        self._books.counts["streams broken off"] += 1
                    await asyncio.sleep(PAUSE)

    def _heard(self, job_id: str, last: int, number: int, name: str) -> int:
        self._books.counts["events"] += 1
        if number <= last:
            self._books.wrong.append(f"{job_id}: event {number} came after {last}")
        if name in TERMINAL:
            self._books.heard(job_id, number, name)
        return number

    async def _cancel(self, job_id: str) -> None:
        with suppress(httpx2.TransportError):
            answer = await self._http.delete(f"/v1/jobs/{job_id}")
            if answer.status_code not in (200, 503):
                self._books.wrong.append(f"{job_id}: cancelling it was answered {answer.status_code}")


async def whole_stream(http: httpx2.AsyncClient, job_id: str) -> list[tuple[int, str]]:
    """Every event of a job that has ended: number and name."""
    events = []
    async with http.sse(f"/v1/jobs/{job_id}/stream", params={"images": "url"}) as source:
        async for event in source:
            if event.data and event.data != "[DONE]":
                events.append((int(event.id), str(orjson.loads(event.data)["event"])))
    return events
