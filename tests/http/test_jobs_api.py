"""Looking at jobs and ending them: list, paging, views, cancel, forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.views import (
    error_of,
    events,
    forwards,
    heard,
    listening,
    raw_stream,
    running,
    status,
    works,
    wrong_fields,
)

NOBODY = "job_00000000-0000-4000-8000-000000000000"
STRANGE_IDS = ("job_1", "x", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%0d%0aSet-Cookie:%20a=b", "j" * 3000, "%00", "~")
OF_A_JOB = ("", "/status", "/stream", "/image", "/images/0")


async def listed(client: Client, **params: Any) -> dict[str, Any]:
    """One page of the list."""
    answer = await client.http.get("/v1/jobs", params=params)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    """The ids on a page."""
    return [job["job_id"] for job in page["jobs"]]


async def test_jobs_are_listed_newest_first(client: Client) -> None:
    assert await listed(client) == {"jobs": [], "next": None}
    made = [await client.submit(f"{n}", steps=1) for n in range(3)]
    page = await listed(client)
    assert ids(page) == made[::-1]
    assert page["next"] is None
    await client.ended(made[-1])
    assert (await listed(client))["jobs"][0] == await client.job(made[-1])


async def test_pages_together_hold_every_job_once(client: Client) -> None:
    made = [await client.submit(f"{n}", steps=1) for n in range(7)]
    seen: list[str] = []
    before: dict[str, str] = {}
    while True:
        page = await listed(client, limit=3, **before)
        assert len(page["jobs"]) <= 3
        seen += ids(page)
        # A job that comes while someone turns the pages shifts nothing.
        await client.submit("later", steps=1)
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == made[::-1]


async def test_a_list_of_one_state_holds_those_jobs_only(client: Client, faults: Faults) -> None:
    done = await client.submit(steps=1)
    await client.ended(done)
    faults.on("hang")
    runs = await client.submit()
    await running(client, runs)
    waits = [await client.submit() for _ in range(3)]
    gone = waits.pop()
    await client.http.delete(f"/v1/jobs/{gone}")
    assert ids(await listed(client, state="completed")) == [done]
    assert ids(await listed(client, state="cancelled")) == [gone]
    assert ids(await listed(client, state="queued")) == waits[::-1]
    assert ids(await listed(client, state="running")) == [runs]
    assert ids(await listed(client, state="failed")) == []
    page = await listed(client, state="queued", limit=1)
    assert ids(await listed(client, state="queued", limit=1, before=page["next"])) == waits[:1]
    faults.off("hang")


async def test_wrong_arguments_of_the_list_are_named(client: Client) -> None:
    for field, values in {
        "state": ("done", "QUEUED", "queued,running"),
        "limit": ("0", "-1", "1.5", "many", "100000", "9" * 5000, "١"),
    }.items():
        for value in values:
            error = error_of(await client.http.get("/v1/jobs", params={field: value}), 400)
            assert wrong_fields(error) == {field}, value
    error_of(await client.http.get("/v1/jobs", params={"before": NOBODY}), 404)


async def test_a_job_is_shown_with_all_that_the_contract_names(client: Client) -> None:
    job_id = await client.submit("look at me", steps=2, seed=3)
    view = await client.ended(job_id)
    assert (await client.http.get(f"/v1/jobs/{job_id}/status")).json() == view
    assert (await client.http.get(f"/v1/inference/{job_id}/status")).json() == view
    expected = {
        "job_id": job_id,
        "operation": "image_generation",
        "state": "completed",
        "position": None,
        "step": 2,
        "total": 2,
        "attempt": 1,
        "seed": 3,
        "error": None,
    }
    assert {name: view[name] for name in expected} == expected
    assert view["created_at"] <= view["started_at"] <= view["finished_at"]
    assert [(image["index"], image["url"], image["seed"]) for image in view["images"]] == [
        (0, f"/v1/jobs/{job_id}/images/0", 3)
    ]
    assert view["request"] == {"operation": "image_generation", "prompt": "look at me", "steps": 2, "seed": 3}


async def test_a_waiting_job_is_shown_with_its_place(client: Client, faults: Faults) -> None:
    faults.on("hang")
    await running(client, await client.submit())
    waits = [await client.submit() for _ in range(3)]
    assert [(await client.job(job_id))["position"] for job_id in waits] == [0, 1, 2]
    await client.http.delete(f"/v1/jobs/{waits[0]}")
    assert [(await client.job(job_id))["position"] for job_id in waits] == [None, 0, 1]
    view = await client.job(waits[1])
    assert (view["started_at"], view["finished_at"], view["step"]) == (None, None, 0)
    faults.off("hang")


async def test_cancelling_a_waiting_job_takes_it_out_of_the_queue_and_touches_no_other(
    client: Client, faults: Faults
) -> None:
    faults.on("hang")
    runs, waits, last = [await client.submit(steps=2) for _ in range(3)]
    answer = await client.http.delete(f"/v1/jobs/{waits}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    faults.off("hang")
    assert [(await client.ended(job_id))["state"] for job_id in (runs, last)] == ["completed", "completed"]
    assert await forwards(client) == 4
    assert [event.name for event in events(await raw_stream(client, waits))][-1] == "cancelled"


@pytest.mark.faults({"slow": "0.05"})
async def test_cancelling_a_running_job_stops_the_engine_at_its_next_step(client: Client, faults: Faults) -> None:
    job_id = await client.submit(steps=100)
    async with listening(client, job_id) as told:
        step = (await heard(told, "progress"))["step"]
        answer = await client.http.delete(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        await heard(told, "cancelled")
    faults.off("slow")
    # The engine does one job at a time: when this one is through, it has let the other go.
    await client.ended(await client.submit(steps=7))
    assert step <= await forwards(client) - 7 <= step + 3


async def test_cancelling_twice_or_after_the_end_changes_nothing(client: Client, faults: Faults) -> None:
    done = await client.submit(steps=1)
    before = await client.ended(done)
    for _ in range(2):
        answer = await client.http.delete(f"/v1/jobs/{done}")
        assert (answer.status_code, answer.json()) == (200, before)
    faults.on("slow", "0.02")
    gone = await client.submit(steps=100)
    answers = [await client.http.delete(f"/v1/jobs/{gone}") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json() == answers[1].json() == answers[2].json()
    told = [event.name for event in events(await raw_stream(client, gone))]
    assert told.count("cancelled") == 1
    await works(client)


async def test_an_unknown_job_is_404_wherever_it_is_asked_for(client: Client) -> None:
    for job_id in (
        NOBODY,
        "job_1",
        "x",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%0d%0aSet-Cookie:%20a=b",
        "j" * 3000,
        "%00",
    ):
        for path in OF_A_JOB:
            error_of(await client.http.get(f"/v1/jobs/{job_id}{path}"), 404)
        error_of(await client.http.delete(f"/v1/jobs/{job_id}"), 404)
        for path in ("/status", "/stream"):
            error_of(await client.http.get(f"/v1/inference/{job_id}{path}"), 404)


@pytest.mark.settings(job_ttl=0.05)
async def test_a_finished_job_is_forgotten_after_its_time_and_then_410(client: Client, faults: Faults) -> None:
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    faults.on("hang")
    alive = await client.submit(steps=1)

    async def forgotten() -> bool:
        return (await client.http.get(f"/v1/jobs/{job_id}")).status_code == 410

    await eventually(forgotten)
    for path in OF_A_JOB:
        error_of(await client.http.get(f"/v1/jobs/{job_id}{path}"), 410)
    error_of(await client.http.delete(f"/v1/jobs/{job_id}"), 410)
    for path in ("/status", "/stream"):
        error_of(await client.http.get(f"/v1/inference/{job_id}{path}"), 410)
    error_of(await client.http.get("/v1/jobs", params={"before": job_id}), 410)
    # One that still runs is never forgotten, however long it takes.
    assert ids(await listed(client)) == [alive]
    faults.off("hang")


@pytest.mark.settings(job_ttl=0.05)
async def test_a_forgotten_job_frees_its_idempotency_key(client: Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await client.http.post("/v1/jobs", json={"prompt": "x", "steps": 1}, headers=headers)

    async def forgotten() -> bool:
        return (await client.http.get(f"/v1/jobs/{first.json()['job_id']}")).status_code == 410

    await eventually(forgotten)
    again = await client.http.post("/v1/jobs", json={"prompt": "x", "steps": 1}, headers=headers)
    assert again.status_code == 200
    assert again.json()["job_id"] != first.json()["job_id"]


@pytest.mark.settings(job_history=2)
async def test_no_more_finished_jobs_are_kept_than_the_history_allows(client: Client) -> None:
    made = [await client.submit(steps=1) for _ in range(4)]
    await client.ended(made[-1])

    async def trimmed() -> bool:
        return ids(await listed(client)) == made[:1:-1]

    await eventually(trimmed)


@pytest.mark.settings(job_timeout=0.2)
@pytest.mark.faults({"slow": "0.02"})
async def test_a_job_that_runs_too_long_ends_in_a_timeout_and_the_next_one_runs(client: Client, faults: Faults) -> None:
    job_id = await client.submit(steps=100)
    waits = await client.submit(steps=3)
    terminal = events(await raw_stream(client, job_id))[-1]
    assert (terminal.name, terminal.data["code"]) == ("error", "timeout")
    view = await client.job(job_id)
    assert (view["state"], view["error"]["code"]) == ("failed", "timeout")
    # Waiting does not count, and the engine has stopped.
    assert (await client.ended(waits))["state"] == "completed"
    assert await forwards(client) < 30


async def test_a_job_may_name_its_own_timeout(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.05")
    job_id = await client.submit(steps=60, timeout=1)
    view = await client.ended(job_id)
    assert (view["state"], view["error"]["code"]) == ("failed", "timeout")
    assert 1 <= view["run_s"] < 2


@pytest.mark.settings(cancel_timeout=0.2)
async def test_an_engine_that_does_not_let_go_of_a_job_is_replaced(client: Client, faults: Faults) -> None:
    await client.ready()
    before = (await status(client))["engine"]
    faults.on("hang")
    job_id = await client.submit(steps=5, timeout=1)
    waits = await client.submit(steps=3)
    terminal = events(await raw_stream(client, job_id))[-1]
    assert (terminal.name, terminal.data["code"]) == ("error", "timeout")

    async def replaced() -> bool:
        return bool((await status(client))["engine"]["starts"] == before["starts"] + 1)

    await eventually(replaced)
    faults.off("hang")
    assert (await client.ended(waits))["state"] == "completed"
    assert (await status(client))["engine"]["pid"] != before["pid"]


async def test_a_job_that_fails_in_the_engine_is_an_error_without_inner_matters(client: Client, faults: Faults) -> None:
    faults.on("fail", "once")
    job_id = await client.submit(steps=2)
    raw = await raw_stream(client, job_id)
    terminal = events(raw)[-1]
    assert (terminal.name, terminal.data["code"]) == ("error", "generation_failed")
    view = await client.http.get(f"/v1/jobs/{job_id}")
    assert view.json()["error"] == {"code": "generation_failed", "message": terminal.data["message"]}
    for told in (raw.decode(), view.text):
        assert str(faults.folder) not in told
        assert "Traceback" not in told
    await works(client)


async def test_a_job_without_room_in_memory_fails_alone(client: Client, faults: Faults) -> None:
    faults.on("oom", "once")
    job_id = await client.submit(steps=2)
    waits = await client.submit(steps=2)
    assert (await client.ended(job_id))["error"]["code"] == "out_of_memory"
    assert (await client.ended(waits))["state"] == "completed"


async def forget(client: Client, job_id: str) -> Any:
    """Ask for a job to be forgotten."""
    return await client.http.delete(f"/v1/jobs/{job_id}", params={"forget": "true"})


async def test_an_ended_job_is_forgotten_with_its_images_when_somebody_says_so(
    server: Server, client: Client, tmp_path: Path
) -> None:
    kept, gone = [await client.submit(f"{n}", steps=1, seed=1) for n in range(2)]
    for job_id in (kept, gone):
        await client.ended(job_id)
    held = server.registry.image_bytes
    answer = await forget(client, gone)
    assert (answer.status_code, answer.json()["job_id"], answer.json()["state"]) == (200, gone, "completed")
    for path in OF_A_JOB:
        error_of(await client.http.get(f"/v1/jobs/{gone}{path}"), 410, "job_expired")
    error_of(await forget(client, gone), 410, "job_expired")
    assert ids(await listed(client)) == [kept]
    assert server.registry.counts()["completed"] == 1
    assert server.registry.image_bytes * 2 == held
    await eventually(lambda: [path.name for path in (tmp_path / "state0" / "images").iterdir()] == [kept])


async def test_a_job_that_has_not_ended_cannot_be_forgotten(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.05")
    runs, waits = [await client.submit(f"{n}", steps=20) for n in range(2)]
    await running(client, runs)
    for job_id in (runs, waits):
        error_of(await forget(client, job_id), 409, "job_unfinished")
        await client.http.delete(f"/v1/jobs/{job_id}")
        assert (await forget(client, job_id)).status_code == 200
        error_of(await client.http.get(f"/v1/jobs/{job_id}"), 410, "job_expired")
    assert ids(await listed(client)) == []


async def test_forgetting_what_was_never_there_or_in_other_words_is_refused(client: Client) -> None:
    error_of(await forget(client, NOBODY), 404, "job_not_found")
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    answer = await client.http.delete(f"/v1/jobs/{job_id}", params={"forget": "yes"})
    assert wrong_fields(error_of(answer, 400, "invalid_request")) == {"forget"}
    assert (await client.http.delete(f"/v1/jobs/{job_id}", params={"forget": "false"})).status_code == 200
    assert ids(await listed(client)) == [job_id]


async def test_a_key_is_free_again_when_its_job_was_forgotten(client: Client) -> None:
    headers = {"Idempotency-Key": "once"}
    first = (await client.http.post("/v1/jobs", json={"prompt": "a", "steps": 1}, headers=headers)).json()["job_id"]
    await client.ended(first)
    await forget(client, first)
    second = (await client.http.post("/v1/jobs", json={"prompt": "b", "steps": 1}, headers=headers)).json()["job_id"]
    assert second != first
