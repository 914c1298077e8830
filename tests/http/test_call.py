"""One request, one job: the connection is the listener, and the answer is what became of the job."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from rbee_sd.http import routes
from rbee_sd.http.call import CallHandler
from rbee_sd.operations.json_object import parse_object
from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import error_of, forwards, works
from tests.http.wire import Wire, request

LONG = 150
OWN_ROUTES = ("/draw",)


class Draw(CallHandler):
    """The smallest dialect: our own fields in, images out."""

    async def post(self) -> None:
        """Draw, and answer with the images."""
        job = await self.start(parse_object(bytes(self.body)))
        if await self.completed(job):
            await self.answer_pictures({"seed": job.order.seed, "images": job.files})


@pytest.fixture(autouse=True)
def draw_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this module have `/draw`."""
    monkeypatch.setattr(routes, "ROUTES", (*routes.ROUTES, (r"/draw", Draw)))


def drawing(**fields: Any) -> bytes:
    """A `POST /draw`."""
    body = json.dumps({"prompt": "a red circle", **fields}).encode()
    return request("POST", "/draw", "Content-Type: application/json", body=body)


async def begun(server: Server, dial: Dial, **fields: Any) -> Wire:
    """A connection whose job runs."""
    wire = await dial(server)
    await wire.send(drawing(**fields))
    await eventually(lambda: server.registry.counts()["running"] == 1)
    return wire


async def state_of_only_job(client: Client) -> dict[str, Any]:
    """The one job that was made."""
    (job,) = (await client.http.get("/v1/jobs")).json()["jobs"]
    return await client.ended(job["job_id"])


async def test_the_answer_holds_the_images_as_they_are_on_disk(client: Client) -> None:
    answer = await client.http.post("/draw", json={"prompt": "a red circle", "count": 3, "seed": 7})
    assert answer.status_code == 200
    body = answer.json()
    assert body["seed"] == 7
    job = await state_of_only_job(client)
    stored = [(await client.http.get(image["url"])).content for image in job["images"]]
    assert [base64.b64decode(image) for image in body["images"]] == stored
    assert len(set(body["images"])) == 3


async def test_a_connection_serves_one_call_after_another(client: Client, server: Server) -> None:
    for _ in range(3):
        assert (await client.http.post("/draw", json={"prompt": "a red circle", "steps": 2})).status_code == 200
    assert server.watcher.total == 0


@pytest.mark.faults({"slow": "0.02"})
@pytest.mark.parametrize("leave", [Wire.close, Wire.reset, Wire.half_close], ids=["fin", "rst", "half-close"])
async def test_the_job_of_a_call_stops_when_its_client_hangs_up(
    server: Server, client: Client, dial: Dial, leave: Callable[[Wire], None]
) -> None:
    await client.ready()
    leave(await begun(server, dial, steps=LONG))
    await eventually(lambda: server.watcher.total == 0, 1.0)
    assert (await state_of_only_job(client))["state"] == "cancelled"
    assert await forwards(client) < LONG


@pytest.mark.faults({"slow": "0.02"})
@pytest.mark.settings(heartbeat=0.2)
async def test_it_stops_too_when_the_client_had_sent_stray_bytes(server: Server, client: Client, dial: Dial) -> None:
    await client.ready()
    wire = await begun(server, dial, steps=LONG)
    await wire.send(b"\r\n\r\nhello?")
    wire.close()
    assert (await state_of_only_job(client))["state"] == "cancelled"


@pytest.mark.faults({"slow": "0.02"})
async def test_it_stops_too_when_steps_come_faster_than_heartbeats(server: Server, client: Client, dial: Dial) -> None:
    await client.ready()
    wire = await begun(server, dial, steps=LONG)
    await wire.send(b"\r\n")
    wire.close()
    assert (await state_of_only_job(client))["state"] == "cancelled"
    assert await forwards(client) < LONG


@pytest.mark.faults({"slow": "0.02"})
async def test_another_listener_keeps_the_job_of_a_call_alive(server: Server, client: Client, dial: Dial) -> None:
    await client.ready()
    wire = await begun(server, dial, steps=40)
    (job,) = server.registry.live()
    listening = asyncio.ensure_future(client.events(job.id))
    await eventually(lambda: server.watcher.listeners(job.id) == 2)
    wire.close()
    assert (await listening)[-2].event == "complete"


@pytest.mark.faults({"slow": "0.02"})
async def test_a_call_that_asked_for_it_is_finished_without_its_client(
    server: Server, client: Client, dial: Dial
) -> None:
    await client.ready()
    (await begun(server, dial, steps=40, on_disconnect="finish")).close()
    assert (await state_of_only_job(client))["state"] == "completed"


async def test_the_call_of_a_job_that_fails_is_answered_with_its_error(client: Client, faults: Faults) -> None:
    faults.on("oom", "once")
    answer = await client.http.post("/draw", json={"prompt": "a red circle"})
    error_of(answer, 500, "out_of_memory")
    error_of(await client.http.post("/draw", json={"prompt": ""}), 400, "invalid_request")
    error_of(await client.http.post("/draw", content=b"prompt=a"), 415, "not_json")
    await works(client)


@pytest.mark.faults({"slow": "0.02"})
async def test_the_call_of_a_job_that_somebody_cancels_is_told_so(server: Server, client: Client) -> None:
    await client.ready()
    drawn = asyncio.ensure_future(client.http.post("/draw", json={"prompt": "a red circle", "steps": LONG}))
    (job,) = await eventually(server.registry.live)
    await client.http.delete(f"/v1/jobs/{job.id}")
    error_of(await drawn, 409, "job_cancelled")


@pytest.mark.settings(client_streams=1)
@pytest.mark.faults({"slow": "0.02"})
async def test_a_call_counts_as_an_open_stream(server: Server, client: Client, dial: Dial) -> None:
    await client.ready()
    wire = await begun(server, dial, steps=LONG)
    error_of(await client.http.post("/draw", json={"prompt": "a red circle"}), 429, "too_many_streams")
    wire.close()
    await eventually(lambda: server.watcher.total == 0)
    answer: httpx2.Response = await client.http.post("/draw", json={"prompt": "a red circle", "steps": 1})
    assert answer.status_code == 200


async def test_a_repeat_with_the_same_key_is_answered_with_the_same_images(client: Client) -> None:
    headers = {"Idempotency-Key": "once"}
    bodies = [
        (await client.http.post("/draw", json={"prompt": "a red circle"}, headers=headers)).content for _ in range(2)
    ]
    assert bodies[0] == bodies[1]
    assert (await state_of_only_job(client))["attempt"] == 1
