"""One request, one job: what the dialects share that answer when the work is done.

Front process, IOLoop thread. The request's connection is the job's listener: when it goes, the watcher hears of it in
the same tick, and the job stops after the grace period unless somebody else listens.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from rbee_sd.errors import RequestError
from rbee_sd.http import sse
from rbee_sd.http.body import BodyHandler
from rbee_sd.http.pictures import Part, Pictures, length_of, parts_of
from rbee_sd.http.stream import JobListener
from rbee_sd.jobs.archive import RETRY_AFTER
from rbee_sd.jobs.job import Job, State
from rbee_sd.operations.json_object import digest_of

STATUS = {"invalid_input": 400, "storage_failed": 503}
"""Of the answer to a request whose job failed, by the job's code; 500 for the others."""
SILENT_PROBES = 2
"""Unanswered probes after which a client that says nothing, and is told nothing, has vanished."""


class CallHandler(JobListener, BodyHandler):
    """A POST that is answered with what became of its job.

    A subclass turns its request into the fields of an operation and calls `start`, then `completed` and
    `answer_pictures`; or `begin` and `follow` to stream. It has errors of its own shape by overriding `error_body`.
    """

    # Nobody comes back to the stream of a call, and some clients take a retry time for an event.
    opening = sse.HEARTBEAT
    _streaming = False
    _answered = False

    async def start(
        self, fields: dict[str, Any], *, sent: Mapping[str, Any] | None = None, again: bool | None = None
    ) -> Job:
        """Make the job of this request, and listen to it. Raises `RequestError`.

        `sent`: what the client sent, where that is more lasting than the fields that it became. `again`: the client
        says that it has sent this before, and had no answer; None where clients never say.
        """
        self.enter()
        call = self.request_id
        if again is not None:
            call = digest_of({"owner": self.owner, "path": self.request.path, "sent": sent or fields}).hex()
        job = self.context.retries.returned(call) if again else None
        if job is None:
            job = await self.context.desk.accept(fields, self.idempotency_key(), self.owner, call)
        self.listen(job)
        stream = self.socket_stream
        if stream is None or stream.closed():
            # The client went while its job was being stored: it has come and gone.
            self.leave()
        else:
            self._probe(stream.socket)
        return job

    async def completed(self, job: Job) -> bool:
        """Wait for the end of the job; False when the client has gone. Raises `RequestError` unless it completed."""
        if self.cursor is None:
            raise RuntimeError("nothing was started")
        async for _ in self.follow(self.cursor):
            # Where much happens, nobody asks whether the client is `still_there`.
            if self._hung_up():
                return False
        if not self.cursor.exhausted:
            return False
        if job.state is not State.COMPLETED:
            raise failure_of(job)
        return True

    async def begin(self) -> bool:
        """From here on the answer is a stream of events."""
        self._streaming = True
        return await super().begin()

    async def still_there(self) -> bool:
        """A stream has heartbeats. Before an answer nothing can be sent, but the connection can be looked at."""
        if self._streaming:
            return await super().still_there()
        return not self._hung_up()

    async def answer_pictures(self, body: Mapping[str, Any]) -> None:
        """Send a JSON object in which each `ImageFile` stands for its content in base64, and finish."""
        parts = parts_of(body)
        async with await self._open(parts) as pictures:
            self.set_header("Content-Type", "application/json")
            self.set_header("Content-Length", str(length_of(parts)))
            self._answered = await pictures.send(self.send)
            if self._answered:
                await self.finish()

    async def send_event(self, name: str, body: Mapping[str, Any]) -> bool:
        """Send an event of a stream, images in it as in `answer_pictures`; False when the client has gone."""
        parts = [b"event: %s\ndata: " % name.encode(), *parts_of(body), b"\n\n"]
        async with await self._open(parts) as pictures:
            return await pictures.send(self.send)

    def on_finish(self) -> None:
        """Called by Tornado when the answer is complete, an error's too, or the client has gone."""
        super().on_finish()
        self.leave()

    async def end(self) -> None:
        """The stream has told everything."""
        self._answered = True
        await super().end()

    def leave(self) -> None:
        """Stop listening; a job that was not answered is kept for a retry."""
        job = self.job
        super().leave()
        if job is not None and not self._answered:
            self.context.retries.left(job)

    async def _open(self, parts: Sequence[Part]) -> Pictures:
        try:
            return await Pictures.of(parts, self.context.registry.images)
        except OSError as error:
            raise RequestError(410, "image_gone", "the image is no longer on disk") from error

    def _hung_up(self) -> bool:
        """Whether the other side has closed. Tornado does not see it behind bytes that nobody reads."""
        stream = self.socket_stream
        if stream is None or stream.closed():
            return True
        poll = select.poll()
        # Linux alone says that the other half is closed.
        poll.register(stream.socket, getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))

    def _probe(self, connection: socket.socket) -> None:
        """Have the kernel find out when the client vanishes without a word, as heartbeats do in a stream."""
        seconds = max(1, int(self.context.settings.heartbeat))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", seconds),
            ("TCP_KEEPINTVL", seconds),
            ("TCP_KEEPCNT", SILENT_PROBES),
        ):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def failure_of(job: Job) -> RequestError:
    """The answer to a request whose job came to another end than it wanted, or to none in this run of the worker."""
    if not job.told:
        text = "the worker is shutting down; try again in a moment"
        return RequestError(503, "draining", text, headers=RETRY_AFTER)
    if job.state is State.CANCELLED:
        return RequestError(409, "job_cancelled", "the job of this request was cancelled")
    error = job.error or {"code": "generation_failed", "message": "the job failed"}
    return RequestError(STATUS.get(error["code"], 500), error["code"], error["message"])
