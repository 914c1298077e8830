"""`operations.table`: from the bytes of a request to a job, or to nothing at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from rbee_sd.errors import RequestError
from rbee_sd.jobs.dispatcher import Dispatcher
from rbee_sd.jobs.job import Job, State
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.runner import Runner
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.messages import Ready
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.table import OPERATIONS, Desk, offered
from rbee_sd.settings import Settings
from tests.conftest import eventually
from tests.pictures import picture, text
from tests.unit.conftest import MakeRegistry, ScriptedSeats, bodies, names
from tests.unit.test_body import MALFORMED

OTHERS = "status, model_list, model_get, model_load, model_unload, model_delete, model_download"
LIMITS = Limits(Settings(), ("demo",), lambda: None)
CONTRACT = [
    "infer",
    *[f"worker_{verb}" for verb in ("spawn", "list", "get", "delete")],
    *[f"hive_{verb}" for verb in ("start", "stop", "list", "get", "create", "update", "delete")],
]


@pytest.fixture
def desk(registry: JobRegistry, dispatcher: Dispatcher) -> Desk:
    """A desk whose worker's status is always the same."""

    async def status(_: Job) -> dict[str, Any]:
        return {"ready": True, "model": "demo"}

    Runner(registry, {"status": status})
    return Desk(registry, LIMITS)


async def refused(desk: Desk, body: bytes | dict[str, Any], key: str | None = None) -> RequestError:
    """The error that a body is refused with."""
    with pytest.raises(RequestError) as caught:
        await desk.submit(body if isinstance(body, bytes) else orjson.dumps(body), key)
    return caught.value


async def test_a_prompt_alone_is_an_image_generation(desk: Desk, registry: JobRegistry, seats: ScriptedSeats) -> None:
    job = await desk.submit(b'{"prompt": "a red circle"}')
    assert job.order.operation == "image_generation"
    assert registry.view(job)["state"] == "queued"
    assert registry.view(job)["position"] == 0
    assert registry.view(job)["request"] == {"operation": "image_generation", "prompt": "a red circle"}
    await eventually(lambda: seats.running == [job.id])


async def test_fields_of_a_form_hold_files_and_make_the_same_job(desk: Desk) -> None:
    file = picture("PNG", (64, 64))
    fields = {"operation": "image_transform", "prompt": "a red circle", "image": file}
    job = await desk.accept(fields, "a key")
    assert job.order.work is not None
    assert job.order.work.inputs == (file,)
    assert await desk.accept({**fields}, "a key") is job
    with pytest.raises(RequestError, match="different body"):
        await desk.accept({**fields, "image": picture("PNG", (64, 72))}, "a key")
    with pytest.raises(RequestError, match="truncated") as caught:
        await desk.accept({**fields, "image": file[:20]})
    assert caught.value.fields[0].value == "20 bytes"


async def test_a_status_is_a_job_that_completes_by_itself(desk: Desk, seats: ScriptedSeats) -> None:
    job = await desk.submit(b'{"operation": "status", "hive_id": "localhost", "worker_id": "w"}')
    assert job.state is State.QUEUED
    await eventually(lambda: job.state is State.COMPLETED)
    assert names(job) == ["queued", "complete"]
    assert bodies(job, "complete")[0]["result"] == {"ready": True, "model": "demo"}
    assert seats.submitted == []


async def test_a_status_needs_no_place_in_the_queue(make_registry: MakeRegistry, seats: ScriptedSeats) -> None:
    registry = make_registry(queue_size=1)
    dispatcher = Dispatcher(registry, Watcher(registry, 5.0))
    dispatcher.worker = seats
    seats.capacity = 0
    desk = Desk(registry, LIMITS)
    await desk.submit(b'{"prompt": "a"}')
    assert (await refused(desk, {"prompt": "b"})).code == "queue_full"
    assert (await desk.submit(b'{"operation": "status"}')).state is State.QUEUED


async def test_a_prompt_comes_back_to_the_byte(desk: Desk, registry: JobRegistry) -> None:
    text = ("🎉 שלום \u202e" * 1000)[:4000]
    job = await desk.submit(orjson.dumps({"prompt": text}))
    view = orjson.loads(orjson.dumps(registry.view(job)))
    assert view["request"]["prompt"].encode() == text.encode()


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_json_leaves_nothing_behind(desk: Desk, registry: JobRegistry, body: bytes) -> None:
    assert (await refused(desk, body, "key")).code == "invalid_json"
    assert registry.live() == []
    assert await registry.repeated("key", b"") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a\0b"},
        {"prompt": ""},
        {"prompt": None},
        {"prompt": "a", "steps": 20.0},
        {"prompt": "a", "steps": None},
        {"prompt": "a", "colour": "red"},
        {"prompt": "a", "model": "../x"},
        {"prompt": "a", "width": 2048, "height": 2048, "steps": 150, "count": 8},
        {"operation": "image_generation"},
        {"operation": "status", "prompt": "a"},
        {"operation": "status", "hive_id": "other"},
    ],
)
async def test_a_wrong_request_leaves_nothing_behind(desk: Desk, registry: JobRegistry, fields: dict[str, Any]) -> None:
    error = await refused(desk, fields, "key")
    assert (error.status, error.code) == (400, "invalid_request")
    assert error.fields
    assert registry.live() == []
    assert registry.feed.after(0) == []
    assert await registry.repeated("key", b"") is None


@pytest.mark.parametrize("name", [*CONTRACT, "", "Status", "status ", "__class__", "../status", "x" * 10_000])
async def test_an_operation_that_is_not_in_names_those_that_are(desk: Desk, registry: JobRegistry, name: str) -> None:
    error = await refused(desk, {"operation": name, "prompt": "a", "model": 1})
    assert (error.status, error.code) == (400, "unsupported_operation")
    assert all(known in error.message for known in OPERATIONS)
    assert [field.field for field in error.fields] == ["operation"]
    assert len(str(error.fields[0].value)) <= 101
    assert registry.live() == []


@pytest.mark.parametrize("name", [1, True, 1.5, [], ["status"], {}, {"status": 1}])
async def test_an_operation_that_is_no_text_is_unsupported(desk: Desk, name: Any) -> None:
    assert (await refused(desk, {"operation": name})).code == "unsupported_operation"


@pytest.mark.parametrize("fields", [{}, {"steps": 20}, {"operation": None}, {"operation": None, "prompt": "a"}])
async def test_without_an_operation_and_a_prompt_the_operations_are_named(desk: Desk, fields: dict[str, Any]) -> None:
    error = await refused(desk, fields)
    assert (error.status, error.code) == (400, "invalid_request")
    assert [field.field for field in error.fields] == ["operation"]
    assert all(known in error.message for known in OPERATIONS)


@pytest.mark.parametrize("job_id", ["job_1", "", None, 1, {}])
@pytest.mark.parametrize("rest", [{"prompt": "a"}, {"operation": "status"}, {}])
async def test_an_id_sent_by_the_client_is_refused(
    desk: Desk, registry: JobRegistry, job_id: Any, rest: dict[str, Any]
) -> None:
    error = await refused(desk, {"job_id": job_id, **rest})
    assert (error.status, error.code) == (400, "invalid_request")
    assert [field.field for field in error.fields] == ["job_id"]
    assert registry.live() == []


@pytest.mark.parametrize("depth", [200, 255, 300, 600, 900, 980, 1010, 2000])
async def test_nesting_of_any_depth_is_a_wrong_request(desk: Desk, registry: JobRegistry, depth: int) -> None:
    error = await refused(desk, b'{"prompt": "a", "x": ' + b"[" * depth + b"]" * depth + b"}")
    assert error.status == 400
    assert registry.live() == []


async def test_a_repeat_with_the_same_key_is_the_same_job(desk: Desk, registry: JobRegistry) -> None:
    job = await desk.submit(b'{"prompt": "a", "steps": 5}', "key")
    assert await desk.submit(b'{"prompt": "a", "steps": 5}', "key") is job
    # The same request, written another way.
    assert await desk.submit(b'{ "steps":5,\n "prompt":"\\u0061" }', "key") is job
    assert registry.live() == [job]
    assert names(job) == ["queued"]


@pytest.mark.parametrize(
    "other", [b'{"prompt": "b"}', b'{"prompt": "a", "steps": 5}', b'{"operation": "status"}', b'{"prompt": 1}']
)
async def test_another_body_under_the_same_key_is_a_conflict(desk: Desk, registry: JobRegistry, other: bytes) -> None:
    job = await desk.submit(b'{"prompt": "a"}', "key")
    assert (await refused(desk, other, "key")).status == 409
    assert registry.live() == [job]


async def test_without_a_key_or_with_another_each_request_is_a_job(desk: Desk, registry: JobRegistry) -> None:
    body = b'{"prompt": "a"}'
    jobs = [
        await desk.submit(body),
        await desk.submit(body),
        await desk.submit(body, "one"),
        await desk.submit(body, "two"),
    ]
    assert registry.live() == jobs
    assert len({job.id for job in jobs}) == 4


async def test_a_repeat_is_answered_while_the_queue_is_full_and_while_draining(
    make_registry: MakeRegistry, seats: ScriptedSeats
) -> None:
    registry = make_registry(queue_size=1)
    dispatcher = Dispatcher(registry, Watcher(registry, 5.0))
    dispatcher.worker = seats
    seats.capacity = 0
    desk = Desk(registry, LIMITS)
    job = await desk.submit(b'{"prompt": "a"}', "key")
    assert (await refused(desk, {"prompt": "b"}, "other")).code == "queue_full"
    assert await desk.submit(b'{"prompt": "a"}', "key") is job
    registry.draining = True
    assert (await refused(desk, {"prompt": "b"}, "other")).code == "draining"
    assert await desk.submit(b'{"prompt": "a"}', "key") is job


async def test_a_key_of_a_refused_request_is_not_used_up(desk: Desk) -> None:
    assert (await refused(desk, {"prompt": ""}, "key")).status == 400
    assert (await desk.submit(b'{"prompt": "a"}', "key")).state is State.QUEUED


async def test_a_request_is_answered_before_its_job_goes_anywhere(desk: Desk, seats: ScriptedSeats) -> None:
    jobs = [await desk.submit(b'{"prompt": "a"}') for _ in range(3)]
    assert [bodies(job, "queued")[0]["position"] for job in jobs] == [0, 1, 2]
    assert seats.submitted == []


async def test_a_worker_whose_model_failed_takes_the_request_and_says_so_in_the_job(
    desk: Desk, dispatcher: Dispatcher
) -> None:
    dispatcher.refuse("model_failed", "the model cannot be loaded")
    job = await desk.submit(b'{"prompt": "a"}')
    await asyncio.sleep(0)
    assert job.state is State.FAILED
    assert bodies(job, "error")[0]["code"] == "model_failed"


async def test_errors_name_no_path_and_are_json(desk: Desk) -> None:
    for fields in ({"prompt": "a", "model": "/etc/passwd"}, {"operation": "/etc/passwd"}, {"prompt": 1, "x": [[]]}):
        error = await refused(desk, fields)
        assert "rbee_sd" not in error.message
        assert "Traceback" not in error.message
        orjson.dumps([[field.field, field.constraint, field.message, field.value] for field in error.fields])


async def test_a_loaded_model_restricts_the_operations_and_those_it_does_are_named(
    registry: JobRegistry, dispatcher: Dispatcher
) -> None:
    ready = Ready("demo", "sd", "cpu", "float32", 1, 64, 64, 20, 7.5, operations=("image_inpaint",))
    desk = Desk(registry, replace(LIMITS, loaded=lambda: ready))
    for fields in ({"prompt": "a"}, {"operation": "image_transform", "prompt": "a"}):
        error = await refused(desk, fields)
        assert (error.status, error.code) == (400, "unsupported_operation")
        assert error.message.endswith(f"it does image_inpaint, {OTHERS}")
    assert set(offered(replace(LIMITS, loaded=lambda: ready))) == {"image_inpaint", *OTHERS.split(", ")}
    assert set(offered(LIMITS)) == set(OPERATIONS)
    assert (await refused(desk, {"operation": "image_inpaint"})).code == "invalid_request"


async def test_a_repeat_with_the_same_images_is_the_same_job(desk: Desk, registry: JobRegistry) -> None:
    red, blue = text(picture()), text(picture("JPEG"))
    body = {"operation": "image_transform", "prompt": "a", "image": red}
    job = await desk.submit(orjson.dumps(body), "key")
    assert await desk.submit(orjson.dumps(dict(reversed(body.items()))), "key") is job
    assert (await refused(desk, body | {"image": blue}, "key")).status == 409
    assert registry.live() == [job]


async def test_a_job_shows_what_its_images_are_and_not_the_images(desk: Desk, registry: JobRegistry) -> None:
    image, mask = picture(), picture("PNG", mode="L")
    fields = {"operation": "image_inpaint", "prompt": "a", "init_image": text(image), "mask_image": text(mask)}
    job = await desk.submit(orjson.dumps(fields))
    assert job.order.work is not None
    assert job.order.work.inputs == (image, mask)
    view = orjson.loads(orjson.dumps(registry.view(job)))
    assert view["request"] == {
        "operation": "image_inpaint",
        "prompt": "a",
        "image": f"png, 96 x 64, {len(image)} bytes",
        "mask": f"png, 96 x 64, {len(mask)} bytes",
    }
