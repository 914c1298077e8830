"""`client.link` and `client.reading`: when a client asks again, decided without a socket."""

from __future__ import annotations

import time

import httpx2
import pytest

from rbee_sd.client import ApiError, Complete, NoAnswerError, Progress
from rbee_sd.client.link import LONGEST_PAUSE, SHORTEST_PAUSE, Attempts, Link
from rbee_sd.client.reading import SETTLED, Reading

LOST = httpx2.ReadError("lost")
REFUSED = httpx2.ConnectError("refused")


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The client's clock."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def link(answered: bool = False) -> Link:
    """A worker's address, known for answering or not."""
    made = Link("http://127.0.0.1:1", "", patience=60)
    made.answered = answered
    return made


def answer(status: int, **headers: str) -> httpx2.Response:
    """What a worker or something before it answers."""
    error = {"error": {"code": "queue_full", "type": "server_error", "message": "full", "errors": []}}
    return httpx2.Response(status, json=error, headers={key.replace("_", "-"): value for key, value in headers.items()})


def test_pauses_grow_up_to_a_bound_and_end_with_the_patience(clock: Clock) -> None:
    attempts = Attempts(link())
    pauses: list[float] = []
    while sum(pauses) < 60:
        pauses.append(attempts.failed(LOST))
        clock.now += pauses[-1]
    assert SHORTEST_PAUSE / 2 <= pauses[0] <= SHORTEST_PAUSE
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in pauses[-5:])
    with pytest.raises(NoAnswerError):
        attempts.failed(LOST)


def test_what_gets_somewhere_begins_its_patience_anew(clock: Clock) -> None:
    attempts = Attempts(link())
    for _ in range(3):
        attempts.failed(LOST)
        clock.now += 59
        attempts.failed(LOST)
        attempts.went_well()
        clock.now += 59
    assert attempts.failed(LOST) <= SHORTEST_PAUSE


def test_where_nothing_listens_only_a_worker_that_was_there_is_waited_for() -> None:
    with pytest.raises(NoAnswerError):
        Attempts(link()).failed(REFUSED)
    assert Attempts(link(answered=True)).failed(REFUSED) > 0
    # What was perhaps received is asked again, whatever becomes of the worker then.
    attempts = Attempts(link())
    attempts.failed(LOST)
    assert attempts.failed(REFUSED) > 0


@pytest.mark.parametrize(
    "error", [httpx2.UnsupportedProtocol("no"), httpx2.InvalidURL("no"), httpx2.DecodingError("no")]
)
def test_what_will_not_get_better_is_not_tried_again(error: Exception) -> None:
    with pytest.raises(NoAnswerError):
        Attempts(link(answered=True)).failed(error)


def test_a_refusal_is_told_and_not_asked_again() -> None:
    for status in (400, 401, 404, 409, 410, 413, 429, 500, 503):
        with pytest.raises(ApiError) as caught:
            Attempts(link(answered=True)).answered(answer(status, Retry_After="7"))
        assert (caught.value.status, caught.value.retry_after) == (status, 7)


def test_a_worker_that_comes_back_busy_is_given_the_time_it_asks_for() -> None:
    for status in (429, 502, 503, 504):
        attempts = Attempts(link())
        attempts.failed(LOST)
        assert attempts.answered(answer(status, Retry_After="7")) == 7
        assert (attempts.answered(answer(status)) or 0) > 0
    assert Attempts(link(answered=True)).answered(answer(502)) is not None
    with pytest.raises(ApiError, match="full"):
        Attempts(link()).answered(answer(502))


def test_an_answer_that_is_no_json_is_an_error_all_the_same() -> None:
    with pytest.raises(ApiError, match="the worker answered 400") as caught:
        Attempts(link()).answered(httpx2.Response(400, text="<html>", headers={"Retry-After": "Sat, 21 Nov 2026"}))
    assert (caught.value.code, caught.value.fields, caught.value.retry_after) == ("", (), None)


def frame(number: str, data: str) -> httpx2.ServerSentEvent:
    """One frame of a stream."""
    return httpx2.ServerSentEvent("message", data, number)


def test_a_reading_asks_for_what_is_behind_its_last_event_and_ends_with_the_job() -> None:
    reading = Reading(link(), "/stream", after="", endless=False)
    assert reading.headers == {}
    assert reading.take(frame("", "")) is None
    assert isinstance(reading.take(frame("5", '{"event": "progress", "step": 1}')), Progress)
    assert reading.headers == {"Last-Event-ID": "5"}
    assert reading.failed(LOST) > 0
    assert not reading.done()
    assert isinstance(reading.take(frame("9", '{"event": "complete"}')), Complete)
    assert reading.done()


def test_the_stream_of_all_jobs_does_not_end_with_one() -> None:
    reading = Reading(link(), "/events", after="3", endless=True)
    assert reading.headers == {"Last-Event-ID": "3"}
    reading.take(frame("4", '{"event": "complete"}'))
    reading.take(frame("4", "[DONE]"))
    assert not reading.done()


def test_all_of_it_was_read_already() -> None:
    reading = Reading(link(), "/stream", after="9", endless=False)
    assert reading.opened(httpx2.Response(204)) is None
    assert reading.done()


def test_a_stream_that_was_open_for_a_while_has_worked_though_nothing_came(clock: Clock) -> None:
    reading = Reading(link(), "/stream", after="", endless=False)
    for _ in range(10):
        assert reading.opened(httpx2.Response(200)) is None
        clock.now += 30
        assert reading.ended() <= SHORTEST_PAUSE
    # But not one that is opened and ends at once, again and again.
    for _ in range(23):
        reading.opened(httpx2.Response(200))
        clock.now += SETTLED / 2
        reading.ended()
    reading.opened(httpx2.Response(200))
    clock.now += SETTLED / 2
    with pytest.raises(NoAnswerError):
        reading.ended()


@pytest.mark.parametrize("data", ["{", "[]", "7", "{}", '"event"', "null"])
def test_a_stream_of_nonsense_is_no_workers(data: str) -> None:
    with pytest.raises(NoAnswerError, match="does not answer like a worker"):
        Reading(link(), "/stream", after="", endless=False).take(frame("1", data))
