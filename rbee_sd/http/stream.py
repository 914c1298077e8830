"""The SSE streams: one job's, and every job's.

Front process, IOLoop thread. A stream is a coroutine that follows a cursor; when its client goes, Tornado tells
the handler at once, and the job's watcher is told in the same tick.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from typing import ClassVar

from rbee_sd.http import sse
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.description import JOB_ID, LAST_EVENT_ID, STREAM, Answer, Doc, Docs, Parameter
from rbee_sd.http.docs.events import EVENTS
from rbee_sd.http.pictures import Pictures
from rbee_sd.jobs.event_log import Cursor, Event
from rbee_sd.jobs.images import ImageFile
from rbee_sd.jobs.job import Job

log = logging.getLogger(__name__)

SEND_BUFFER = 64 * 1024
"""Bytes; Linux takes twice this."""
IMAGES = ("base64", "url")
"""How `complete` holds images."""


class StreamHandler(BaseHandler):
    """What both streams share: headers, following a cursor, heartbeats, noticing that the client has gone."""

    tag = "Streams"
    cursor: Cursor | None = None
    opening = sse.RETRY
    """What a stream begins with."""
    _entered = False

    async def prepare(self) -> None:
        """Count the stream among its client's, until it ends. One over the quota is refused."""
        await super().prepare()
        if self._admitted and self.request.method == "GET":
            self.enter()

    def enter(self) -> None:
        """Count the stream. Raises 429 `too_many_streams`."""
        self.context.quotas.enter(self.owner)
        self._entered = True

    def on_finish(self) -> None:
        """Called by Tornado when the answer is complete or the client has gone."""
        super().on_finish()
        self._let_go()

    async def begin(self) -> bool:
        """Send the headers and the first bytes."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache, no-store")
        self.set_header("X-Accel-Buffering", "no")
        self.set_header("Connection", "close")
        stream = self.socket_stream
        if stream is None or stream.closed():
            return False
        # Tornado sets TCP_NODELAY only at the end of an answer; before, small events would wait for an ACK.
        stream.set_nodelay(True)
        # Else the kernel would hold megabytes for a client that does not read.
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        # Else it would try for a quarter of an hour to reach a client that vanished without a word, and for ever to
        # reach one that does not read.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(1000 * self.context.settings.listener_timeout)
            stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        # A browser sends a kilobyte of them, and they would be kept as long as it listens.
        self.request.headers.clear()
        return await self.send(self.opening)

    async def follow(self, cursor: Cursor) -> AsyncIterator[tuple[int, Event]]:
        """The events as they come, with heartbeats between them; ends with the log or with the client."""
        while not cursor.closed:
            for number, event in cursor.take():
                # A preview may have become stale while those before it were on their way.
                if cursor.kept(number):
                    yield number, event
            if cursor.exhausted:
                return
            if not await cursor.wait(self.context.settings.heartbeat) and not await self.still_there():
                return

    async def still_there(self) -> bool:
        """Called when nothing has happened for a while: a heartbeat is what shows that a client has vanished."""
        return await self.send(sse.HEARTBEAT)

    def on_connection_close(self) -> None:
        """The client has gone."""
        super().on_connection_close()
        self.leave()

    async def end(self) -> None:
        """The stream is over: let it arrive, then close."""
        if await self.flushed():
            await self.finish()
            self.cut()

    def leave(self) -> None:
        """Stop listening. Idempotent."""
        self._let_go()
        if self.cursor is None or self.cursor.closed:
            return
        self.cursor.close()
        # While its buffer is not full, nothing waits in `flushed`: then it is the kernel that cuts the client off.
        if self.socket_stream is not None and isinstance(self.socket_stream.error, TimeoutError):
            self.tell_unread()

    def _let_go(self) -> None:
        entered, self._entered = self._entered, False
        if entered:
            self.context.quotas.leave(self.owner)


class JobListener(StreamHandler):
    """Whoever follows one job, and counts as its listener as long as the connection is open."""

    job: Job | None = None

    def listen(self, job: Job, after: int = 0) -> Cursor:
        """Follow a job from behind event `after`."""
        self.cursor = job.log.open(after=after)
        self.job = job
        self.context.watcher.joined(job)
        return self.cursor

    def leave(self) -> None:
        """Stop listening, and tell the watcher, once."""
        super().leave()
        job, self.job = self.job, None
        if job is not None:
            self.context.watcher.left(job)


class JobStreamHandler(JobListener):
    """`GET /v1/jobs/{id}/stream`: the job's events from the first, or behind `Last-Event-ID`, then `[DONE]`."""

    path_parameters = (JOB_ID,)
    docs: ClassVar[Docs] = {
        "GET": Doc(
            "Follow a job",
            {
                200: Answer(
                    "Its events from the first, or behind `Last-Event-ID`, then `data: [DONE]`.", {STREAM: EVENTS}
                ),
                204: Answer("Its last event was seen: there is nothing to come back for."),
            },
            errors=(404, 410, 503),
            parameters=(
                Parameter(
                    "images", "`url` leaves the image out of `complete`.", {"enum": list(IMAGES), "default": IMAGES[0]}
                ),
                LAST_EVENT_ID,
            ),
        )
    }

    async def get(self, job_id: str) -> None:
        """Stream; 204 to a client that has seen the end already."""
        images_by_url = self.images_by_url()
        job = await self.context.registry.recall(job_id)
        seen = sse.last_event_id(self.request.headers.get("Last-Event-ID"), job.log.last)
        if job.told and seen == job.log.last:
            self.set_status(204)
            return
        cursor = self.listen(job, after=seen)
        try:
            await self._stream(job, cursor, images_by_url)
        finally:
            self.leave()

    def images_by_url(self) -> bool:
        """Whether the client wants addresses instead of base64."""
        return self.choice("images", IMAGES) == "url"

    async def _stream(self, job: Job, cursor: Cursor, images_by_url: bool) -> None:
        if not await self.begin():
            return
        async for number, event in self.follow(cursor):
            pictures = [] if images_by_url or event.name != "complete" else job.files
            if not await (self._send_complete(number, event, pictures[0]) if pictures else self._send(number, event)):
                return
        # A job that the next run of the worker goes on with is not done: whoever listens comes back for the rest.
        if cursor.exhausted and (not job.told or await self.send(sse.DONE)):
            await self.end()

    async def _send(self, number: int, event: Event) -> bool:
        return await self.send(sse.frame(number, event))

    async def _send_complete(self, number: int, event: Event, picture: ImageFile) -> bool:
        """`complete` with the first image as base64, read from its file as fast as the client takes it."""
        beginning = sse.head(number, event) + event.data[:-1] + b',"image_base64":"'
        try:
            pictures = await Pictures.of((beginning, picture, b'"}\n\n'), self.context.registry.images)
        except OSError:
            # Somebody deleted it. The event is the job's last all the same.
            log.warning("%s: its image is no longer on disk", self.request_id)
            return await self._send(number, event)
        async with pictures:
            return await pictures.send(self.send)


class FeedHandler(StreamHandler):
    """`GET /v1/events`: every job's events from now on, or behind `Last-Event-ID`. Never ends by itself.

    Listening here keeps no job alive but those that `?jobs=` names, as listening to each one's own stream would.
    """

    docs: ClassVar[Docs] = {
        "GET": Doc(
            "Follow every job",
            {
                200: Answer(
                    "Events as they happen, or from behind `Last-Event-ID`; never ends by itself.", {STREAM: EVENTS}
                )
            },
            parameters=(
                Parameter(
                    "jobs",
                    "Ids, with commas between them: of these jobs it counts as a listener.",
                    {"type": "string", "default": ""},
                ),
                LAST_EVENT_ID,
            ),
        )
    }
    counted = False
    jobs: tuple[Job, ...] = ()

    async def get(self) -> None:
        """Stream. Finished images come as addresses only."""
        named = [self.context.registry.find(job_id) for job_id in self.get_query_argument("jobs", "").split(",")]
        feed = self.context.registry.feed
        header = self.request.headers.get("Last-Event-ID")
        self.cursor = feed.open(after=feed.last if header is None else sse.last_event_id(header, feed.last))
        self.counted = True
        # One that is not in memory ended long ago, if there ever was one: a page may well come back late.
        self.jobs = tuple({job.id: job for job in named if job is not None}.values())
        self.context.watcher.joined_all()
        for job in self.jobs:
            self.context.watcher.joined(job)
        try:
            if await self.begin():
                async for number, event in self.follow(self.cursor):
                    if not await self.send(sse.frame(number, event)):
                        return
                await self.end()
        finally:
            self.leave()

    def leave(self) -> None:
        """Stop listening, and tell the watcher, once."""
        super().leave()
        counted, self.counted = self.counted, False
        jobs, self.jobs = self.jobs, ()
        for job in jobs:
            self.context.watcher.left(job)
        if counted:
            self.context.watcher.left_all()
