"""The package `openai` and what goes wrong: errors in its shape, and retries that make no job twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from tornado.ioloop import IOLoop

from rbee_sd import server as composition
from rbee_sd.server import Server
from tests.clients.conftest import MakeRelay
from tests.conftest import Client, Faults, MakeServer, eventually
from tests.http.views import forwards
from tests.pictures import picture

LONG = 150
KEY = "rbee_0123456789"
JSON = {"Content-Type": "application/json"}
AGAIN = {"X-Stainless-Retry-Count": "1"}
Call = Callable[..., AsyncOpenAI]


@pytest.fixture
def sdk_of(io_loop: IOLoop) -> Iterator[Call]:
    """Clients, closed with the test, that retry twice as the package does: `sdk_of(url, max_retries=0)`."""
    made: list[AsyncOpenAI] = []

    def make(url: str, **options: Any) -> AsyncOpenAI:
        made.append(AsyncOpenAI(base_url=f"{url}/v1", **{"api_key": "any", **options}))
        return made[-1]

    yield make
    for each in made:
        io_loop.run_sync(each.close)


@pytest.fixture
def small(make_server: MakeServer) -> Server:
    """A worker with little room, for whoever has the key."""
    return make_server(queue_size=1, max_body=4096, api_key=KEY, disconnect_grace=0.3)


@pytest.fixture
def counted(small: Server, connect: Callable[[Server], Client]) -> Client:
    """A client of it."""
    client = connect(small)
    client.http.headers["Authorization"] = f"Bearer {KEY}"
    return client


def error_in(answer: httpx2.Response, status: int, code: str, *, final: bool = True) -> dict[str, Any]:
    """The error of an answer, which must have OpenAI's shape, and say whether to try again."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert (answer.headers.get("x-should-retry") == "false") == final
    assert final or int(answer.headers["retry-after"]) >= 1
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    error: dict[str, Any] = body["error"]
    return error


async def jobs(client: Client) -> list[dict[str, Any]]:
    """Every job that was made."""
    found: list[dict[str, Any]] = (await client.http.get("/v1/jobs")).json()["jobs"]
    return found


GENERATIONS = "/v1/images/generations"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "prompt"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": "a", "stepps": 3}, "unknown_parameter", "stepps"),
        ({"prompt": "a", "steps": 0}, "invalid_value", "steps"),
        ({"prompt": "a", "n": 11}, "invalid_value", "n"),
        ({"prompt": "a", "n": 9}, "invalid_value", "n"),
        ({"prompt": "a", "size": "large"}, "invalid_value", "size"),
        ({"prompt": "a", "size": "65x65"}, "invalid_value", "size"),
        ({"prompt": "a", "size": "99999x99999"}, "invalid_value", "size"),
        ({"prompt": "a", "quality": "best"}, "invalid_value", "quality"),
        ({"prompt": "a", "background": "transparent"}, "invalid_value", "background"),
        ({"prompt": "a", "output_format": "gif"}, "invalid_value", "output_format"),
        ({"prompt": "a", "output_format": "svg", "svg": {"model": "x"}}, "invalid_value", "output_format"),
        ({"prompt": "a", "output_compression": 50}, "invalid_value", "output_compression"),
        ({"prompt": "a", "partial_images": 4}, "invalid_value", "partial_images"),
        ({"prompt": "a", "frame_count": 3}, "unknown_parameter", "frame_count"),
        ({"prompt": "a", "stream": True, "response_format": "url"}, "invalid_value", "response_format"),
        ({"prompt": "a", "loras": [{"name": "none"}]}, "invalid_value", "loras.0.name"),
        ({"prompt": "a", "loras": "["}, "invalid_value", "loras"),
        ({"prompt": "a", "seed": -1}, "invalid_value", "seed"),
        ({"prompt": "a", "image": "aGVsbG8="}, "unknown_parameter", "image"),
        ({"prompt": "a", "size": "2048x2048", "steps": 150, "n": 8}, "invalid_value", None),
    ],
)
async def test_what_is_wrong_with_a_field_is_told_under_its_name(
    client: Client, fields: dict[str, Any], code: str, param: str | None
) -> None:
    error = error_in(await client.http.post(GENERATIONS, json=fields), 400, code)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert await jobs(client) == []


IMAGE = picture("PNG", (64, 64))
FORM = {"prompt": (None, "a"), "image": ("upload", IMAGE)}


def form(*parts: bytes, boundary: bytes = b"x") -> dict[str, Any]:
    """A form as it goes over the wire, made of these parts, headers and all."""
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts) + b"--%s--\r\n" % boundary
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}}


def part(name: str, value: bytes, more: str = "") -> bytes:
    """One part of a form."""
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value


async def test_a_form_may_be_written_in_more_ways_than_one(client: Client) -> None:
    file = part("image", IMAGE)
    for sent in (
        {"files": FORM},
        {"files": {"prompt": (None, "a"), "image[]": ("a.png", IMAGE)}},
        form(part("prompt", b"a"), file),
        form(part("prompt", "蓝".encode()), part("n", b"2"), part("stream", b"false"), part("loras", b"[]"), file),
        form(file, part("prompt", b"a"), boundary=b"'()+_,-./:=? a"),
    ):
        answer = await client.http.post("/v1/images/edits", **sent)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"files": {"prompt": (None, "a")}}, 400, "missing_required_parameter"),
        ({"files": FORM | {"mask": ("m", picture("PNG", (72, 64), mode="RGBA"))}}, 400, "invalid_value"),
        ({"files": FORM | {"image": ("upload", b"GIF89a" + b"\0" * 50)}}, 400, "invalid_value"),
        ({"files": FORM | {"markup": ("upload", IMAGE)}}, 400, "unknown_parameter"),
        ({"files": FORM | {"n": (None, "two")}}, 400, "invalid_value"),
        ({"files": FORM | {"loras": (None, "watercolour")}}, 400, "invalid_value"),
        ({"files": FORM | {"seed": (None, "9" * 30)}}, 400, "invalid_value"),
        ({"files": [("prompt", (None, "a")), ("prompt", (None, "b")), ("image", ("u", IMAGE))]}, 400, "invalid_value"),
        (form(part("prompt", b"\xff"), part("image", IMAGE)), 400, "invalid_value"),
        (form(*[part(str(number), b"") for number in range(65)]), 400, "invalid_form"),
        (form(part("prompt", b"a", "; x=" + "y" * 5000)), 400, "invalid_form"),
        (form(b"no headers"), 400, "invalid_form"),
        (form(b"Content-Disposition: form-data\r\n\r\nno name"), 400, "invalid_form"),
        (form(b"\xff\xff: x\r\n\r\nx"), 400, "invalid_form"),
        ({"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "invalid_form"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 415, "not_a_form"),
        (
            {"content": b"x", "headers": {"Content-Type": f"multipart/form-data; boundary={'y' * 500}"}},
            415,
            "not_a_form",
        ),
        ({"json": {"prompt": "a"}}, 415, "not_a_form"),
        ({"files": FORM, "headers": {"Content-Encoding": "gzip"}}, 415, "encoded_body"),
    ],
)
async def test_a_form_that_is_wrong_is_refused_with_what_is_wrong(
    client: Client, sent: dict[str, Any], status: int, code: str
) -> None:
    error_in(await client.http.post("/v1/images/edits", **sent), status, code)
    assert await jobs(client) == []


async def test_every_refusal_has_the_shape_of_the_dialect(counted: Client, small: Server) -> None:
    post = counted.http.post
    good = {"prompt": "a"}
    error_in(await post(GENERATIONS, content=b"{", headers=JSON), 400, "invalid_json")
    error_in(await post(GENERATIONS, content=b"prompt=a"), 415, "not_json")
    error_in(await post(GENERATIONS, json=good | {"prompt": "a" * 5000}), 413, "body_too_large")
    error_in(await post(GENERATIONS, json=good, headers={"Authorization": "Bearer no"}), 401, "invalid_api_key")
    error_in(await post(GENERATIONS, json=good, headers={"Host": "example.org"}), 403, "host_not_allowed")
    error_in(await post(GENERATIONS, json=good, headers={"Origin": "https://x.org"}), 403, "origin_not_allowed")
    error_in(await post(GENERATIONS, json=good, headers={"Idempotency-Key": "a b"}), 400, "invalid_value")
    error_in(await counted.http.get("/v1/models/other"), 404, "model_not_found")
    error_in(await counted.http.get("/v1/models/"), 404, "not_found")
    error_in(await post("/v1/images/nothing", json=good), 404, "not_found")
    for path in (GENERATIONS, "/v1/images/edits"):
        answer = await counted.http.get(path)
        assert answer.headers["allow"] == "POST, OPTIONS"
        error_in(answer, 405, "method_not_allowed")
    assert small.registry.counts()["completed"] == 0


async def test_the_package_raises_what_its_users_catch(small: Server, faults: Faults, sdk_of: Call) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await sdk_of(small.url, api_key="wrong").images.generate(prompt="a")
    assert (refused.value.code, refused.value.request_id is not None) == ("invalid_api_key", True)
    sdk = sdk_of(small.url, api_key=KEY)
    with pytest.raises(openai.BadRequestError) as wrong:
        await sdk.images.generate(prompt="a", n=10)
    assert (wrong.value.code, wrong.value.param, wrong.value.type) == ("invalid_value", "n", "invalid_request_error")
    faults.on("oom", "once")
    with pytest.raises(openai.InternalServerError) as failed:
        await sdk.images.generate(prompt="a")
    assert failed.value.code == "out_of_memory"
    # It was not sent again.
    assert small.registry.counts()["failed"] == 1
    assert (await sdk.images.generate(prompt="a")).data


async def test_a_full_queue_is_what_the_package_waits_for(
    small: Server, counted: Client, faults: Faults, sdk_of: Call
) -> None:
    await counted.ready()
    faults.on("hang")
    await counted.submit(steps=2)
    await eventually(lambda: small.registry.counts()["running"] == 1)
    await counted.submit(steps=2)
    error_in(await counted.http.post(GENERATIONS, json={"prompt": "a"}), 429, "queue_full", final=False)
    with pytest.raises(openai.RateLimitError) as full:
        await sdk_of(small.url, api_key=KEY, max_retries=0).images.generate(prompt="a")
    assert full.value.code == "queue_full"
    assert len(await jobs(counted)) == 2
    faults.off("hang")


async def test_a_job_whose_engine_died_twice_is_not_sent_a_third_time(
    server: Server, client: Client, faults: Faults, sdk_of: Call
) -> None:
    faults.on("crash")
    with pytest.raises(openai.InternalServerError) as died:
        await sdk_of(server.url).images.generate(prompt="a")
    faults.off("crash")
    assert died.value.code == "engine_crashed"
    (job,) = await jobs(client)
    assert (job["state"], job["attempt"]) == ("failed", 2)


async def test_a_job_that_somebody_cancels_is_not_sent_again(
    server: Server, client: Client, faults: Faults, sdk_of: Call
) -> None:
    faults.on("hang")
    call = asyncio.ensure_future(sdk_of(server.url).images.generate(prompt="a"))
    (job,) = await eventually(server.registry.live)
    await client.http.delete(f"/v1/jobs/{job.id}")
    faults.off("hang")
    with pytest.raises(openai.ConflictError) as gone:
        await call
    assert gone.value.code == "job_cancelled"
    assert len(await jobs(client)) == 1


async def test_a_page_of_ones_own_may_use_the_package(client: Client) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-stainless-retry-count, X-Stainless-Lang, x-evil",
    }
    answer = await client.http.options(GENERATIONS, headers=headers)
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "x-stainless-retry-count", "x-stainless-lang"} <= set(allowed)
    assert "x-evil" not in allowed
    assert "X-Should-Retry" in answer.headers["access-control-expose-headers"]


# Requests that are sent again.


@pytest.fixture
def patient(make_server: MakeServer, faults: Faults) -> Server:
    """A worker whose grace is as long as the package waits before it tries again, at most."""
    faults.on("slow", "0.02")
    return make_server(disconnect_grace=5.0)


async def test_a_request_that_is_sent_again_after_its_connection_broke_finds_its_job(
    patient: Server, connect: Callable[[Server], Client], relayed: MakeRelay, sdk_of: Call
) -> None:
    client = connect(patient)
    await client.ready()
    relay, address = await relayed(patient)
    sdk = sdk_of(address)
    call = asyncio.ensure_future(sdk.images.generate(prompt="a", extra_body={"steps": 100}))
    await eventually(lambda: patient.registry.counts()["running"] == 1)
    relay.cut()
    await eventually(lambda: patient.watcher.total == 0)
    answer = await call
    (job,) = await jobs(client)
    assert job["state"] == "completed"
    assert job["job_id"] == getattr(answer, "job_id", None)
    assert relay.connections >= 2
    assert await forwards(client) == 100


async def test_of_two_equal_requests_only_the_one_that_lost_its_job_finds_it(
    patient: Server, connect: Callable[[Server], Client]
) -> None:
    client = connect(patient)
    await client.ready()
    body = {"prompt": "a", "steps": 60, "seed": 1}
    stays = asyncio.ensure_future(client.http.post(GENERATIONS, json=body))
    (first,) = await eventually(patient.registry.live)
    # Refused before, perhaps, but it has no job to come back to.
    other = asyncio.ensure_future(client.http.post(GENERATIONS, json=body, headers=AGAIN))
    await eventually(lambda: len(patient.registry.live()) == 2)
    other.cancel()
    await eventually(lambda: patient.watcher.total == 1)
    for changed in (body | {"seed": 2}, body | {"n": 2}):
        answer = await client.http.post(GENERATIONS, json=changed | {"steps": 1}, headers=AGAIN)
        assert answer.status_code == 200
    assert len(await jobs(client)) == 4
    again = (await client.http.post(GENERATIONS, json=body, headers=AGAIN)).json()
    assert again["job_id"] != first.id
    assert (await stays).json()["job_id"] == first.id
    assert len(await jobs(client)) == 4


@pytest.fixture
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A state folder for one worker after another."""
    return str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def interrupted(
    io_loop: IOLoop,
    make_server: MakeServer,
    connect: Callable[[Server], Client],
    faults: Faults,
    state_dir: str,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Server, dict[str, Any]]:
    """A worker that was started again while a request waited, and what that request was told."""
    monkeypatch.setattr(composition, "RETRY_TIMEOUT", 1.5)
    faults.on("slow", "0.02")
    first = make_server(state_dir=state_dir)
    client = connect(first)
    told: dict[str, Any] = {}

    async def ask_and_stop() -> None:
        call = asyncio.ensure_future(client.http.post(GENERATIONS, json={"prompt": "a", "steps": 30, "seed": 9}))
        await eventually(lambda: first.registry.counts()["running"] == 1)
        await first.drain()
        answer = await call
        told.update(error_in(answer, 503, "draining", final=False))
        await first.stop()

    io_loop.run_sync(ask_and_stop)
    return make_server(state_dir=state_dir), told


async def test_a_request_that_is_sent_again_finds_its_job_also_after_a_restart(
    interrupted: tuple[Server, dict[str, Any]], connect: Callable[[Server], Client]
) -> None:
    client = connect(interrupted[0])
    body = {"prompt": "a", "steps": 30, "seed": 9}
    answer = await client.http.post(GENERATIONS, json=body, headers=AGAIN)
    assert answer.status_code == 200
    (job,) = await jobs(client)
    assert (job["job_id"], job["state"]) == (answer.json()["job_id"], "completed")


async def test_a_job_whose_request_is_not_sent_again_after_a_restart_is_cancelled(
    interrupted: tuple[Server, dict[str, Any]], connect: Callable[[Server], Client], faults: Faults
) -> None:
    faults.on("slow", "0.2")
    client = connect(interrupted[0])
    (job,) = await jobs(client)
    assert (await client.ended(job["job_id"]))["state"] == "cancelled"


async def test_an_idempotency_key_means_the_same_images(client: Client) -> None:
    headers = {"Idempotency-Key": "mine"}
    answers = [
        (await client.http.post(GENERATIONS, json={"prompt": "a", "steps": 2}, headers=headers)).json()
        for _ in range(2)
    ]
    assert json.dumps(answers[0]) == json.dumps(answers[1])
    assert len(await jobs(client)) == 1
