"""Errors: the contract's JSON on every route and status, request ids, and nothing given away; the access log."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from rbee_sd.log import JsonFormatter, TextFormatter
from rbee_sd.server import Server
from tests.conftest import Client, Faults
from tests.http.conftest import Dial
from tests.http.views import error_of, heard, listening, works
from tests.http.wire import request, submission

JOB = "job_00000000-0000-4000-8000-000000000000"
ROUTES = {
    "/health": {"GET"},
    "/ready": {"GET"},
    "/v1/capabilities": {"GET"},
    "/v1/events": {"GET"},
    "/v1/jobs": {"GET", "POST"},
    "/v1/inference": {"POST"},
    f"/v1/jobs/{JOB}": {"GET", "DELETE"},
    f"/v1/jobs/{JOB}/status": {"GET"},
    f"/v1/jobs/{JOB}/stream": {"GET"},
    f"/v1/jobs/{JOB}/image": {"GET"},
    f"/v1/jobs/{JOB}/images/0": {"GET"},
    f"/v1/inference/{JOB}/status": {"GET"},
    f"/v1/inference/{JOB}/stream": {"GET"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get")
NOWHERE = (
    "/nowhere",
    "/favicon.ico",
    "/v1",
    "/v1/",
    "/v1/jobs/",
    f"/v1/jobs/{JOB}/",
    f"/v1/jobs/{JOB}/images",
    f"/v1/jobs/{JOB}/images/x",
    "/v2/jobs",
    "/health/",
    "/HEALTH",
    "//health",
    "/v1/../health",
    "/v1/jobs/../../etc/passwd",
    "/static/../../setup.py",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/a" * 2000,
    "/nowhere?x=%00%0d%0a%1b[31m",
)


def lines(records: list[logging.LogRecord]) -> list[str]:
    """Log records as they are printed."""
    return [TextFormatter("%(name)s: %(message)s").format(record) for record in records]


def access(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The access log so far."""
    return [record.getMessage() for record in caplog.records if record.name == "rbee_sd.access"]


async def test_a_method_that_a_route_has_not_is_405_with_those_it_has(server: Server, dial: Dial) -> None:
    for path, methods in ROUTES.items():
        for method in METHODS:
            # A HEAD may be answered where a GET is.
            if method in methods or (method == "HEAD" and "GET" in methods):
                continue
            answer = await (await dial(server)).exchange(request(method, path))
            assert answer.status == 405, (method, path, answer.status)
            allowed = {word.strip() for word in answer.headers["allow"].split(",")}
            assert methods <= allowed, path
            assert method not in allowed
            if method != "HEAD":
                error_of(answer, 405, "method_not_allowed")


async def test_a_head_request_has_no_body_whatever_the_status(server: Server, dial: Dial) -> None:
    for path in (*ROUTES, "/nowhere"):
        if path in ("/v1/events",):
            continue
        wire = await dial(server)
        await wire.send(request("HEAD", path, "Connection: close"))
        raw = await wire.rest()
        assert raw.endswith(b"\r\n\r\n"), path
        assert raw.count(b"\r\n\r\n") == 1


async def test_options_lists_the_methods_of_a_route(client: Client) -> None:
    for path, methods in ROUTES.items():
        answer = await client.http.options(path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert methods <= {word.strip() for word in answer.headers["allow"].split(",")}


async def test_where_nothing_is_the_answer_is_404_as_json(server: Server, dial: Dial) -> None:
    for path in NOWHERE:
        for method in ("GET", "POST", "DELETE"):
            error_of(await (await dial(server)).exchange(request(method, path)), 404)


async def test_paths_and_arguments_that_are_no_text_are_errors_of_the_client(server: Server, dial: Dial) -> None:
    for path in (
        "/v1/jobs/%ff",
        "/v1/jobs/%ff/stream",
        "/v1/jobs?state=%ff",
        "/v1/jobs?limit=%c3%28",
        "/v1/jobs/%c3/image",
    ):
        answer = await (await dial(server)).exchange(request("GET", path))
        assert answer.status in (400, 404), path
        error_of(answer, answer.status)


async def test_a_request_id_of_the_client_is_kept_and_a_strange_one_replaced(server: Server, dial: Dial) -> None:
    for good in ("abc", "3f2c-77", "A.b_c-9", "x" * 64):
        for path in ("/health", "/nowhere"):
            answer = await (await dial(server)).exchange(request("GET", path, f"X-Request-ID: {good}"))
            assert answer.headers["x-request-id"] == good
    seen = set()
    for strange in ("", "a b", "x" * 65, "<script>", "a;b", "\x1b[31m", "\xe9", "a\tb", "../x"):
        wire = await dial(server)
        await wire.send(request("GET", "/nowhere", f"X-Request-ID: {strange}", "Connection: close"))
        raw = await wire.rest()
        # Tornado refuses some of these as a header.
        match = re.search(rb"X-Request-Id: (\S+)\r\n", raw, re.IGNORECASE)
        assert match or raw.startswith(b"HTTP/1.1 400"), strange
        if match:
            assert re.fullmatch(rb"req_[0-9a-f]{32}", match[1])
            seen.add(match[1])
    assert len(seen) > 3


async def test_every_answer_says_what_it_is_and_not_what_serves_it(client: Client) -> None:
    job_id = await client.submit(steps=1)
    for path in ("/health", "/ready", "/v1/jobs", f"/v1/jobs/{job_id}/stream", "/nowhere", f"/v1/jobs/{job_id}/image"):
        answer = await client.http.get(path)
        assert "server" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]
        assert "cache-control" in answer.headers


async def test_one_access_line_a_request_whatever_comes_of_it(
    server: Server, client: Client, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    requests = (
        ("GET", "/health", 200, request("GET", "/health", "X-Request-ID: r-0")),
        ("GET", "/nowhere?a=b", 404, request("GET", "/nowhere?a=b", "X-Request-ID: r-1")),
        ("PUT", "/v1/jobs", 405, request("PUT", "/v1/jobs", "X-Request-ID: r-2")),
        ("BREW", "/v1/jobs", 405, request("BREW", "/v1/jobs", "X-Request-ID: r-3")),
        ("POST", "/v1/jobs", 400, submission(b"{", "X-Request-ID: r-4")),
        ("POST", "/v1/jobs", 415, request("POST", "/v1/jobs", "X-Request-ID: r-5", body=b"x")),
        ("POST", "/v1/jobs", 413, submission(b"", "Content-Length: 99999999999", "X-Request-ID: r-6")),
        ("GET", "/health", 403, request("GET", "/health", "Host: evil.example", "X-Request-ID: r-7")),
        ("OPTIONS", "/v1/jobs", 204, request("OPTIONS", "/v1/jobs", "X-Request-ID: r-8")),
        ("POST", "/v1/jobs", 200, submission(b'{"prompt":"x","steps":1}', "X-Request-ID: r-9")),
    )
    for *_, data in requests:
        wire = await dial(server)
        await wire.send(data)
        await wire.until(b"\r\n\r\n")
        wire.close()
    # One that is turned away early has its line once too, not again when its connection ends.
    await works(client)
    said = [line for line in access(caplog) if re.search(r" r-[0-9]$", line)]
    assert len(said) == len(requests)
    for number, ((method, path, status, _), line) in enumerate(zip(requests, said, strict=True)):
        assert f" {method} {path} {status} " in line
        assert line.startswith("127.0.0.1 ")
        assert line.endswith(f" r-{number}")


async def test_a_stream_has_its_access_line_when_it_ends_also_when_its_client_left(
    client: Client, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=100)
    path = f"/v1/jobs/{job_id}/stream"
    async with listening(client, job_id) as told:
        await heard(told, "progress")
        assert not [line for line in access(caplog) if path in line]
    await client.ended(job_id)
    await client.http.get(path)
    ours = [line for line in access(caplog) if path in line]
    assert len(ours) == 2
    assert all(f" GET {path} 200 " in line for line in ours)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_a_client_wrote_stays_on_one_line_of_the_log(
    server: Server, client: Client, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    evil = "x\r\n2026-01-01 00:00:00,000 ERROR rbee_sd: forged\n\x1b[31mred\x1b[0m\u2028\u2029\x85\x9b31m\x00"
    job = await client.http.post("/v1/jobs", json={"prompt": evil[:-1], "steps": 1})
    assert job.status_code == 200
    await client.ended(job.json()["job_id"])
    for body in ({"prompt": evil}, {"prompt": "x", evil: 1}, {"operation": evil}, {"prompt": "x", "model": evil}):
        error_of(await client.http.post("/v1/jobs", json=body), 400)
    for path in ("/nowhere?%0d%0aforged", "/v1/jobs/%0aforged%1b%5b31m", "/v1/jobs?state=%0a"):
        await client.http.get(path)
    for raw in ("/nowhere\x9b31m", "/nowhere\x85forged", "/\xff\xfe"):
        wire = await dial(server)
        await wire.send(request("GET", raw, "X-Request-ID: \x9b31m", "Connection: close"))
        await wire.rest()
    for line in lines(caplog.records):
        assert len(line.splitlines()) == 1, line
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line), line
    for record in caplog.records:
        assert isinstance(json.loads(JsonFormatter().format(record)), dict)


async def test_no_error_gives_away_a_path_or_a_traceback(
    client: Client, faults: Faults, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults.on("fail")
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    told = [
        (await client.http.get(f"/v1/jobs/{job_id}")).text,
        (await client.http.get(f"/v1/jobs/{job_id}/stream")).text,
        (await client.http.get("/v1/jobs")).text,
        (await client.http.get("/ready")).text,
        (await client.http.post("/v1/jobs", json={"prompt": "x", "model": "../../etc/passwd"})).text,
    ]
    for text in told:
        assert str(tmp_path) not in text
        assert str(Path.home()) not in text
        assert "Traceback" not in text
        assert "something about" not in text
    faults.off("fail")
    await works(client)


async def test_a_defect_is_a_500_that_names_the_request_and_nothing_else(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"cannot open {Path.home()}")

    monkeypatch.setattr(server.registry, "page", broken)
    answer = await client.http.get("/v1/jobs", headers={"Origin": "http://localhost:3000", "X-Request-ID": "lost-7"})
    error = error_of(answer, 500)
    assert error["request_id"] == "lost-7"
    assert str(Path.home()) not in answer.text
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "lost-7" in record.getMessage()
    assert record.exc_info
