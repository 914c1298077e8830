"""Bodies that are no request: what is refused, that every wrong field is named, and that nothing is stored."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx2

from rbee_sd.server import Server
from tests.conftest import Client
from tests.http.conftest import Dial
from tests.http.views import error_of, works, wrong_fields
from tests.http.wire import request

NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b"  \n",
    "malformed": b'{"prompt": "x"',
    "single quotes": b"{'prompt': 'x'}",
    "comment": b'{"prompt": "x"} // no',
    "trailing comma": b'{"prompt": "x",}',
    "trailing data": b'{"prompt": "x"} {"prompt": "y"}',
    "trailing NUL": b'{"prompt": "x"}\0',
    "UTF-16": '{"prompt": "x"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"prompt": "x"}'.encode("utf-16-le"),
    "UTF-32": '{"prompt": "x"}'.encode("utf-32"),
    "byte order mark": b'\xef\xbb\xbf{"prompt": "x"}',
    "Latin-1": b'{"prompt": "\xe9"}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "lone surrogate": rb'{"prompt": "\ud800"}',
    "lone low surrogate": rb'{"prompt": "a\udc00b"}',
    "line break in a string": b'{"prompt": "a\nb"}',
    "NaN": b'{"prompt": "x", "guidance_scale": NaN}',
    "Infinity": b'{"prompt": "x", "guidance_scale": Infinity}',
    "-Infinity": b'{"prompt": "x", "guidance_scale": -Infinity}',
    "1e400": b'{"prompt": "x", "guidance_scale": 1e400}',
    "-1e400": b'{"prompt": "x", "guidance_scale": -1e400}',
    "integer of 5,000 digits": b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    "float of 5,000 digits": b'{"prompt": "x", "guidance_scale": 1' + b"0" * 5000 + b".0}",
    "hexadecimal": b'{"prompt": "x", "seed": 0x10}',
    "leading zero": b'{"prompt": "x", "seed": 01}',
    "duplicate key": b'{"prompt": "x", "prompt": "y"}',
    "duplicate key, spelled differently": rb'{"prompt": "x", "\u0070rompt": "y"}',
    "duplicate key within": b'{"prompt": {"a": 1, "a": 2}}',
    "deep lists": b"[" * 500_000,
    "deep lists, closed": b"[" * 500_000 + b"]" * 500_000,
    "deep objects": b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
    "deep in a field": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": b'[{"prompt": "x"}]',
    "a text": b'"prompt"',
    "a number": b"7",
    "null": b"null",
    "pickle": b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
}

SIDES: tuple[Any, ...] = (7, 0, -8, 63, 65, 100, 8, 10**9, 64.0, "64", True, None, 2**70)
WRONG_FIELDS: tuple[tuple[str, Any], ...] = (
    ("prompt", ""),
    ("prompt", None),
    ("prompt", 7),
    ("prompt", ["x"]),
    ("prompt", {"text": "x"}),
    ("prompt", True),
    ("prompt", "a\0b"),
    ("prompt", "x" * 1_000_000),
    ("negative_prompt", None),
    ("negative_prompt", "a\0b"),
    ("negative_prompt", 1),
    *(("steps", value) for value in (0, -1, 20.0, 1.5, True, "20", None, 10**6, 2**63, 2**64, 10**30, [20])),
    *(("width", value) for value in SIDES),
    *(("height", value) for value in SIDES),
    *(("count", value) for value in (0, -1, 1.0, True, "1", None, 10**6)),
    *(("seed", value) for value in (-1, 1.0, True, "42", 2**63, 2**64, 10**30)),
    *(("guidance_scale", value) for value in (-1, -0.001, "7.5", True, 1e9, 1e308, [7.5])),
    *(("scheduler", value) for value in ("", "EULER", "unknown", 7, ["euler"], "e" * 300)),
    *(("on_disconnect", value) for value in ("", "stop", "CANCEL", True, None, 1)),
    *(("preview", value) for value in ("yes", 1, 0, None)),
    *(("priority", value) for value in (1.0, True, "1", 10**9, -(10**9))),
    *(("timeout", value) for value in (0, -1, "10", True, 1e300)),
    *(("worker_id", value) for value in (7, "w" * 10_000)),
    *(("hive_id", value) for value in ("", "LOCALHOST", 7, "127.0.0.1")),
    ("job_id", "job_00000000-0000-4000-8000-000000000000"),
    ("image", "aGVsbG8="),
    ("stepz", 20),
    ("__class__", "x"),
    ("постфикс", 1),
)

STRANGE_MODELS = (
    "../x",
    "/etc/passwd",
    "..\\x",
    "%2e%2e",
    "",
    ".",
    "..",
    "~",
    "~root",
    "x" * 300,
    "C:\\x",
    "file:///etc/passwd",
    "http://127.0.0.1:1/model",
    "\\\\host\\share",
    "fake/",
    "./fake",
    "FAKE",
    "demo",
    "fake\n",
    "org/model",
    "$HOME",
    "model.safetensors",
)


async def post(client: Client, body: bytes, **headers: str) -> httpx2.Response:
    """Submit bytes as they are."""
    return await client.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json", **headers})


async def stored(client: Client) -> list[dict[str, Any]]:
    """All jobs there are."""
    jobs: list[dict[str, Any]] = (await client.http.get("/v1/jobs")).json()["jobs"]
    return jobs


async def test_what_is_no_json_object_is_refused_and_nothing_is_stored(client: Client) -> None:
    for name, body in NOT_JSON.items():
        start = time.perf_counter()
        answer = await post(client, body)
        assert answer.status_code == 400, (name, answer.text[:300])
        error_of(answer, 400)
        assert time.perf_counter() - start < 1, name
        assert len(answer.content) < 2000, name
    assert await stored(client) == []
    await works(client)


async def test_a_deeply_nested_value_is_refused_at_every_depth(client: Client) -> None:
    wrong = {}
    for depth in (100, 253, 254, 255, 300, 500, 900, 1020, 1100, 5000):
        for value in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
            for field in (b"prompt", b"stepz", b"operation", b"steps"):
                answer = await post(client, b'{"%s": %s}' % (field, value))
                if answer.status_code != 400:
                    wrong[depth, value[:1], field] = answer.status_code
    assert wrong == {}
    assert await stored(client) == []


async def test_a_wrong_value_is_refused_with_its_field_and_nothing_is_stored(client: Client) -> None:
    for field, value in WRONG_FIELDS:
        body = json.dumps({"prompt": "x", field: value}).encode()
        answer = await post(client, body)
        assert answer.status_code == 400, (field, value, answer.text[:300])
        error = error_of(answer, 400)
        assert wrong_fields(error) == {field}, (field, value, answer.text[:300])
        assert error["param"] == field
        # What was sent is shown back shortened.
        assert len(answer.content) < 3000, field
        assert all(wrong["message"] and wrong["constraint"] for wrong in error["errors"])
    assert await stored(client) == []
    await works(client)


async def test_every_wrong_field_is_named_at_once(client: Client) -> None:
    body = {
        "prompt": None,
        "steps": True,
        "width": 7,
        "height": -8,
        "seed": 1.5,
        "guidance_scale": "high",
        "count": 0,
        "scheduler": "magic",
        "model": "../x",
        "on_disconnect": "explode",
        "stepz": 20,
        "priority": "first",
    }
    error = error_of(await client.http.post("/v1/jobs", json=body), 400, "invalid_request")
    assert wrong_fields(error) == set(body)
    for field in body:
        assert field in error["message"]
    error = error_of(await client.http.post("/v1/jobs", json={"operation": "image_generation", "steps": 0}), 400)
    assert wrong_fields(error) == {"prompt", "steps"}
    error = error_of(await client.http.post("/v1/jobs", json={"operation": "status", "prompt": "x", "steps": 1}), 400)
    assert wrong_fields(error) == {"prompt", "steps"}


async def test_work_over_the_budget_is_refused_though_each_field_is_within_bounds(client: Client) -> None:
    for body in (
        {"width": 2048, "height": 2048, "steps": 150, "count": 8},
        {"width": 2048, "height": 2048, "steps": 150, "count": 2},
        {"width": 2048, "height": 2048, "count": 8, "steps": 40},
    ):
        error = error_of(await client.http.post("/v1/jobs", json={"prompt": "x", **body}), 400)
        assert error["errors"], "the error names what is wrong"
        assert "steps" in error["message"]
    assert await stored(client) == []


async def test_a_strange_model_is_answered_like_an_unknown_one(client: Client) -> None:
    unknown = error_of(await client.http.post("/v1/jobs", json={"prompt": "x", "model": "no-such-model"}), 400)
    for name in STRANGE_MODELS:
        answer = await client.http.post("/v1/jobs", json={"prompt": "x", "model": name})
        error = error_of(answer, 400)
        assert {**error, "request_id": "", "errors": []} == {**unknown, "request_id": "", "errors": []}, name
    assert await stored(client) == []


async def test_what_is_not_sent_as_json_is_415(client: Client) -> None:
    body = b'{"prompt": "x"}'
    for content_type in (
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/jsonp",
        "application/json-seq",
        "application/jso",
        "text/json",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "",
        "json",
        "*/*",
    ):
        for path in ("/v1/jobs", "/v1/inference"):
            answer = await client.http.post(path, content=body, headers={"Content-Type": content_type})
            error_of(answer, 415)
    for content_type in ("application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
        answer = await client.http.post("/v1/jobs", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 200, content_type


async def test_a_body_without_a_type_or_in_a_form_is_415(server: Server, client: Client, dial: Dial) -> None:
    error_of(await (await dial(server)).exchange(request("POST", "/v1/jobs", body=b'{"prompt":"x"}')), 415)
    error_of(await client.http.post("/v1/jobs", data={"prompt": "x"}), 415)
    error_of(await client.http.post("/v1/jobs", files={"prompt": b"x"}), 415)
    assert await stored(client) == []


async def test_a_compressed_body_is_415(client: Client) -> None:
    body = gzip.compress(b'{"prompt": "x"}')
    for encoding in ("gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "x-gzip"):
        error_of(await post(client, body, **{"Content-Encoding": encoding}), 415)
    bomb = gzip.compress(b" " * 50_000_000)
    error_of(await post(client, bomb, **{"Content-Encoding": "gzip"}), 415)
    assert (await post(client, b'{"prompt":"x","steps":1}', **{"Content-Encoding": "identity"})).status_code == 200
    await works(client)


async def test_a_multitude_of_fields_is_refused_before_anybody_has_to_wait(server: Server, client: Client) -> None:
    # As many as a body may have, some twenty bytes each.
    many = min(server.settings.max_body, 4_000_000) // 20
    twice = b"{" + b",".join(b'"k%d":1' % n for n in range(20_000)) + b',"z":1,"z":2}'
    unknown = json.dumps({"prompt": "x", **{f"k{n}": n for n in range(many)}}).encode()
    nested = json.dumps({"prompt": {f"k{n}": n for n in range(many)}}).encode()
    slow = {}
    for name, body in (("twice", twice), ("unknown", unknown), ("nested", nested)):
        start = time.perf_counter()
        error_of(await post(client, body), 400)
        if time.perf_counter() - start > 1:
            slow[name] = time.perf_counter() - start
    assert slow == {}
    await works(client)


async def test_a_refusal_is_short_however_much_was_wrong(client: Client) -> None:
    body = json.dumps({"prompt": "x", **{f"{n}" + "k" * 1000: "v" * 1000 for n in range(400)}}).encode()
    answer = await post(client, body)
    error_of(answer, 400)
    assert len(answer.content) < len(body)


async def test_prompts_with_control_characters_are_kept_as_they_are(client: Client) -> None:
    prompt = "a\r\n\t\x1b[31m\x7f\x85 b"
    job_id = await client.submit(prompt, steps=1)
    view = await client.ended(job_id)
    assert (view["state"], view["request"]["prompt"]) == ("completed", prompt)
