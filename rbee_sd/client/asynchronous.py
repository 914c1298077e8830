"""`AsyncClient`: a worker's client for asyncio. Blocks on nothing. `synchronous` is the same for ordinary programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any

import httpx2

from rbee_sd.client import calls
from rbee_sd.client.calls import Call
from rbee_sd.client.errors import ClientError
from rbee_sd.client.events import Complete, Event, OnEvent
from rbee_sd.client.link import ERRORS, LEAVING, PATIENCE, Attempts, Link
from rbee_sd.client.reading import Reading
from rbee_sd.client.results import Image, Result, Submitted, completed


class AsyncClient:
    """Speaks to the worker at `url`. Use it as an async context manager. Raises `NoAnswerError` for what is no URL.

    `patience`: for how many seconds a call whose answer was lost, or a lost stream, is tried again; 0 for never. Every
    method raises `NoAnswerError` and `ApiError`.
    """

    def __init__(self, url: str = calls.URL, api_key: str = "", *, patience: float = PATIENCE) -> None:
        self._link = Link(url, api_key, patience)
        self._http = httpx2.AsyncClient(**self._link.options())

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections. Idempotent."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """The worker's address."""
        return self._link.url

    async def submit(self, *, idempotency_key: str | None = None, **fields: Any) -> Submitted:
        """Submit an operation: the fields of docs/api.md. Files of images may be given as bytes."""
        return calls.submitted(await self._ask(calls.submission(fields, idempotency_key)))

    def stream(self, job_id: str, *, after: str = "") -> AsyncGenerator[Event]:
        """The job's events, each once, behind the one with the id `after`, up to the one that ends it.

        Close it to leave before the end (`contextlib.aclosing`); a job that nobody listens to any more is cancelled.
        """
        path = calls.job_path(job_id, "/stream")
        return self._events(Reading(self._link, path, after=after, endless=False))

    def events(self) -> AsyncGenerator[Event]:
        """The events of all jobs from now on, without end. Listening here keeps no job alive."""
        return self._events(Reading(self._link, calls.EVENTS, after="", endless=True))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; no effect on one that has ended. Returns the job."""
        return await self._object(Call("DELETE", calls.job_path(job_id)))

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        return await self._object(Call("GET", calls.job_path(job_id)))

    async def jobs(self, *, state: str = "", limit: int = 50, before: str = "") -> list[dict[str, Any]]:
        """Jobs, newest first; for the next page, `before` is the id of the last one here."""
        query = {"state": state, "limit": limit, "before": before}
        page = await self._object(Call("GET", calls.JOBS, query=query))
        jobs: list[dict[str, Any]] = page["jobs"]
        return jobs

    async def image(self, job_id: str, index: int = 0) -> bytes:
        """The file of an image of a finished job."""
        return (await self._ask(Call("GET", calls.job_path(job_id, f"/images/{index}")))).content

    async def generate(self, prompt: str, *, on_event: OnEvent | None = None, **fields: Any) -> Result:
        """Have images made and return them. `on_event` is called with each event on the way. Raises also `JobError`.

        Where this is cancelled, so is the job.
        """
        complete = await self._completed({"prompt": prompt, **fields}, on_event)
        job_id = complete.job_id
        images = [
            Image(await self.image(job_id, each["index"]), each["index"], each["seed"], each.get("flagged", False))
            for each in complete.images
        ]
        return Result(job_id, tuple(images), complete)

    async def result(self, operation: str, *, on_event: OnEvent | None = None, **fields: Any) -> Any:
        """Have an operation done that makes no images, and return its result; otherwise like `generate`."""
        return (await self._completed({"operation": operation, **fields}, on_event)).result

    async def capabilities(self) -> dict[str, Any]:
        """What the worker can do: operations, models, schedulers, limits."""
        return await self._object(Call("GET", calls.CAPABILITIES))

    async def healthy(self) -> bool:
        """Whether a worker answers there now. Raises `NoAnswerError` when something else does."""
        try:
            return self._link.healthy(await self._http.get(calls.HEALTH))
        except ERRORS as error:
            return self._link.healthy(error)

    async def _completed(self, fields: dict[str, Any], on_event: OnEvent | None) -> Complete:
        # Its own task: cancelled on its way, nobody would know whether there is a job.
        submission = asyncio.ensure_future(self.submit(**fields))
        last = None
        try:
            job_id = (await asyncio.shield(submission)).job_id
            async with aclosing(self.stream(job_id)) as events:
                async for last in events:
                    if on_event is not None:
                        on_event(last)
        except asyncio.CancelledError:
            # Once: whoever wants to go shall not have to wait for a worker that does not answer.
            with suppress(*ERRORS, ClientError, TimeoutError):
                async with asyncio.timeout(LEAVING):
                    await self._http.delete(calls.job_path((await submission).job_id))
            raise
        return completed(job_id, last)

    async def _object(self, call: Call) -> dict[str, Any]:
        return calls.object_of(await self._ask(call))

    async def _ask(self, call: Call) -> httpx2.Response:
        attempts = Attempts(self._link)
        while True:
            try:
                answer = await self._http.request(call.method, call.path, **call.options())
                pause = attempts.answered(answer)
            except ERRORS as error:
                pause = attempts.failed(error)
            if pause is None:
                return answer
            await asyncio.sleep(pause)

    async def _events(self, reading: Reading) -> AsyncGenerator[Event]:
        while not reading.done():
            try:
                async with self._http.sse(reading.path, params=calls.BY_URL, headers=reading.headers) as source:
                    if not source.response.is_success:
                        await source.response.aread()
                    pause = reading.opened(source.response)
                    if pause is None and not reading.done():
                        async for frame in source:
                            event = reading.take(frame)
                            if event is not None:
                                yield event
                            if reading.done():
                                return
                        pause = reading.ended()
            except ERRORS as error:
                pause = reading.failed(error)
            if pause is not None:
                await asyncio.sleep(pause)
