"""Submitting: the dual call, what is left out, repeats, the bounded queue and its order."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from typing import Any

import httpx2
import pytest

from rbee_sd.jobs.job import State
from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually, known
from tests.http.views import TERMINAL, error_of, events, frames, raw_stream, running, steps, works, wrong_fields

JOB_ID = re.compile(r"job_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
OTHER_OPERATIONS = (
    *("image_transform", "image_inpaint", "infer"),
    *(f"model_{verb}" for verb in ("download", "list", "get", "delete", "load", "unload")),
    *(f"worker_{verb}" for verb in ("spawn", "list", "get", "delete")),
    *(f"hive_{verb}" for verb in ("start", "stop", "list", "get", "create", "update", "delete")),
)


async def post(client: Client, path: str = "/v1/jobs", key: str | None = None, **fields: Any) -> httpx2.Response:
    """Submit, whatever the answer."""
    return await client.http.post(path, json=fields, headers={} if key is None else {"Idempotency-Key": key})


async def ids(client: Client) -> list[str]:
    """All jobs, newest first."""
    return [job["job_id"] for job in (await client.http.get("/v1/jobs")).json()["jobs"]]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/inference"])
async def test_a_job_is_answered_at_once_with_its_id_and_a_stream_that_works(client: Client, path: str) -> None:
    answer = await post(client, path, prompt="a red circle", steps=3)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert JOB_ID.fullmatch(body["job_id"])
    assert body["sse_url"] == f"{path}/{body['job_id']}/stream"
    assert (body["state"], body["position"]) == ("queued", 0)
    stream = await client.http.get(body["sse_url"])
    assert steps(stream.content) == [1, 2, 3]
    view = (await client.http.get(f"{path}/{body['job_id']}/status")).json()
    assert (view["job_id"], view["state"]) == (body["job_id"], "completed")


async def test_both_names_of_the_dual_call_reach_the_same_jobs(client: Client) -> None:
    job_id = (await post(client, "/v1/inference", prompt="x", steps=2)).json()["job_id"]
    older = (await client.http.get(f"/v1/inference/{job_id}/stream")).content
    newer = (await client.http.get(f"/v1/jobs/{job_id}/stream")).content
    assert events(older) == events(newer)


async def test_a_prompt_alone_is_an_image_generation_with_what_the_model_wants(client: Client) -> None:
    await client.ready()
    job_id = await client.submit("only a prompt")
    started, *_ = [event.data for event in events(await raw_stream(client, job_id)) if event.name == "started"]
    assert (started["total"], started["width"], started["height"]) == (20, 64, 64)
    assert started["guidance_scale"] == 7.5
    view = await client.job(job_id)
    assert view["operation"] == "image_generation"
    assert view["request"]["prompt"] == "only a prompt"
    assert isinstance(view["seed"], int)
    assert view["total"] == view["step"] == 20
    assert [image["index"] for image in view["images"]] == [0]


async def test_jobs_without_a_seed_get_different_ones(client: Client) -> None:
    jobs = [await client.ended(await client.submit(steps=1)) for _ in range(2)]
    assert jobs[0]["seed"] != jobs[1]["seed"]


async def test_every_field_of_the_contract_is_accepted_and_shown_again(client: Client) -> None:
    fields: dict[str, Any] = {
        "operation": "image_generation",
        "prompt": "a red circle on a blue background",
        "negative_prompt": "blurry",
        "steps": 3,
        "guidance_scale": 7.5,
        "seed": 42,
        "width": 128,
        "height": 72,
        "scheduler": "euler",
        "count": 2,
        "model": "fake",
        "on_disconnect": "cancel",
        "preview": True,
        "priority": 0,
        "timeout": 30.0,
    }
    answer = await post(client, **fields)
    assert answer.status_code == 200, answer.text
    view = await client.ended(answer.json()["job_id"])
    assert view["state"] == "completed"
    assert view["request"] == fields
    assert [image["seed"] for image in view["images"]] == [42, 43]


async def test_what_older_clients_send_with_every_operation_is_accepted(client: Client) -> None:
    answer = await post(client, prompt="x", steps=1, hive_id="localhost", worker_id="worker-7")
    assert answer.status_code == 200, answer.text
    answer = await post(client, operation="status", hive_id="localhost", worker_id="worker-7")
    assert answer.status_code == 200, answer.text
    answer = await post(client, prompt="x", hive_id="another-box")
    assert wrong_fields(error_of(answer, 400)) == {"hive_id"}


async def test_status_is_a_job_with_a_stream_and_its_result_in_complete(client: Client) -> None:
    await client.ready()
    answer = await post(client, operation="status")
    assert answer.status_code == 200
    assert JOB_ID.fullmatch(answer.json()["job_id"])
    told = frames((await client.http.get(answer.json()["sse_url"])).content)
    assert [frame.name for frame in told] == ["retry", "queued", "complete", "done"]
    result = told[2].data["result"]
    assert result["ready"] is True
    assert result["model"] == "fake"
    engine = result["engine"]
    assert set(engine) == {"pid", "starts", "jobs", "forwards", "rows", "worked", "elapsed", "memory"}
    assert (engine["jobs"], engine["forwards"], engine["rows"], engine["worked"]) == (0, 0, 0, 0)
    assert (await client.job(answer.json()["job_id"]))["result"] == result


async def test_an_operation_that_is_not_in_is_refused_and_those_that_are_in_are_named(client: Client) -> None:
    known = (await client.http.get("/v1/capabilities")).json()["operations"]
    assert {"image_generation", "status"} <= set(known)
    for name in ("dance", "", "IMAGE_GENERATION", *OTHER_OPERATIONS):
        if name not in known:
            error = error_of(await post(client, operation=name), 400, "unsupported_operation")
            assert all(operation in error["message"] for operation in known), name
    for odd in (7, True, ["status"], {"status": 1}, 1.5):
        error_of(await post(client, operation=odd, prompt="x"), 400)
    assert (await client.http.get("/v1/jobs")).json()["jobs"] == []


async def test_neither_operation_nor_prompt_is_an_error_that_says_what_to_send(client: Client) -> None:
    error = error_of(await post(client), 400)
    assert wrong_fields(error) == {"operation"}
    assert "image_generation" in error["message"]


async def test_an_id_made_by_the_client_is_refused(client: Client) -> None:
    for fields in ({"prompt": "x"}, {"operation": "status"}):
        answer = await post(client, job_id="job_00000000-0000-4000-8000-000000000000", **fields)
        assert wrong_fields(error_of(answer, 400)) == {"job_id"}


async def test_jobs_are_accepted_while_the_engine_is_not_there_yet_and_run_later(client: Client) -> None:
    # The server has only just begun to listen: the engine is a process that is still starting.
    job_id = await client.submit(steps=2)
    assert steps(await raw_stream(client, job_id)) == [1, 2]


async def test_repeats_with_one_idempotency_key_are_one_job(client: Client) -> None:
    first = await post(client, key="k-1", prompt="x", steps=2, seed=1)
    again = await client.http.post(
        "/v1/jobs",
        content=b'{ "seed": 1,"steps":2, "prompt": "x" }',
        headers={"Content-Type": "application/json", "Idempotency-Key": "k-1"},
    )
    other = await post(client, key="k-2", prompt="x", steps=2, seed=1)
    assert first.json()["job_id"] == again.json()["job_id"] != other.json()["job_id"]
    await client.ended(first.json()["job_id"])
    late = await post(client, key="k-1", prompt="x", steps=2, seed=1)
    assert (late.status_code, late.json()["job_id"]) == (200, first.json()["job_id"])
    assert len((await client.http.get("/v1/jobs")).json()["jobs"]) == 2


async def test_another_body_under_a_used_idempotency_key_is_a_conflict(client: Client) -> None:
    await post(client, key="k", prompt="x", steps=2)
    error_of(await post(client, key="k", prompt="x", steps=3), 409)
    assert len((await client.http.get("/v1/jobs")).json()["jobs"]) == 1


async def test_a_refused_request_does_not_use_its_idempotency_key_up(client: Client) -> None:
    error_of(await post(client, key="k", prompt="x", steps=0), 400)
    assert (await post(client, key="k", prompt="x", steps=1)).status_code == 200


async def test_an_idempotency_key_that_cannot_be_one_is_refused(client: Client) -> None:
    for key in ("", "a b", "x" * 256):
        assert wrong_fields(error_of(await post(client, key=key, prompt="x"), 400)) == {"Idempotency-Key"}


@pytest.mark.settings(queue_size=2)
async def test_a_full_queue_refuses_at_once_and_stores_nothing(client: Client, faults: Faults) -> None:
    faults.on("hang")
    await running(client, await client.submit("runs"))
    waiting = [await client.submit(f"waits {n}") for n in range(2)]
    before = await ids(client)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        answer = await post(client, prompt="one too many", key="kept")
        times.append(time.perf_counter() - start)
        error_of(answer, 503, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
    assert min(times) < 0.01
    assert await ids(client) == before
    # What needs no engine is not held up, and a place that becomes free is taken at once.
    assert (await post(client, operation="status")).status_code == 200
    await client.http.delete(f"/v1/jobs/{waiting[0]}")
    last = await post(client, prompt="one too many", key="kept")
    assert last.status_code == 200
    faults.off("hang")
    assert (await client.ended(last.json()["job_id"]))["state"] == "completed"
    await works(client)


async def test_higher_priority_runs_first_and_equals_run_in_turn(client: Client, faults: Faults) -> None:
    faults.on("hang")
    # Above the others, which would reach the engine otherwise.
    first = await client.submit("first", steps=1, priority=10)
    await running(client, first)
    jobs: dict[str, str] = {}
    for name, priority, position in (("b", 0, 0), ("c", 5, 0), ("d", 5, 1), ("e", -1, 3), ("f", 0, 3)):
        body = (await post(client, prompt=name, priority=priority, steps=1)).json()
        assert body["position"] == position, name
        jobs[name] = body["job_id"]
    views = {name: await client.job(job_id) for name, job_id in jobs.items()}
    assert {name: view["position"] for name, view in views.items()} == {"c": 0, "d": 1, "b": 2, "f": 3, "e": 4}
    assert (await client.job(first))["position"] is None
    faults.off("hang")
    ended = {name: await client.ended(job_id) for name, job_id in jobs.items()}
    assert sorted(ended, key=lambda name: float(ended[name]["started_at"])) == ["c", "d", "b", "f", "e"]


async def test_clients_behind_a_proxy_take_turns(server: Server, client: Client, faults: Faults) -> None:
    faults.on("hang")
    await running(client, await client.submit("first", steps=1))
    # The place that is kept for another client.
    proxied = {"X-Forwarded-For": "203.0.113.9"}
    other = (await client.http.post("/v1/jobs", json={"prompt": "second", "steps": 1}, headers=proxied)).json()[
        "job_id"
    ]
    await eventually(lambda: known(server, other).state is State.RUNNING)
    jobs: dict[str, str] = {}
    for name, who, position in (("a1", "a", 0), ("a2", "a", 1), ("a3", "a", 2), ("b1", "b", 1), ("b2", "b", 3)):
        address = {"a": "203.0.113.7", "b": "203.0.113.8"}[who]
        answer = await client.http.post("/v1/jobs", json={"prompt": name}, headers={"X-Forwarded-For": address})
        assert answer.json()["position"] == position, name
        jobs[name] = answer.json()["job_id"]
        assert known(server, jobs[name]).order.owner == address
    assert [job.id for job in server.registry.queue] == [jobs[name] for name in ("a1", "b1", "a2", "b2", "a3")]
    # Where a client is from is nobody else's business.
    assert "203.0.113" not in json.dumps(await client.job(jobs["a1"]))
    assert known(server, await client.submit()).order.owner == "127.0.0.1"
    for job_id in [job.id for job in server.registry.queue]:
        await client.http.delete(f"/v1/jobs/{job_id}")
    faults.off("hang")


async def test_ten_concurrent_jobs_each_tell_every_step_and_bring_one_image(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.002")

    async def one(number: int) -> None:
        total = 5 + number
        job_id = await client.submit(f"job {number}", steps=total, seed=number)
        raw = await raw_stream(client, job_id)
        assert steps(raw) == list(range(1, total + 1))
        told = events(raw)
        assert all(event.data["job_id"] == job_id for event in told)
        assert [event.name for event in told if event.name in TERMINAL] == ["complete"]
        complete = told[-1].data
        assert len(complete["images"]) == 1
        png = (await client.http.get(complete["images"][0]["url"])).content
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert base64.b64decode(complete["image_base64"], validate=True) == png

    await asyncio.gather(*(one(number) for number in range(10)))


async def test_the_longest_prompt_in_any_script_comes_back_to_the_byte(client: Client) -> None:
    prompt = ("🎨👩‍🚀" + "שלום مرحبا" + "\u202e\u2066é\u0301\ufeff\U0010ffff") * 200
    prompt = prompt[:4000]
    job_id = await client.submit(prompt, negative_prompt=prompt, steps=1)
    view = await client.ended(job_id)
    assert view["request"]["prompt"] == view["request"]["negative_prompt"] == prompt
    (listed,) = (await client.http.get("/v1/jobs")).json()["jobs"]
    assert listed["request"]["prompt"] == prompt


async def test_one_seed_makes_one_image(client: Client) -> None:
    etags = []
    for seed in (7, 7, 8):
        job_id = await client.submit(steps=1, seed=seed)
        await client.ended(job_id)
        etags.append((await client.http.get(f"/v1/jobs/{job_id}/image")).headers["etag"])
    assert etags[0] == etags[1] != etags[2]
