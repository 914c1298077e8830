"""The front door: host names, origins, CORS, API keys, and where the worker may listen."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.ioloop import IOLoop

from rbee_sd.errors import StartError
from rbee_sd.server import Server
from tests.conftest import Client, MakeServer
from tests.http.conftest import Dial
from tests.http.views import error_of, works
from tests.http.wire import request, submission

JOB = "job_00000000-0000-4000-8000-000000000000"
PATHS = (
    *("/health", "/ready", "/v1/capabilities", "/v1/events", "/v1/jobs", "/v1/inference", "/nowhere", "/"),
    *(f"/v1/jobs/{JOB}{rest}" for rest in ("", "/status", "/stream", "/image", "/images/0")),
    *(f"/v1/inference/{JOB}{rest}" for rest in ("/status", "/stream")),
)
OPEN_PATHS = ("/", "/studio/main.js", "/health", "/ready")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
LOCAL_ORIGINS = (
    "http://localhost:3000",
    "http://localhost",
    "https://localhost:5173",
    "http://127.0.0.1:8080",
    "http://127.0.0.2",
    "http://[::1]:3000",
    "HTTP://LOCALHOST:3000",
)
FOREIGN_ORIGINS = (
    "http://evil.example",
    "https://evil.example:8600",
    "null",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://localhost@evil.example",
    "http://evil.example#localhost",
    "http://evil.example/localhost",
    "http://localhost:3000/path",
    "http://localhost, http://evil.example",
    "file://",
    "chrome-extension://abcdefgh",
    "localhost",
    "http://",
    "//localhost",
    "http://[::1",
    "http://localhost:port",
    "http://192.168.1.10",
    "https://studio.example.org.evil.example",
    "http://studio.example.org",
    "",
)
EVIL_HOSTS = (
    "evil.example",
    "evil.example:8600",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example#localhost",
    "evil.example/localhost",
    "evil.example?localhost",
    "localhost@evil.example",
    "evil.example@localhost",
    "[::2]",
    "[::1",
    "8.8.8.8",
    "0.0.0.0",
    "localhost:port",
    ".",
    "",
)
GOOD_HOSTS = ("localhost", "LOCALHOST:8600", "127.0.0.1", "127.0.0.1:1", "127.8.8.8", "[::1]", "[::1]:8600")
STUDIO = "https://studio.example.org"
KEY = "correct-horse"


async def test_a_foreign_host_name_is_refused_with_every_path_and_method(
    server: Server, client: Client, dial: Dial
) -> None:
    for path in PATHS:
        for method in METHODS:
            answer = await (await dial(server)).exchange(request(method, path, "Host: evil.example"))
            assert answer.status in ((403, 405) if method == "BREW" else (403,)), (method, path)
            assert "access-control-allow-origin" not in answer.headers
            if method not in ("HEAD", "BREW"):
                error_of(answer, 403, "host_not_allowed")
    await works(client)


async def test_hosts_that_only_look_local_are_refused(server: Server, client: Client, dial: Dial) -> None:
    wrong = {}
    for host in EVIL_HOSTS:
        wire = await dial(server)
        await wire.send(request("GET", "/v1/jobs", f"Host: {host}", "Connection: close"))
        first_line = (await wire.rest()).split(b"\r\n")[0]
        # What is no host name at all never comes as far as our own answer.
        if first_line.split(b" ")[1] not in (b"403", b"400"):
            wrong[host] = first_line
    assert wrong == {}


async def test_a_page_that_rebinds_its_own_name_is_refused(server: Server, dial: Dial) -> None:
    evil = ("Host: evil.example:8600", "Origin: http://evil.example:8600", "Sec-Fetch-Site: same-origin")
    for data in (submission(b'{"prompt":"x"}', *evil), request("GET", "/v1/jobs", *evil)):
        answer = await (await dial(server)).exchange(data)
        error_of(answer, 403)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.settings(allowed_hosts=("gpu.example.org",))
async def test_local_names_and_those_of_the_settings_are_let_in(server: Server, dial: Dial) -> None:
    for host in (*GOOD_HOSTS, "gpu.example.org", "GPU.example.org:443"):
        answer = await (await dial(server)).exchange(request("GET", "/v1/jobs", f"Host: {host}"))
        assert answer.status == 200, host
    for host in ("example.org", "x.gpu.example.org", "gpu.example.org.evil.example"):
        answer = await (await dial(server)).exchange(request("GET", "/v1/jobs", f"Host: {host}"))
        error_of(answer, 403)


@pytest.mark.settings(allowed_hosts=("gpu.example.org",))
async def test_a_page_of_the_workers_own_public_name_may_use_it(server: Server, dial: Dial) -> None:
    for host, origin in (
        ("gpu.example.org", "https://gpu.example.org"),
        ("gpu.example.org:8443", "https://gpu.example.org:8443"),
    ):
        answer = await (await dial(server)).exchange(
            request("GET", "/v1/jobs", f"Host: {host}", f"Origin: {origin}", "Sec-Fetch-Site: same-origin")
        )
        assert answer.status == 200
    answer = await (await dial(server)).exchange(
        request("GET", "/v1/jobs", "Host: gpu.example.org", "Origin: https://other.example.org")
    )
    error_of(answer, 403)


@pytest.mark.settings(cors_origins=(STUDIO,))
async def test_a_foreign_origin_is_refused_and_never_allowed_by_a_header(
    server: Server, client: Client, dial: Dial
) -> None:
    for origin in FOREIGN_ORIGINS:
        for data in (
            submission(b'{"prompt":"x"}', f"Origin: {origin}"),
            request("GET", f"/v1/jobs/{JOB}/stream", f"Origin: {origin}"),
            request("GET", "/v1/events", f"Origin: {origin}"),
            request("DELETE", f"/v1/jobs/{JOB}", f"Origin: {origin}"),
            request("GET", "/health", f"Origin: {origin}"),
            request("GET", "/nowhere", f"Origin: {origin}"),
            request("OPTIONS", "/v1/jobs", f"Origin: {origin}", "Access-Control-Request-Method: POST"),
        ):
            answer = await (await dial(server)).exchange(data)
            assert answer.status == 403, (origin, data)
            error_of(answer, 403, "origin_not_allowed")
            assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert (await client.http.get("/v1/jobs")).json()["jobs"] == []
    await works(client)


async def test_what_a_browser_marks_as_cross_site_is_refused_without_an_origin_too(client: Client) -> None:
    for path in PATHS:
        error_of(await client.http.get(path, headers={"Sec-Fetch-Site": "cross-site"}), 403)
    answer = await client.http.post("/v1/jobs", json={"prompt": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    error_of(answer, 403)
    for site in ("same-origin", "none"):
        assert (await client.http.get("/v1/jobs", headers={"Sec-Fetch-Site": site})).status_code == 200


@pytest.mark.settings(cors_origins=(STUDIO,))
async def test_pages_of_local_and_configured_origins_may_use_the_worker(client: Client) -> None:
    for origin in (*LOCAL_ORIGINS, STUDIO):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        answer = await client.http.post("/v1/jobs", json={"prompt": "x", "steps": 1}, headers=headers)
        assert answer.status_code == 200, origin
        assert answer.headers["access-control-allow-origin"] == origin
        assert "origin" in answer.headers["vary"].lower()
        stream = await client.http.get(answer.json()["sse_url"], headers=headers)
        assert stream.status_code == 200
        assert stream.headers["access-control-allow-origin"] == origin
        # A page can read why its request was refused.
        for refused in (
            await client.http.get("/nowhere", headers=headers),
            await client.http.post("/v1/jobs", json={}, headers=headers),
            await client.http.put("/v1/jobs", headers=headers),
        ):
            assert refused.status_code >= 400
            assert refused.headers["access-control-allow-origin"] == origin
            assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()


@pytest.mark.settings(cors_origins=(STUDIO,), api_key=KEY)
async def test_a_preflight_tells_what_a_page_may_send(client: Client) -> None:
    for origin in (*LOCAL_ORIGINS, STUDIO):
        for path, method in (
            ("/v1/jobs", "POST"),
            ("/v1/inference", "POST"),
            (f"/v1/jobs/{JOB}", "DELETE"),
            (f"/v1/jobs/{JOB}/stream", "GET"),
            ("/v1/events", "GET"),
        ):
            answer = await client.http.options(
                path,
                headers={
                    "Origin": origin,
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": "content-type, last-event-id, authorization, idempotency-key",
                },
            )
            assert (answer.status_code, answer.content) == (204, b"")
            headers = answer.headers
            assert headers["access-control-allow-origin"] == origin
            assert method in {word.strip() for word in headers["access-control-allow-methods"].split(",")}
            allowed = {word.strip() for word in headers["access-control-allow-headers"].lower().split(",")}
            assert {"content-type", "last-event-id", "authorization", "x-api-key", "idempotency-key"} <= allowed
            assert "origin" in headers["vary"].lower()
            assert int(headers["access-control-max-age"]) > 0


async def test_without_an_origin_there_are_no_cors_headers(client: Client) -> None:
    answer = await client.http.get("/health")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.settings(api_key=KEY)
async def test_without_the_key_only_health_ready_and_the_page_itself_are_answered(
    server: Server, client: Client, dial: Dial
) -> None:
    for path in PATHS:
        for method in METHODS:
            if method == "OPTIONS" or path in OPEN_PATHS:
                continue
            answer = await (await dial(server)).exchange(request(method, path))
            assert answer.status == 401 or (method == "BREW" and answer.status == 405), (method, path)
            if answer.status == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert KEY.encode() not in answer.body
                if method != "HEAD":
                    error_of(answer, 401, "invalid_api_key")
    for path in OPEN_PATHS:
        assert (await client.http.get(path)).status_code in (200, 503)


@pytest.mark.settings(api_key=KEY)
async def test_the_right_key_opens_and_no_other_does(server: Server, client: Client, dial: Dial) -> None:
    for right in (
        f"Authorization: Bearer {KEY}",
        f"authorization: bearer {KEY}",
        f"X-API-Key: {KEY}",
    ):
        answer = await (await dial(server)).exchange(submission(b'{"operation":"status"}', right))
        assert answer.status == 200, right
    for wrong in (
        "Authorization: Bearer",
        "Authorization: Bearer ",
        "Authorization: Bearer wrong",
        f"Authorization: Bearer {KEY}x",
        f"Authorization: Bearer {KEY[:-1]}",
        f"Authorization: Bearer {KEY.upper()}",
        f"Authorization: Basic {KEY}",
        f"Authorization: {KEY}",
        "X-API-Key: wrong",
        "X-API-Key:",
        "X-API-Key: \xff\xfe\xe9",
        "Authorization: Bearer \xe9\x80",
        f"Cookie: key={KEY}",
    ):
        answer = await (await dial(server)).exchange(submission(b'{"operation":"status"}', wrong))
        error_of(answer, 401, "invalid_api_key")
    error_of(await client.http.get(f"/v1/jobs?api_key={KEY}"), 401)


@pytest.mark.settings(api_key=KEY, max_body=1024)
async def test_a_stranger_is_not_told_what_is_here(server: Server, dial: Dial) -> None:
    # Neither whether a path or a job exists, nor what is wrong with a body.
    for data in (
        request("GET", "/nowhere"),
        request("GET", f"/v1/jobs/{JOB}"),
        submission(b"{"),
        request("POST", "/v1/jobs", "Content-Type: text/plain", body=b"x"),
    ):
        error_of(await (await dial(server)).exchange(data), 401)


def test_listening_beyond_this_machine_without_a_key_is_refused(make_server: MakeServer) -> None:
    for host in ("0.0.0.0", "::", ""):
        with pytest.raises(StartError, match="api_key"):
            make_server(host=host)


def test_listening_beyond_this_machine_with_a_key_needs_it(
    make_server: MakeServer, io_loop: IOLoop, dial: Dial
) -> None:
    server = make_server(host="0.0.0.0", api_key=KEY)

    async def ask(*headers: str) -> int:
        return (await (await dial(server)).exchange(request("GET", "/v1/jobs", *headers))).status

    assert io_loop.run_sync(lambda: ask()) == 401
    assert io_loop.run_sync(lambda: ask(f"X-API-Key: {KEY}")) == 200
    assert io_loop.run_sync(lambda: ask(f"X-API-Key: {KEY}", "Host: 192.0.2.7:8600")) == 200
    assert io_loop.run_sync(lambda: ask(f"X-API-Key: {KEY}", "Host: evil.example")) == 403


def test_who_trusts_the_network_can_say_so(make_server: MakeServer, io_loop: IOLoop, dial: Dial) -> None:
    server = make_server(host="0.0.0.0", no_auth=True)

    async def ask(*headers: str) -> Any:
        return (await (await dial(server)).exchange(request("GET", "/v1/jobs", *headers))).status

    assert io_loop.run_sync(lambda: ask()) == 200
    assert io_loop.run_sync(lambda: ask("Host: evil.example")) == 403
