"""A client of a worker, for the command line and the smoke scripts. Asynchronous; blocks on nothing.

Follows a job's stream through lost connections: it comes back with `Last-Event-ID` and misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

TIMEOUT = 30.0
"""Seconds without a byte before a connection is given up; streams send a heartbeat every 10 s or less."""
RECONNECTS = 5
RECONNECT_DELAY = 1.0
TERMINAL = ("complete", "error", "cancelled")


class ClientError(Exception):
    """The worker refused, or cannot be reached. `status` is the HTTP status, None without an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Speaks to the worker at `url`. Use it as an async context manager. Raises `ClientError` for what is no URL."""

    def __init__(self, url: str, api_key: str = "") -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ClientError(f"{url[:100]} is no address of a worker; one looks like http://127.0.0.1:8600")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON answer to one request. Raises `ClientError`."""
        return (await self._request(method, path, body, query)).json()

    async def healthy(self) -> bool:
        """Whether a worker answers there. Raises `ClientError` when something else does."""
        try:
            answer = await self._http.get("/health")
        except httpx2.ConnectError:
            return False
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ClientError(f"{self.url} does not answer like a worker ({type(error).__name__})") from error
        if answer.status_code != 200 or b'"healthy"' not in answer.content:
            raise ClientError(f"what answers at {self.url} is not an rbee-sd worker", answer.status_code)
        return True

    async def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit an operation; the answer holds `job_id`."""
        answer: dict[str, Any] = await self.call("POST", "/v1/jobs", fields)
        return answer

    async def result(self, **fields: Any) -> dict[str, Any]:
        """Submit an operation that makes no images, and wait for its result."""
        job = await self.submit(**fields)
        async for event in self.follow(job["job_id"]):
            if event["event"] == "complete":
                result: dict[str, Any] = event["result"]
                return result
        raise ClientError(f"the job {job['job_id']} ended without a result")

    async def image(self, job_id: str, number: int = 0) -> bytes:
        """A PNG of a finished job."""
        return (await self._request("GET", f"/v1/jobs/{job_id}/images/{number}")).content

    async def follow(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """The job's events, each once, up to and with the terminal one. Images come as addresses."""
        last = ""
        attempts = 0
        while attempts <= RECONNECTS:
            if attempts:
                await asyncio.sleep(RECONNECT_DELAY)
            attempts += 1
            headers = {"Last-Event-ID": last} if last else {}
            path = f"/v1/jobs/{job_id}/stream"
            try:
                async with self._http.sse(path, params={"images": "url"}, headers=headers) as source:
                    if source.response.status_code == 204:
                        return
                    await self._check(source.response)
                    async for event in source:
                        if not event.data or event.data == "[DONE]":
                            continue
                        last = event.id
                        attempts = 1
                        body = orjson.loads(event.data)
                        yield body
                        if body["event"] in TERMINAL:
                            return
            except httpx2.TransportError as error:
                failure = type(error).__name__
            else:
                failure = "the stream ended early"
        raise ClientError(f"lost the stream of {job_id} ({failure})")

    async def _request(
        self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None
    ) -> httpx2.Response:
        try:
            answer = await self._http.request(method, path, json=body, params=query or None)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ClientError(f"no answer from {self.url} ({type(error).__name__})") from error
        await self._check(answer)
        return answer

    async def _check(self, answer: httpx2.Response) -> None:
        if answer.is_success:
            return
        await answer.aread()
        try:
            message = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"the worker answered {answer.status_code}"
        raise ClientError(message, answer.status_code)
