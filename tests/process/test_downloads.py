"""Downloads from a small hub on loopback: progress, ends of all kinds, going on, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee_sd.engine.config import DEMO
from rbee_sd.models.downloads import Downloads
from rbee_sd.server import Server
from tests.conftest import Client, MakeServer, eventually
from tests.hub import Hub, running
from tests.process.conftest import StartWorker

Connect = Callable[[Server], Client]

NAME = "some-owner/some-model"
UNET = "unet/diffusion_pytorch_model.safetensors"
CONFIG = "unet/config.json"
HELD = 5_000_000
"""Bytes of the UNet's 11 million that come before the hub falls silent."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that has the demo model under another name, and that downloads ask."""
    with running() as hub:
        hub.add(NAME, DEMO)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Where the models are."""
    return tmp_path / "models"


@pytest.fixture
def server(make_server: MakeServer, models_dir: Path, hub: Hub) -> Server:
    """A worker that downloads from the hub."""
    return make_server(disconnect_grace=0.3, heartbeat=0.5, models_dir=str(models_dir))


@pytest.fixture
def client(server: Server, connect: Connect) -> Client:
    """A client of it."""
    return connect(server)


async def begin(client: Client, operation: str = "model_download", model: str = NAME, **fields: Any) -> str:
    """Submit an operation on a model; returns the job's id."""
    wanted = {"model": model} if model else {}
    answer = await client.http.post("/v1/jobs", json={"operation": operation, **wanted, **fields})
    assert answer.status_code == 200, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def done(client: Client, operation: str = "model_download", **fields: Any) -> dict[str, Any]:
    """The result of an operation that completes."""
    view = await client.ended(await begin(client, operation, **fields))
    assert view["state"] == "completed", view
    result: dict[str, Any] = view["result"]
    return result


async def failed(client: Client, operation: str = "model_download", **fields: Any) -> dict[str, Any]:
    """The error of an operation that fails."""
    view = await client.ended(await begin(client, operation, **fields))
    assert view["state"] == "failed", view
    error: dict[str, Any] = view["error"]
    assert not re.search(r"(^|\s)/\w", error["message"]), "a path"
    return error


async def names(client: Client) -> list[str]:
    """The models that jobs may name."""
    offer: dict[str, Any] = (await client.http.get("/v1/capabilities")).json()
    names: list[str] = offer["models"]
    assert [each["name"] for each in offer["model_details"]] == names
    return names


def fetchers() -> list[psutil.Process]:
    """The processes of downloads."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if any("rbee_sd.engine.fetch" in word for word in words(each))]


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty when it has just gone."""
    try:
        line: list[str] = process.cmdline()
    except psutil.NoSuchProcess:
        return []
    return line


def parts(models_dir: Path) -> list[Path]:
    """The files that are being downloaded and that the hub holds back."""
    digest = hashlib.sha256((DEMO / UNET).read_bytes()).hexdigest()
    return list(models_dir.glob(f".partial/*/{digest}.part"))


def part(models_dir: Path) -> int:
    """Bytes of the one that is."""
    return sum(path.stat().st_size for path in parts(models_dir))


def wholes(models_dir: Path) -> list[Path]:
    """The files that a download has got."""
    return [path for path in models_dir.glob(".partial/*/*") if path.suffix != ".part"]


def theirs(models_dir: Path, name: str) -> None:
    """A model that somebody has put there."""
    shutil.copytree(DEMO, models_dir / name)


def listed(models_dir: Path) -> dict[str, bytes]:
    """What is in the folder of the model that is downloaded."""
    folder = models_dir / "some-owner--some-model"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def held_download(client: Client, hub: Hub, models_dir: Path, **fields: Any) -> str:
    """A download that has come to where the hub holds it."""
    hub.held[UNET] = HELD
    job_id = await begin(client, **fields)
    # The others are whole by then.
    await eventually(lambda: part(models_dir) > HELD - 1_000_000 and len(wholes(models_dir)) == 9)
    return job_id


async def test_a_download_tells_its_bytes_and_ends_as_a_model_that_jobs_may_name(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    *events, last = await client.events(await begin(client))
    assert last.data == "[DONE]"
    total = sum(map(len, hub.repositories[NAME].values()))
    progress = [json.loads(event.data) for event in events if event.event == "progress"]
    assert {each["total_bytes"] for each in progress} == {total}
    counts = [each["bytes"] for each in progress]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1], progress[-1]["percent"]) == (616, total, 100.0)
    told = " ".join(json.loads(event.data)["text"] for event in events if event.event == "narration")
    assert "10 files, 12.2 MB" in told
    result = json.loads(events[-1].data)["result"]
    assert (result["name"], result["kind"], result["family"]) == (NAME, "download", "stable-diffusion")
    assert result["size"] == sum(len(each) for name, each in hub.repositories[NAME].items() if "safetensors" in name)
    assert await names(client) == ["fake", NAME]
    files = listed(models_dir)
    assert files.pop(".rbee-sd.json")
    assert files == hub.repositories[NAME]
    view = await client.ended(await client.submit(model=NAME, steps=2))
    assert view["state"] == "completed"
    # Once more costs nothing.
    asked = len(hub.asked)
    assert (await done(client))["loaded"] is True
    assert len(hub.asked) == asked


async def test_a_cancelled_download_ends_its_process_and_the_next_goes_on_where_it_was(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    job_id = await held_download(client, hub, models_dir)
    assert len(fetchers()) == 1
    answer = await client.http.delete(f"/v1/jobs/{job_id}")
    assert answer.json()["state"] == "cancelled"
    await eventually(lambda: fetchers() == [])
    assert await names(client) == ["fake"]
    kept = part(models_dir)
    hub.release()
    hub.asked.clear()
    await done(client)
    assert (UNET, kept) in hub.asked
    # Those that were whole were not asked for again.
    assert [file for file, _ in hub.asked if file.endswith(".safetensors")] == [UNET]
    assert listed(models_dir)[UNET] == hub.repositories[NAME][UNET]


async def test_a_download_whose_last_listener_leaves_is_cancelled_unless_it_is_to_be_finished(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    job_id = await held_download(client, hub, models_dir)
    async with client.stream(job_id):
        pass
    assert (await client.ended(job_id))["state"] == "cancelled"
    await eventually(lambda: fetchers() == [])
    job_id = await begin(client, on_disconnect="finish")
    async with client.stream(job_id):
        pass
    hub.release()
    assert (await client.ended(job_id))["state"] == "completed"


async def test_a_download_that_was_just_cancelled_can_be_asked_for_at_once(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    job_id = await held_download(client, hub, models_dir)
    await client.http.delete(f"/v1/jobs/{job_id}")
    again = await begin(client)
    hub.release()
    assert (await client.ended(again))["state"] == "completed"
    assert listed(models_dir)[UNET] == hub.repositories[NAME][UNET]


async def test_a_second_download_of_the_same_model_is_refused(client: Client, hub: Hub, models_dir: Path) -> None:
    job_id = await held_download(client, hub, models_dir)
    error = await failed(client)
    assert error["code"] == "model_in_use"
    assert job_id in error["message"]
    hub.release()
    assert (await client.ended(job_id))["state"] == "completed"


async def test_no_more_than_two_downloads_run_at_once(client: Client, hub: Hub, models_dir: Path) -> None:
    for name in ("a/b", "c/d"):
        hub.add(name, DEMO)
    hub.held[UNET] = HELD
    jobs = [await begin(client, model=name) for name in (NAME, "a/b", "c/d")]
    await eventually(lambda: len(parts(models_dir)) == 2)
    assert len(fetchers()) == 2
    hub.release()
    assert [(await client.ended(job_id))["state"] for job_id in jobs] == ["completed"] * 3
    assert set(await names(client)) == {"fake", NAME, "a/b", "c/d"}


async def test_a_process_that_is_killed_fails_its_job_and_leaves_what_it_has(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    job_id = await held_download(client, hub, models_dir)
    fetchers()[0].kill()
    assert (await client.ended(job_id))["error"]["code"] == "download_failed"
    assert await names(client) == ["fake"]
    hub.release()
    await done(client)


async def test_a_download_goes_on_when_the_worker_is_killed_and_started_again(
    start_worker: StartWorker, hub: Hub, models_dir: Path, tmp_path: Path
) -> None:
    settings = {"models_dir": models_dir, "state_dir": tmp_path / "state"}
    worker, client = start_worker(**settings)
    job_id = await held_download(client, hub, models_dir)
    (fetching,) = [each for each in worker.children() if any("fetch" in word for word in words(each))]
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.wait()
    await eventually(lambda: not fetching.is_running())
    kept = part(models_dir)
    hub.release()
    hub.asked.clear()
    _, client = start_worker(**settings)
    view = await client.ended(job_id)
    assert (view["state"], view["result"]["name"]) == ("completed", NAME)
    assert (UNET, kept) in hub.asked


@pytest.mark.parametrize("everybody", [False, True], ids=["terminated", "interrupted"])
async def test_a_worker_that_is_stopped_leaves_a_download_to_its_next_run(
    start_worker: StartWorker, hub: Hub, models_dir: Path, tmp_path: Path, everybody: bool
) -> None:
    settings = {"models_dir": models_dir, "state_dir": tmp_path / "state"}
    worker, client = start_worker(**settings, drain_timeout=20)
    job_id = await held_download(client, hub, models_dir)
    if everybody:
        # As Ctrl-C in a terminal does. It would end a download that still looks at what the hub has.
        (fetching,) = [each for each in worker.children() if any("fetch" in word for word in words(each))]
        assert os.getpgid(fetching.pid) != os.getpgid(worker.process.pid)
        os.killpg(worker.process.pid, signal.SIGINT)
    else:
        worker.signal(signal.SIGTERM)
    # It does not wait for the download.
    assert worker.wait(10) == 0
    hub.release()
    _, client = start_worker(**settings)
    assert (await client.ended(job_id))["state"] == "completed"


@pytest.mark.parametrize(
    "status, code, says",
    [(404, "RepoNotFound", "has no model"), (401, "RepoNotFound", "HF_TOKEN"), (403, "GatedRepo", "accept its terms")],
)
async def test_a_model_that_the_hub_does_not_give_is_told_why(
    client: Client, hub: Hub, status: int, code: str, says: str
) -> None:
    hub.refused["a/b"] = status, code
    error = await failed(client, model="a/b")
    assert error["code"] == "model_not_found"
    assert says in error["message"]


async def test_what_does_not_fit_on_the_disk_is_not_begun(client: Client, hub: Hub) -> None:
    hub.sizes[UNET] = 10**18
    error = await failed(client)
    assert error["code"] == "disk_full"
    assert "1000000000.1 GB" in error["message"]
    assert [file for file, _ in hub.asked] == ["model_index.json"]


def only_pickles(files: dict[str, bytes]) -> None:
    """Weights in a format that can carry code."""
    files["unet/diffusion_pytorch_model.bin"] = files.pop(UNET)


def own_code(files: dict[str, bytes]) -> None:
    """A part whose class comes with the model."""
    files["unet/model.py"] = b"import os"
    index = json.loads(files["model_index.json"])
    files["model_index.json"] = json.dumps(index | {"unet": ["model", "Net"]}).encode()


def another_kind(files: dict[str, bytes]) -> None:
    """A pipeline that the worker does not run."""
    index = json.loads(files["model_index.json"])
    files["model_index.json"] = json.dumps(index | {"_class_name": "AudioLDMPipeline"}).encode()


def no_index(files: dict[str, bytes]) -> None:
    """No model in diffusers' layout."""
    del files["model_index.json"]


def no_json(files: dict[str, bytes]) -> None:
    """An index that is none."""
    files["model_index.json"] = b"<html>"


def missing_part(files: dict[str, bytes]) -> None:
    """A part that is listed and not there."""
    for name in [name for name in files if name.startswith("vae/")]:
        del files[name]


@pytest.mark.parametrize("damage", [only_pickles, own_code, another_kind, no_index, no_json, missing_part])
async def test_what_could_carry_code_or_would_not_run_is_refused_before_its_weights_come(
    client: Client, hub: Hub, damage: Callable[[dict[str, bytes]], None]
) -> None:
    damage(hub.repositories[NAME])
    assert (await failed(client))["code"] == "model_unsuitable"
    assert {file for file, _ in hub.asked} <= {"model_index.json"}
    assert await names(client) == ["fake"]


async def test_only_what_a_model_is_loaded_from_is_downloaded(client: Client, hub: Hub, models_dir: Path) -> None:
    files = hub.repositories[NAME]
    wanted = set(files)
    files |= {
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "unet/run.py": b"import os",
        "unet/.hidden.json": b"{}",
        "unet/deep/config.json": b"{}",
        "model.ckpt": b"pickle",
        "whole.safetensors": b"all in one",
        "README.md": b"# words",
    }
    # Half of the size, where there is that.
    files["vae/diffusion_pytorch_model.fp16.safetensors"] = b"half"
    await done(client)
    found = listed(models_dir)
    assert set(found) == {*wanted, ".rbee-sd.json"}
    assert found["vae/diffusion_pytorch_model.safetensors"] == b"half"


async def test_a_folder_that_somebody_has_put_there_is_not_overwritten(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    theirs(models_dir, "some-owner--some-model")
    assert (await failed(client))["code"] == "model_not_ours"
    assert listed(models_dir)[UNET]
    assert hub.asked == []


async def test_a_file_that_arrives_damaged_is_not_kept(client: Client, hub: Hub, models_dir: Path) -> None:
    job_id = await held_download(client, hub, models_dir)
    await client.http.delete(f"/v1/jobs/{job_id}")
    await eventually(lambda: fetchers() == [])
    (broken,) = parts(models_dir)
    broken.write_bytes(b"x" * broken.stat().st_size)
    hub.release()
    assert (await failed(client))["code"] == "download_failed"
    await done(client)
    assert listed(models_dir)[UNET] == hub.repositories[NAME][UNET]


@pytest.mark.parametrize("digest", ["/etc/hostname", "../" * 9 + "x", "", "A" * 40, "0" * 39])
async def test_what_the_hub_calls_a_digest_opens_no_path(client: Client, hub: Hub, digest: str) -> None:
    hub.digests[CONFIG] = digest
    assert (await failed(client))["code"] == "download_failed"
    assert hub.asked == []


async def test_a_file_that_fails_is_told_while_others_still_come(client: Client, hub: Hub) -> None:
    hub.held[UNET] = HELD
    hub.digests[CONFIG] = "0" * 40
    assert (await failed(client))["code"] == "download_failed"
    assert UNET in hub.held


async def test_what_is_no_line_of_a_download_is_skipped(tmp_path: Path) -> None:
    said = ["Fetching 3 files", "3", '{"text": "on its way"}', "", '{"done": true}']
    told: list[dict[str, Any]] = []
    downloads = Downloads((sys.executable, "-c", f"print({chr(10).join(said)!r})"), tmp_path)
    await downloads.fetch(NAME, "job", told.append)
    assert told == [{"text": "on its way"}]


async def test_a_download_that_is_not_gone_on_with_for_a_month_is_removed(
    client: Client, hub: Hub, models_dir: Path
) -> None:
    abandoned, recent = models_dir / ".partial" / "a--b", models_dir / ".partial" / "c--d"
    for folder in (abandoned, recent):
        folder.mkdir(parents=True)
        (folder / "some.part").touch()
    os.utime(abandoned, (0, 0))
    await done(client)
    assert not abandoned.exists()
    assert recent.exists()


async def test_a_worker_that_is_told_to_stay_offline_downloads_nothing(
    client: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = await failed(client)
    assert error["code"] == "hub_unreachable"
    assert "HF_HUB_OFFLINE" in error["message"]


async def test_a_hub_that_is_not_there_is_told(client: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert (await failed(client))["code"] == "hub_unreachable"


@pytest.mark.parametrize(
    "name", ["../x", "a", "a/b/c", "/etc/passwd", "a/..", "a--b/c", "a/b.", "-a/b", "a/b c", "é/b"]
)
async def test_a_download_is_named_as_the_hub_names_models(client: Client, name: str) -> None:
    answer = await client.http.post("/v1/jobs", json={"operation": "model_download", "model": name})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


async def test_a_downloaded_model_can_be_deleted_and_others_cannot(client: Client, hub: Hub, models_dir: Path) -> None:
    await done(client)
    theirs(models_dir, "theirs")
    kinds = {each["name"]: each["kind"] for each in (await done(client, "model_list", model=""))["models"]}
    assert kinds == {"fake": "hub", NAME: "download", "theirs": "folder"}
    await done(client, "model_load")
    result = await done(client, "model_delete")
    assert (result["deleted"], result["freed"]) == (True, 12_191_654)
    assert listed(models_dir) == {}
    assert NAME not in await names(client)
    for name, code in (("theirs", "model_not_ours"), ("fake", "model_in_use")):
        assert (await failed(client, "model_delete", model=name))["code"] == code


async def test_a_model_that_jobs_work_with_is_neither_let_go_nor_deleted(
    client: Client, hub: Hub, models_dir: Path, server: Server
) -> None:
    await done(client)
    job_id = await client.submit(model=NAME, steps=150)
    async with client.stream(job_id) as source:
        async for event in source:
            if event.event == "progress":
                break
        for operation in ("model_unload", "model_delete"):
            assert (await failed(client, operation))["code"] == "model_in_use"
        assert NAME in await names(client)


async def test_the_command_line_downloads_a_model_uses_it_and_removes_it(server: Server, hub: Hub) -> None:
    async def models(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rbee_sd", "models", "--url", server.url, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()

    status, output, errors = await models("pull", NAME)
    assert (status, output) == (0, f"{NAME}  downloaded\n"), errors
    assert re.search(r"of \d", errors), errors
    for command, told in (("list", NAME), ("load", "loaded"), ("unload", "unloaded"), ("remove", "removed")):
        status, output, errors = await models(*([command] if command == "list" else [command, NAME]))
        assert status == 0, errors
        assert told in output
    status, _, errors = await models("pull", "some-owner/nothing")
    assert status == 1
    assert "some-owner/nothing" in errors
    assert "Traceback" not in errors
