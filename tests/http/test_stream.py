"""One job's stream: its bytes, many and late listeners, resuming, heartbeats."""

from __future__ import annotations

import asyncio
import base64
import json
import re

import pytest

from rbee_sd.server import Server
from tests.conftest import Client, Faults, eventually
from tests.http.conftest import Dial
from tests.http.views import (
    TERMINAL,
    error_of,
    events,
    frames,
    heard,
    listening,
    raw_stream,
    running,
    steps,
    without_heartbeats,
    wrong_fields,
)
from tests.http.wire import request

NONSENSE_IDS = ("abc", "-1", "0", "1.5", " ", "1 2", "0x3", "99999", "9" * 5000, "+1", "null", "1e1", "%31", "²", "٣")


async def test_a_stream_is_exactly_what_the_contract_says(client: Client) -> None:
    job_id = await client.submit(steps=4, seed=42)
    raw = await raw_stream(client, job_id)
    told = [frame for frame in frames(raw) if frame.name != "heartbeat"]
    assert told[0].name == "retry"
    assert told[-1].name == "done"
    numbered = told[1:-1]
    assert [event.id for event in numbered] == list(range(1, len(numbered) + 1))
    names = [event.name for event in numbered]
    assert names[0] == "queued"
    assert set(names) <= {"queued", "started", "narration", "progress", "preview", "complete"}
    assert names.count("started") == names.count("complete") == 1
    assert names[-1] == "complete"
    assert names.index("started") < names.index("progress")
    for event in numbered:
        assert event.data["event"] == event.data["type"] == event.name
        assert event.data["job_id"] == job_id
        if event.name == "narration":
            assert event.data["text"]
    progress = [event.data for event in numbered if event.name == "progress"]
    assert [(data["step"], data["total"], data["percent"]) for data in progress] == [
        (1, 4, 25.0),
        (2, 4, 50.0),
        (3, 4, 75.0),
        (4, 4, 100.0),
    ]
    assert all(data["eta_s"] >= 0 for data in progress)
    complete = numbered[-1].data
    assert (complete["format"], complete["seed"]) == ("png", 42)
    assert base64.b64decode(complete["image_base64"], validate=True).startswith(b"\x89PNG")
    assert complete["images"][0]["index"] == 0
    assert complete["images"][0]["url"] == f"/v1/jobs/{job_id}/images/0"
    assert complete["images"][0]["seed"] == 42


async def test_a_stream_has_the_headers_that_keep_proxies_from_holding_it_back(client: Client) -> None:
    job_id = await client.submit(steps=1)
    answer = await client.http.get(f"/v1/jobs/{job_id}/stream")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    assert {word.strip() for word in answer.headers["cache-control"].split(",")} == {"no-cache", "no-store"}
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert "content-encoding" not in answer.headers


async def test_the_first_bytes_come_at_once_and_say_when_to_retry(client: Client, faults: Faults) -> None:
    faults.on("hang")
    job_id = await client.submit()
    async with client.http.stream("GET", f"/v1/jobs/{job_id}/stream") as answer:
        first = await anext(answer.aiter_raw())
    assert re.match(rb"retry: [0-9]+\n\n", first)
    faults.off("hang")


async def test_a_plain_reader_gets_the_stream_and_then_the_end_of_the_connection(
    server: Server, client: Client, dial: Dial
) -> None:
    job_id = await client.submit(steps=3)
    wire = await dial(server)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream", version="HTTP/1.0"))
    head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    assert steps(body) == [1, 2, 3]
    assert body.endswith(b"\n\ndata: [DONE]\n\n")


async def test_the_server_closes_after_done(server: Server, client: Client, dial: Dial) -> None:
    job_id = await client.submit(steps=1)
    wire = await dial(server)
    await wire.send(request("GET", f"/v1/jobs/{job_id}/stream"))
    raw = await wire.until(b"data: [DONE]\n\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in raw
    assert await wire.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    async with asyncio.timeout(2):
        assert await wire.rest() == b""


async def test_many_listeners_all_get_the_same_bytes(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=10)
    told = await asyncio.gather(*(raw_stream(client, job_id) for _ in range(20)))
    assert steps(told[0]) == list(range(1, 11))
    assert {without_heartbeats(raw) for raw in told} == {without_heartbeats(told[0])}


async def test_late_listeners_get_everything(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=12)
    late = []
    async with listening(client, job_id) as told:
        for _ in range(4):
            await heard(told, "progress")
            late.append(asyncio.ensure_future(raw_stream(client, job_id)))
    during = [without_heartbeats(raw) for raw in await asyncio.gather(*late)]
    after = without_heartbeats(await raw_stream(client, job_id))
    assert steps(after) == list(range(1, 13))
    assert set(during) == {after}


@pytest.mark.parametrize("path", ["jobs", "inference"])
async def test_resuming_after_every_possible_id_gives_each_later_event_once(client: Client, path: str) -> None:
    job_id = await client.submit(steps=5)
    whole = without_heartbeats(await raw_stream(client, job_id))
    everything = events(whole)
    for seen in range(len(everything)):
        answer = await client.http.get(f"/v1/{path}/{job_id}/stream", headers={"Last-Event-ID": str(seen)})
        assert answer.status_code == 200
        assert answer.content.startswith(b"retry: ")
        assert events(answer.content) == everything[seen:], seen
        assert answer.content.endswith(b"data: [DONE]\n\n")
        # Not only the same data: the same bytes.
        assert whole.endswith(answer.content.partition(b"\n\n")[2])
    answer = await client.http.get(f"/v1/{path}/{job_id}/stream", headers={"Last-Event-ID": str(everything[-1].id)})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_listener_that_loses_its_connection_again_and_again_misses_and_repeats_nothing(
    client: Client, faults: Faults
) -> None:
    faults.on("slow", "0.01")
    job_id = await client.submit(steps=20)
    seen: list[int] = []
    names: list[str] = []
    while "complete" not in names:
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        async with listening(client, job_id, headers=headers) as told:
            # Each connection lives for two events.
            for _ in range(2):
                event = await anext(told)
                while not event.data:
                    event = await anext(told)
                seen.append(int(event.id))
                names.append(event.event)
                if event.event in TERMINAL:
                    break
    assert seen == list(range(1, len(seen) + 1))
    assert names.count("progress") == 20
    view = await client.job(job_id)
    assert view["state"] == "completed"


async def test_resuming_a_running_job_waits_for_what_comes_next(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=15)
    async with listening(client, job_id) as told:
        step = (await heard(told, "progress"))["step"]
        newest = int((await anext(told)).id)
        rest = await raw_stream(client, job_id, headers={"Last-Event-ID": str(newest)})
    assert events(rest)[0].id == newest + 1
    assert steps(rest) == list(range(step + 2, 16))


async def test_an_id_that_was_never_sent_replays_all(server: Server, client: Client, dial: Dial) -> None:
    job_id = await client.submit(steps=2)
    whole = events(await raw_stream(client, job_id))
    for sent in NONSENSE_IDS:
        wire = await dial(server)
        # As raw bytes: clients refuse to send some of these.
        line = request("GET", f"/v1/jobs/{job_id}/stream", "Last-Event-ID: ID", version="HTTP/1.0")
        await wire.send(line.replace(b": ID", b": " + sent.encode()))
        head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"200", sent
        assert events(body) == whole, sent


async def test_an_id_of_the_future_of_a_running_job_replays_all(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    job_id = await client.submit(steps=5)
    raw = await raw_stream(client, job_id, headers={"Last-Event-ID": "1000"})
    assert [event.id for event in events(raw)][:3] == [1, 2, 3]
    assert steps(raw) == [1, 2, 3, 4, 5]


async def test_images_can_be_left_out_of_the_stream(client: Client) -> None:
    job_id = await client.submit(steps=1, count=2)
    with_base64 = await raw_stream(client, job_id)
    by_url = await raw_stream(client, job_id, params={"images": "url"})
    assert events(with_base64)[:-1] == events(by_url)[:-1]
    complete, lean = events(with_base64)[-1].data, events(by_url)[-1].data
    assert "image_base64" not in lean
    assert {**lean, "image_base64": complete["image_base64"]} == complete
    assert len(lean["images"]) == 2
    assert await raw_stream(client, job_id, params={"images": "base64"}) == with_base64


async def test_a_wrong_choice_of_images_is_named(client: Client) -> None:
    job_id = await client.submit(steps=1)
    for word in ("none", "URL", "../x"):
        answer = await client.http.get(f"/v1/jobs/{job_id}/stream", params={"images": word})
        assert wrong_fields(error_of(answer, 400)) == {"images"}


async def test_a_large_image_arrives_whole(client: Client, faults: Faults) -> None:
    job_id = await client.submit(steps=1, width=2048, height=2048)
    complete = events(await raw_stream(client, job_id))[-1].data
    png = (await client.http.get(complete["images"][0]["url"])).content
    assert base64.b64decode(complete["image_base64"], validate=True) == png


@pytest.mark.settings(heartbeat=0.1)
async def test_a_silent_stream_has_heartbeats_without_an_id(client: Client, faults: Faults) -> None:
    faults.on("hang")
    job_id = await client.submit(steps=2)
    raw = b""
    async with client.http.stream("GET", f"/v1/jobs/{job_id}/stream") as answer:
        async for part in answer.aiter_raw():
            raw += part
            if raw.count(b": hb\n\n") == 3:
                faults.off("hang")
    names = [frame.name for frame in frames(raw)]
    assert names.count("heartbeat") >= 3
    assert steps(raw) == [1, 2]
    assert [event.id for event in events(raw)] == list(range(1, len(events(raw)) + 1))


async def test_heartbeats_cannot_be_set_further_apart_than_ten_seconds(server: Server) -> None:
    assert server.settings.heartbeat <= 10
    assert type(server.settings)().heartbeat <= 10


@pytest.mark.settings(heartbeat=0.1)
@pytest.mark.faults({"slow-start": "0.5"})
async def test_a_listener_who_comes_while_the_model_loads_waits_and_is_told_so(client: Client) -> None:
    job_id = await client.submit(steps=2)
    answer = await client.http.get("/ready")
    assert (answer.status_code, answer.json()["reason"]) == (503, "model loading")
    raw = await raw_stream(client, job_id)
    names = [frame.name for frame in frames(raw)]
    assert names.index("heartbeat") < names.index("started")
    texts = [event.data["text"] for event in events(raw) if event.name == "narration"]
    assert "loading model fake" in texts
    assert steps(raw) == [1, 2]


@pytest.mark.settings(heartbeat=0.1)
async def test_a_stream_stays_open_while_a_dead_engine_is_replaced(client: Client, faults: Faults) -> None:
    faults.on("hang")
    dies, waits = await client.submit(steps=3), await client.submit(steps=2)
    await running(client, dies)
    both = asyncio.gather(raw_stream(client, dies), raw_stream(client, waits))
    faults.on("slow-start", "0.4")
    faults.on("crash", "once")
    faults.off("hang")

    async def dead() -> bool:
        answer = await client.http.get("/ready")
        return answer.status_code == 503

    await eventually(dead)
    late = await raw_stream(client, waits)
    first, second = await both
    assert events(first)[-1].name == "complete"
    assert first.endswith(b"data: [DONE]\n\n")
    # In the first attempt it came to its first step at most.
    assert steps(first)[-3:] == [1, 2, 3]
    assert steps(second) == steps(late) == [1, 2]
    assert any(event.name == "narration" and "engine" in event.data["text"] for event in events(second))


async def test_every_way_to_end_gives_one_terminal_event_and_done(client: Client, faults: Faults) -> None:
    faults.on("slow", "0.02")
    completed, cancelled, failed = [await client.submit(steps=20) for _ in range(3)]
    told = [asyncio.ensure_future(raw_stream(client, job_id)) for job_id in (completed, cancelled, failed)]
    await running(client, cancelled)
    await client.http.delete(f"/v1/jobs/{cancelled}")
    await running(client, failed)
    faults.on("fail", "once")
    for expected, raw in zip(("complete", "cancelled", "error"), await asyncio.gather(*told), strict=True):
        names = [frame.name for frame in frames(raw)]
        assert [name for name in names if name in TERMINAL] == [expected]
        assert names[-2:] == [expected, "done"]


async def test_what_a_client_wrote_cannot_break_a_frame(client: Client) -> None:
    prompt = "a\r\nevent: complete\r\ndata: [DONE]\n\nid: 99\n\x1b[31mred\x1b[0m\u2028\u2029\x85 \x0b\x0c"
    job_id = await client.submit(prompt, steps=2)
    raw = await raw_stream(client, job_id)
    assert steps(raw) == [1, 2]
    assert b"\r" not in raw
    assert b"\x1b" not in raw
    assert raw.count(b"[DONE]") == 1
    assert json.loads(json.dumps((await client.job(job_id))["request"]["prompt"])) == prompt
