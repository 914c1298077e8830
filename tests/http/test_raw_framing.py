"""Requests that two servers would read differently, that never end, or that are too large: one answer, then closed."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator

import pytest

from rbee_sd import server as server_module
from rbee_sd.server import Server
from tests.conftest import Client, eventually
from tests.http.conftest import Dial
from tests.http.views import error_of, works
from tests.http.wire import Wire, chunk, request, submission

SMUGGLED = request("GET", "/smuggled")
JSON = "Content-Type: application/json"
BODY = b'{"prompt":"x"}'
LIMIT = 20_000


def post(*headers: str, body: bytes = BODY) -> bytes:
    """A submission with exactly these headers about its body."""
    return "\r\n".join(["POST /v1/jobs HTTP/1.1", "Host: localhost", JSON, *headers, "", ""]).encode("latin-1") + body


def chunked(body: bytes) -> bytes:
    """A submission with a chunked body."""
    return post("Transfer-Encoding: chunked", body=body)


LENGTHS = ("+14", "-1", "0x2", "1_4", "14, 15", "14 15", "", "abc", "1e1", "14.0", "\xb9", ",", "14,")
CHUNK_SIZES = ("zz", "-1", "0xe", "+e", " e", "e ", "", "f" * 17, "1_0", "e\r", "\ne", "e;a\nb")

MISFRAMED: dict[str, bytes] = {
    "length and chunked": post("Content-Length: 14", "Transfer-Encoding: chunked", body=chunk(BODY) + chunk(b"")),
    "chunked and length": post("Transfer-Encoding: chunked", "Content-Length: 4", body=chunk(BODY) + chunk(b"")),
    "two lengths": post("Content-Length: 14", "Content-Length: 5"),
    **{f"length {length[:10]!r}": post(f"Content-Length: {length}") for length in LENGTHS},
    **{f"chunk size {size[:10]!r}": chunked(size.encode() + b"\r\n" + BODY + b"\r\n0\r\n\r\n") for size in CHUNK_SIZES},
    "chunk longer than its size": chunked(b"2\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "unknown coding": post("Transfer-Encoding: xchunked", body=chunk(BODY) + chunk(b"")),
    "gzip coding": post("Transfer-Encoding: gzip, chunked", body=chunk(BODY) + chunk(b"")),
    "chunked twice": post("Transfer-Encoding: chunked, chunked", body=chunk(BODY) + chunk(b"")),
    "two codings": post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=chunk(BODY) + chunk(b"")),
    "space before the colon": post("Content-Length : 14"),
    "folded length": post("Content-Length:\r\n 14"),
    "bare CR in a header": post("X-A: b\rContent-Length: 14"),
    "NUL in a header": post("X-A: \0", "Content-Length: 14"),
    "no colon": post("Content-Length 14"),
    "empty header name": post(": 14", "Content-Length: 14"),
    "two hosts": request("GET", "/health", "Host: localhost", "Host: evil.example"),
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bad version": b"GET /health HTTP/1.x\r\nHost: localhost\r\n\r\n",
    "two spaces": b"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "control character in the path": b"GET /hea\x01lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
    "binary": bytes(range(256)) * 4 + b"\r\n\r\n",
}


def answers(raw: bytes) -> list[int]:
    """The statuses of all responses in what a server sent."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", raw)]


async def test_a_misframed_request_gets_one_400_and_what_hides_behind_it_none(
    server: Server, client: Client, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong = {}
    for name, data in MISFRAMED.items():
        wire = await dial(server)
        await wire.send(data + SMUGGLED)
        seen = answers(await wire.rest())
        if seen != [400]:
            wrong[name] = seen
    assert wrong == {}
    assert "/smuggled" not in caplog.text
    assert (await client.http.get("/v1/jobs")).json()["jobs"] == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await works(client)


async def test_equal_lengths_twice_are_one_length_or_refused(server: Server, dial: Dial) -> None:
    for data in (post("Content-Length: 14", "Content-Length: 14"), post("Content-Length: 14, 14")):
        wire = await dial(server)
        await wire.send(data)
        assert answers(await wire.until(b"\r\n\r\n")) in ([200], [400])


async def test_requests_in_a_row_on_one_connection_are_answered_in_order(server: Server, dial: Dial) -> None:
    wire = await dial(server)
    await wire.send(request("GET", "/health") + submission(b"{}") + request("GET", "/v1/jobs/x") + submission(BODY))
    assert [(await wire.answer()).status for _ in range(4)] == [200, 400, 404, 200]


async def test_a_connection_that_is_not_said_to_close_takes_the_next_request(server: Server, dial: Dial) -> None:
    for data, status in (
        (request("GET", "/nowhere"), 404),
        (request("PUT", "/v1/jobs"), 405),
        (request("BREW", "/v1/jobs"), 405),
        (request("GET", "/health", "Origin: http://evil.example"), 403),
        (request("POST", "/v1/jobs", "Content-Length: 0"), 415),
        (request("POST", "/v1/jobs", "Content-Type: text/plain", body=BODY), 415),
        (request("POST", "/v1/jobs", "Content-Type: text/plain", "Content-Length: 9", "Expect: 100-continue"), 415),
        (submission(b"{"), 400),
        (request("GET", "/v1/jobs?limit=0"), 400),
    ):
        wire = await dial(server)
        answer = await wire.exchange(data)
        assert answer.status == status
        if answer.headers.get("connection") != "close":
            await wire.send(request("GET", "/health"))
            assert answers(await wire.until(b"\r\n\r\n")) == [200]


@pytest.mark.settings(max_body=LIMIT)
async def test_a_body_announced_too_large_is_refused_before_it_is_sent(
    server: Server, client: Client, dial: Dial
) -> None:
    for length in (LIMIT + 1, 2 * LIMIT, 2 * LIMIT + 1, 10**10, 10**18, 10**30):
        wire = await dial(server)
        await wire.send(post(f"Content-Length: {length}", body=b""))
        error_of(await wire.answer(), 413)
        # Nothing behind it, and no waiting for what was announced.
        async with asyncio.timeout(2):
            assert await wire.rest() == b"", length
    await works(client)


async def test_a_length_of_five_thousand_digits_is_refused(server: Server, client: Client, dial: Dial) -> None:
    wire = await dial(server)
    await wire.send(post("Content-Length: " + "9" * 5000))
    assert answers(await wire.rest()) in ([400], [413])
    await works(client)


@pytest.mark.settings(max_body=LIMIT)
@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT, 3_000_000])
async def test_an_oversize_body_gets_one_413_whoever_sends_it(
    server: Server, client: Client, dial: Dial, size: int
) -> None:
    body = b'{"prompt":"' + b"x" * (size - 13) + b'"}'
    for data in (
        submission(body),
        chunked(chunk(body) + chunk(b"")),
        chunked(b"".join(chunk(body[at : at + 1000]) for at in range(0, size, 1000))),
    ):
        wire = await dial(server)
        await wire.send(data)
        raw = await wire.rest()
        assert answers(raw) == [413], raw[:2000]
        head, _, rest = raw.partition(b"\r\n\r\n")
        assert b"application/json" in head
        assert b'"body_too_large"' in rest
    await works(client)


@pytest.mark.settings(max_body=LIMIT)
@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT, 3_000_000])
async def test_a_client_that_sends_all_before_it_reads_still_sees_the_413(client: Client, size: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(0, size, 1000):
            yield b"x" * 1000

    headers = {"Content-Type": "application/json"}
    for content in (b"x" * size, parts()):
        error_of(await client.http.post("/v1/jobs", content=content, headers=headers), 413)
    await works(client)


@pytest.mark.settings(max_body=LIMIT)
async def test_a_body_of_just_the_limit_is_read(client: Client) -> None:
    body = b'{"prompt":"x","steps":1' + b" " * (LIMIT - 24) + b"}"
    assert len(body) == LIMIT
    answer = await client.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


async def test_what_follows_a_refused_body_is_never_taken_for_a_request(
    server: Server, client: Client, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hidden = SMUGGLED * 3
    length = f"Content-Length: {len(hidden)}"
    for data, status in (
        (request("POST", "/v1/jobs", "Content-Type: text/plain", length), 415),
        (request("POST", "/v1/jobs", JSON, "Origin: http://evil.example", length), 403),
        (request("POST", "/v1/jobs", JSON, "Host: evil.example", length), 403),
        (request("POST", "/v1/jobs", "Transfer-Encoding: chunked"), 415),
        (request("POST", "/v1/jobs", "Content-Length: 100000"), 415),
        (submission(b"", "Content-Length: 100000", "Origin: null"), 403),
        (request("POST", "/nowhere", length), 404),
        (request("BREW", "/v1/jobs", length), 405),
        (request("PUT", "/v1/jobs", length), 405),
        (request("GET", "/health", length), 200),
    ):
        wire = await dial(server)
        await wire.send(data + hidden)
        assert answers(await wire.until(b"\r\n\r\n")) == [status], data
        wire.half_close()
        assert answers(await wire.rest()) == [], data
    assert "/smuggled" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await works(client)


async def test_a_client_that_waits_for_100_is_told_to_go_on_or_refused_at_once(server: Server, dial: Dial) -> None:
    wire = await dial(server)
    await wire.send(post("Content-Length: 14", "Expect: 100-continue", body=b""))
    assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    await wire.send(BODY)
    assert (await wire.answer()).status == 200
    wire = await dial(server)
    await wire.send(
        request("POST", "/v1/jobs", "Content-Type: text/plain", "Content-Length: 14", "Expect: 100-continue")
    )
    error_of(await wire.answer(), 415)


async def test_headers_without_an_end_are_cut_off(server: Server, client: Client, dial: Dial) -> None:
    for data in (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 100_000,
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 20_000,
        b"GET /" + b"a" * 100_000,
    ):
        wire = await dial(server)
        await wire.send(data)
        assert set(answers(await wire.rest())) <= {400, 414, 431}
    await works(client)


async def test_a_client_slow_with_its_headers_is_dropped_in_time(
    io_loop_with_short_patience: None, client: Client, server: Server, dial: Dial
) -> None:
    wires = [await dial(server) for _ in range(500)]
    for wire in wires:
        await wire.send(b"GET /hea")
    dripping = [asyncio.ensure_future(drip(wire)) for wire in wires[:20]]
    health = await client.http.get("/health", timeout=1)
    assert health.status_code == 200
    start = time.perf_counter()
    assert [await wire.rest() for wire in wires[20:]] == [b""] * 480
    await asyncio.gather(*dripping)
    assert time.perf_counter() - start < 5
    await works(client)


async def test_a_client_slow_with_its_body_is_dropped_in_time(
    io_loop_with_short_patience: None, client: Client, server: Server, dial: Dial
) -> None:
    start = time.perf_counter()
    for data in (post("Content-Length: 14", body=b'{"pro'), chunked(b"e\r\n{")):
        wire = await dial(server)
        await wire.send(data)
        assert answers(await wire.rest()) in ([], [408])
    wire = await dial(server)
    await wire.send(post("Content-Length: 1000", body=b""))
    await drip(wire)
    assert time.perf_counter() - start < 5
    assert (await client.http.get("/v1/jobs")).json()["jobs"] == []
    await works(client)


async def drip(wire: Wire) -> None:
    """Send a byte now and then until the server hangs up."""
    gone = asyncio.ensure_future(wire.rest())
    while not gone.done():
        await wire.send(b"a")
        await asyncio.wait([gone], timeout=0.05)


@pytest.fixture
def io_loop_with_short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for headers and bodies as always, only not so long."""
    monkeypatch.setattr(server_module, "IDLE_CONNECTION_TIMEOUT", 0.5)
    monkeypatch.setattr(server_module, "BODY_TIMEOUT", 0.5)


async def test_the_times_that_clients_are_given_are_those_that_were_decided() -> None:
    assert server_module.MAX_HEADER == 16 * 1024
    assert server_module.IDLE_CONNECTION_TIMEOUT == 10
    assert server_module.BODY_TIMEOUT == 20


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(
    server: Server, client: Client, dial: Dial
) -> None:
    await works(client)
    tasks = len(asyncio.all_tasks())
    for path in ("/v1/jobs", "/v1/inference", "/nowhere", "/health"):
        for _ in range(5):
            wire = await dial(server)
            await wire.send(request("POST", path, JSON, "Content-Length: 100") + b"{")
            wire.close()
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, timeout=3)
    assert (await client.http.get("/v1/jobs")).json()["jobs"][1:] == []


async def test_a_stream_whose_announced_body_never_comes_leaves_nothing_behind(
    server: Server, client: Client, dial: Dial
) -> None:
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    tasks = len(asyncio.all_tasks())
    for path in (f"/v1/jobs/{job_id}/stream", "/v1/events"):
        for _ in range(5):
            wire = await dial(server)
            await wire.send(request("GET", path, "Content-Length: 100") + b"{")
            wire.close()
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, timeout=3)
    assert server.watcher.total == 0


async def test_a_body_where_none_is_expected_harms_nothing(
    server: Server, client: Client, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    for method, path, status in (
        ("OPTIONS", "/v1/jobs", 204),
        ("GET", "/health", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/jobs", 405),
        ("DELETE", "/v1/jobs/x", 404),
        ("HEAD", "/health", 200),
    ):
        wire = await dial(server)
        await wire.send(request(method, path, body=BODY))
        assert answers(await wire.until(b"\r\n\r\n")) == [status], (method, path)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await works(client)


async def test_a_body_in_a_multitude_of_chunks_holds_nobody_up(server: Server, client: Client, dial: Dial) -> None:
    await client.ready()
    wire = await dial(server)
    await wire.send(chunked(b""))
    flood = asyncio.ensure_future(wire.send(b"1\r\nx\r\n" * 100_000))
    delays = []
    while not flood.done():
        start = time.perf_counter()
        assert (await client.http.get("/health")).status_code == 200
        delays.append(time.perf_counter() - start)
    delays.sort()
    assert delays[len(delays) // 2] < 0.05
    wire.close()
    await works(client)
