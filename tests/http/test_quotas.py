"""Limits for each client, over sockets: by address, by named key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from rbee_sd import keys
from rbee_sd.server import Server
from tests.conftest import Client, Faults, MakeServer, eventually, known
from tests.http.views import error_of, listening, works


def from_address(address: str) -> dict[str, str]:
    """Headers of a request that a proxy on this machine passes on for somebody."""
    return {"X-Forwarded-For": address}


@pytest.mark.settings(client_rate=0.2)
async def test_too_many_requests_of_one_client_are_429_and_another_is_served(client: Client) -> None:
    answers = [await client.http.get("/v1/jobs", headers=from_address("192.0.2.1")) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    error_of(answers[-1], 429, "too_many_requests")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 5
    assert (await client.http.get("/v1/jobs", headers=from_address("192.0.2.2"))).status_code == 200
    for path in ("/health", "/ready"):
        assert (await client.http.get(path, headers=from_address("192.0.2.1"))).status_code in (200, 503)


@pytest.mark.settings(client_jobs=2)
async def test_too_many_waiting_jobs_of_one_client_are_429_and_another_is_served(
    server: Server, client: Client, faults: Faults
) -> None:
    await client.ready()
    faults.on("hang")

    async def submit(address: str) -> httpx2.Response:
        return await client.http.post("/v1/jobs", json={"prompt": "a", "steps": 1}, headers=from_address(address))

    first = (await submit("192.0.2.1")).json()["job_id"]
    await eventually(lambda: known(server, first).total is not None)
    answers = [await submit("192.0.2.1") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    error_of(answers[-1], 429, "too_many_jobs")
    assert answers[-1].headers["Retry-After"]
    assert (await submit("192.0.2.2")).status_code == 200
    status = await client.http.post("/v1/jobs", json={"operation": "status"}, headers=from_address("192.0.2.1"))
    assert status.status_code == 200
    faults.off("hang")
    await client.ended(answers[1].json()["job_id"])
    assert (await submit("192.0.2.1")).status_code == 200


@pytest.mark.settings(client_streams=2)
@pytest.mark.faults({"hang": ""})
async def test_too_many_streams_of_one_client_are_429_until_one_ends(server: Server, client: Client) -> None:
    job_id = await client.submit(steps=2, on_disconnect="finish")
    path = f"/v1/jobs/{job_id}/stream"
    async with listening(client, job_id):
        async with listening(client, job_id):
            error_of(await client.http.get(path), 429, "too_many_streams")
            error_of(await client.http.get("/v1/events"), 429, "too_many_streams")
            # One that is refused holds no place, nor does one of a job that is not there.
            error_of(await client.http.get("/v1/jobs/job_unknown/stream"), 429, "too_many_streams")
        await eventually(lambda: server.watcher.total == 1)
        error_of(await client.http.get("/v1/jobs/job_unknown/stream"), 404, "job_not_found")
        async with listening(client, job_id):
            pass
    await eventually(lambda: server.watcher.total == 0)


@pytest.fixture
def guarded(make_server: MakeServer, tmp_path: Path) -> tuple[Server, dict[str, str]]:
    """A worker that wants a key, and keys by name."""
    path = tmp_path / "keys"
    made = {name: keys.add(path, name) for name in ("alice", "bob")}
    return make_server(api_keys=str(path), api_key="for all", client_rate=0.2), made


async def test_each_named_key_opens_and_has_a_quota_of_its_own(guarded: tuple[Server, dict[str, str]]) -> None:
    server, made = guarded
    client = Client(server.url)

    async def status(key: str, **headers: Any) -> int:
        sent = {"Authorization": f"Bearer {key}", **headers}
        return (await client.http.get("/v1/jobs", headers=sent)).status_code

    assert await status("wrong") == 401
    # The key counts, not the address that it is used from.
    alice = [await status(made["alice"], **from_address(f"192.0.2.{n}")) for n in range(3)]
    assert alice == [200, 200, 429]
    assert await status(made["bob"]) == 200
    assert await status("for all") == 200
    answer = await client.http.post("/v1/jobs", json={"prompt": "a"}, headers={"X-API-Key": made["bob"]})
    assert known(server, answer.json()["job_id"]).order.owner == "bob"
    # Nor do they share Idempotency-Keys.
    ids = set()
    for key in ("for all", made["alice"]):
        sent = {"Authorization": f"Bearer {key}", "Idempotency-Key": "1"}
        job = await guarded_submit(client, sent)
        ids.add(job)
    assert len(ids) == 2
    await client.http.aclose()


async def guarded_submit(client: Client, headers: dict[str, str]) -> str:
    """Submit a job, as soon as the quota lets it through; its id."""

    async def accepted() -> str:
        answer = await client.http.post("/v1/jobs", json={"prompt": "a"}, headers=headers)
        return str(answer.json().get("job_id", ""))

    job_id: str = await eventually(accepted)
    return job_id


async def test_without_limits_nobody_is_refused(client: Client) -> None:
    answers = [(await client.http.get("/v1/jobs")).status_code for _ in range(300)]
    assert set(answers) == {200}
    await works(client)
