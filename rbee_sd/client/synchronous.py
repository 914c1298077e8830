"""`Client`: a worker's client for ordinary programs. Blocks its caller. `asynchronous` is the same for asyncio."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, suppress
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


class Client:
    """Speaks to the worker at `url`. Use it as a context manager. Raises `NoAnswerError` for what is no URL.

    `patience`: for how many seconds a call whose answer was lost, or a lost stream, is tried again; 0 for never. Every
    method raises `NoAnswerError` and `ApiError`.
    """

    def __init__(self, url: str = calls.URL, api_key: str = "", *, patience: float = PATIENCE) -> None:
        self._link = Link(url, api_key, patience)
        self._http = httpx2.Client(**self._link.options())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections. Idempotent."""
        self._http.close()

    @property
    def url(self) -> str:
        """The worker's address."""
        return self._link.url

    def submit(self, *, idempotency_key: str | None = None, **fields: Any) -> Submitted:
        """Submit an operation: the fields of docs/api.md. Files of images may be given as bytes."""
        return calls.submitted(self._ask(calls.submission(fields, idempotency_key)))

    def stream(self, job_id: str, *, after: str = "") -> Generator[Event]:
        """The job's events, each once, behind the one with the id `after`, up to the one that ends it.

        Close it to leave before the end (`contextlib.closing`); a job that nobody listens to any more is cancelled.
        """
        path = calls.job_path(job_id, "/stream")
        return self._events(Reading(self._link, path, after=after, endless=False))

    def events(self) -> Generator[Event]:
        """The events of all jobs from now on, without end. Listening here keeps no job alive."""
        return self._events(Reading(self._link, calls.EVENTS, after="", endless=True))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; no effect on one that has ended. Returns the job."""
        return self._object(Call("DELETE", calls.job_path(job_id)))

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        return self._object(Call("GET", calls.job_path(job_id)))

    def jobs(self, *, state: str = "", limit: int = 50, before: str = "") -> list[dict[str, Any]]:
        """Jobs, newest first; for the next page, `before` is the id of the last one here."""
        query = {"state": state, "limit": limit, "before": before}
        page = self._object(Call("GET", calls.JOBS, query=query))
        jobs: list[dict[str, Any]] = page["jobs"]
        return jobs

    def image(self, job_id: str, index: int = 0) -> bytes:
        """The file of an image of a finished job."""
        return self._ask(Call("GET", calls.job_path(job_id, f"/images/{index}"))).content

    def generate(self, prompt: str, *, on_event: OnEvent | None = None, **fields: Any) -> Result:
        """Have images made and return them. `on_event` is called with each event on the way. Raises also `JobError`.

        Where this is interrupted by Ctrl-C, so is the job.
        """
        complete = self._completed({"prompt": prompt, **fields}, on_event)
        job_id = complete.job_id
        images = [
            Image(self.image(job_id, each["index"]), each["index"], each["seed"], each.get("flagged", False))
            for each in complete.images
        ]
        return Result(job_id, tuple(images), complete)

    def result(self, operation: str, *, on_event: OnEvent | None = None, **fields: Any) -> Any:
        """Have an operation done that makes no images, and return its result; otherwise like `generate`."""
        return self._completed({"operation": operation, **fields}, on_event).result

    def capabilities(self) -> dict[str, Any]:
        """What the worker can do: operations, models, schedulers, limits."""
        return self._object(Call("GET", calls.CAPABILITIES))

    def healthy(self) -> bool:
        """Whether a worker answers there now. Raises `NoAnswerError` when something else does."""
        try:
            return self._link.healthy(self._http.get(calls.HEALTH))
        except ERRORS as error:
            return self._link.healthy(error)

    def _completed(self, fields: dict[str, Any], on_event: OnEvent | None) -> Complete:
        # So that who is interrupted in the midst of it can ask again, and learns which job it is.
        submission = calls.submission(fields, fields.pop("idempotency_key", None))
        last = None
        try:
            job_id = calls.submitted(self._ask(submission)).job_id
            with closing(self.stream(job_id)) as events:
                for last in events:
                    if on_event is not None:
                        on_event(last)
        except KeyboardInterrupt:
            # Once: whoever wants to go shall not have to wait for a worker that does not answer.
            with suppress(*ERRORS, ClientError):
                answer = self._http.request(submission.method, submission.path, **submission.options(), timeout=LEAVING)
                if answer.is_success:
                    self._http.delete(calls.job_path(calls.submitted(answer).job_id), timeout=LEAVING)
            raise
        return completed(job_id, last)

    def _object(self, call: Call) -> dict[str, Any]:
        return calls.object_of(self._ask(call))

    def _ask(self, call: Call) -> httpx2.Response:
        attempts = Attempts(self._link)
        while True:
            try:
                answer = self._http.request(call.method, call.path, **call.options())
                pause = attempts.answered(answer)
            except ERRORS as error:
                pause = attempts.failed(error)
            if pause is None:
                return answer
            time.sleep(pause)

    def _events(self, reading: Reading) -> Generator[Event]:
        while not reading.done():
            try:
                with self._http.sse(reading.path, params=calls.BY_URL, headers=reading.headers) as source:
                    if not source.response.is_success:
                        source.response.read()
                    pause = reading.opened(source.response)
                    if pause is None and not reading.done():
                        for frame in source:
                            event = reading.take(frame)
                            if event is not None:
                                yield event
                            if reading.done():
                                return
                        pause = reading.ended()
            except ERRORS as error:
                pause = reading.failed(error)
            if pause is not None:
                time.sleep(pause)
