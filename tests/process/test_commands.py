"""The command line as a process, against a worker that is one too, with the fake pipeline."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rbee_sd.smoke.png import size_of
from tests.conftest import Client, Faults, eventually
from tests.e2e.conftest import ROOT, environ, free_port
from tests.pictures import chunk, png
from tests.process.conftest import StartWorker

COMMAND = (sys.executable, "-m", "rbee_sd")
Ended = tuple[int, str, str]
Call = Callable[..., Any]


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a call: a home of its own, and no terminal that could show pictures."""
    kept = {name: value for name, value in environ(folder).items() if name not in ("TMUX", "KITTY_WINDOW_ID", "TERM")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **more}


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Run the command line in the test's folder: `await call("jobs", stdin="…")` -> status, output, errors."""

    async def run(*arguments: str, stdin: str = "", **more: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=tmp_path,
            env=surroundings(tmp_path, **more),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(stdin.encode())
        assert b"Traceback" not in errors, errors.decode()
        return process.returncode or 0, output.decode(), errors.decode()

    return run


@pytest.fixture
def worker(start_worker: StartWorker) -> Client:
    """A client of a running worker."""
    return start_worker()[1]


def url_of(client: Client) -> str:
    """Its address."""
    return str(client.http.base_url).rstrip("/")


def files(folder: Path) -> set[str]:
    """The pictures in a folder, and what was left of any."""
    return {path.name for path in folder.iterdir() if path.suffix in (".png", ".part")}


async def test_several_prompts_are_made_together_and_numbered_in_their_order(
    worker: Client, call: Call, tmp_path: Path
) -> None:
    arguments = ("a", "b", "-o", "o.png", "--count", "2", "--steps", "2", "--seed", "7", "--url", url_of(worker))
    status, output, errors = await call("generate", *arguments)
    assert status == 0, errors
    assert files(tmp_path) == {"o.png", "o-1.png", "o-2.png", "o-3.png"}
    assert len(output.splitlines()) == 4
    assert "o-3.png  64 x 64, seed 8" in output
    # The same seeds, so the same colours, whatever the prompt.
    assert Image.open(tmp_path / "o.png").tobytes() == Image.open(tmp_path / "o-2.png").tobytes()
    assert "[2/2] step 2 of 2" in errors


async def test_without_a_file_pictures_are_named_after_their_seed(worker: Client, call: Call, tmp_path: Path) -> None:
    status, _, errors = await call("generate", "a", "b", "--seed", "7", "--steps", "1", "--url", url_of(worker))
    assert status == 0, errors
    assert files(tmp_path) == {"rbee-sd-7.png", "rbee-sd-7-1.png"}


async def test_the_ending_of_the_file_says_its_format(worker: Client, call: Call, tmp_path: Path) -> None:
    common = ("--steps", "1", "--seed", "7", "--preview", "--url", url_of(worker))
    for arguments in (
        ("-o", "a.jpg", "--quality", "50"),
        ("--format", "jpeg"),
        ("-o", "b.JPEG"),
        ("-o", "c", "--format", "jpeg"),
    ):
        status, _, errors = await call("generate", "a", *arguments, *common)
        assert status == 0, errors
        assert "\x1b_G" not in errors
    for name in ("a.jpg", "rbee-sd-7.jpeg", "b.JPEG", "c"):
        assert (tmp_path / name).read_bytes().startswith(b"\xff\xd8\xff")


async def test_json_tells_of_each_prompt_and_one_that_is_refused_does_not_stop_the_others(
    worker: Client, call: Call, tmp_path: Path
) -> None:
    arguments = ("", "gr\u00fcn", "-o", "o.png", "--steps", "1", "--seed", "3", "--json", "--url", url_of(worker))
    status, output, errors = await call("generate", *arguments)
    assert status == 2
    assert "prompt" in errors
    told = {line["prompt"]: line for line in map(json.loads, output.splitlines())}
    assert told[""]["error"]["code"] == "invalid_request"
    made = told["gr\u00fcn"]
    assert made["images"] == [{"file": "o-1.png", "index": 0, "seed": 3, "flagged": False}]
    assert (made["seed"], made["width"], made["height"]) == (3, 64, 64)
    assert made["job_id"].startswith("job_")
    assert files(tmp_path) == {"o-1.png"}


async def test_a_prompt_can_be_piped_in(worker: Client, call: Call) -> None:
    status, _, errors = await call(
        "generate", "-o", "o.png", "--steps", "1", "--url", url_of(worker), stdin="a red\ncircle\n"
    )
    assert status == 0, errors
    (job,) = (await worker.http.get("/v1/jobs")).json()["jobs"]
    assert job["request"]["prompt"] == "a red\ncircle"


async def test_a_picture_that_cannot_be_written_is_status_1(worker: Client, call: Call, tmp_path: Path) -> None:
    arguments = ("--steps", "1", "--url", url_of(worker), "-o", "x" * 250 + ".png")
    status, _, errors = await call("generate", "a", "b", *arguments)
    assert status == 1, errors
    assert "File name too long" in errors
    assert files(tmp_path) == set()


async def test_pictures_go_where_a_link_leads_and_through_a_pipe(worker: Client, call: Call, tmp_path: Path) -> None:
    url = url_of(worker)
    (tmp_path / "link.png").symlink_to("real.png")
    os.mkfifo(tmp_path / "pipe.png")
    reading = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe.png").read_bytes))
    for name in ("link.png", "pipe.png"):
        status, _, errors = await call("generate", "a", "--steps", "1", "--url", url, "-o", name)
        assert status == 0, errors
    assert (tmp_path / "link.png").is_symlink()
    assert (await reading).startswith(b"\x89PNG")
    assert (tmp_path / "real.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "pipe.png").is_fifo()
    status, _, errors = await call("generate", "a", "--url", url, "-o", "-")
    assert status == 2, errors


async def test_where_nobody_reads_what_is_told_all_pictures_are_written(worker: Client, tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND, "generate", "a", "b", "--json", "-o", "y.png"),
        *("--steps", "1", "--url", url_of(worker)),
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await child.communicate()
    assert child.returncode == 1
    assert b"Traceback" not in errors
    assert files(tmp_path) == {"y.png", "y-1.png"}


async def test_ctrl_c_cancels_all_that_was_submitted(worker: Client, faults: Faults, tmp_path: Path) -> None:
    faults.on("slow", "0.2")
    process = subprocess.Popen(
        [*COMMAND, "generate", "a", "b", "c", "--steps", "150", "--url", url_of(worker)],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    async def states() -> list[str]:
        return [job["state"] for job in (await worker.http.get("/v1/jobs")).json()["jobs"]]

    async def all_there() -> bool:
        return sorted(await states()) == ["queued", "queued", "running"]

    await eventually(all_there)
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert await states() == ["cancelled"] * 3
    assert files(tmp_path) == set()


async def test_watching_a_job_tells_of_it_and_leaving_does_not_cancel_it(
    worker: Client, call: Call, faults: Faults, tmp_path: Path
) -> None:
    faults.on("slow", "0.1")
    job_id = await worker.submit(steps=150)
    watch = ("jobs", "--url", url_of(worker), "watch", job_id)
    process = subprocess.Popen(
        [*COMMAND, *watch], env=surroundings(tmp_path), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    assert "step" in await asyncio.to_thread(process.stderr.readline)
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    watching = asyncio.ensure_future(call(*watch))
    await asyncio.wait([watching], timeout=1.5)
    assert (await worker.job(job_id))["state"] == "running"
    faults.off("slow")
    status, output, errors = await watching
    assert (status, output) == (0, f"{job_id}  completed, 1 images\n"), errors
    # One that has ended already.
    assert (await call(*watch))[:2] == (0, output)


async def test_watching_a_job_that_fails_or_is_not_there_is_status_1(
    worker: Client, call: Call, faults: Faults
) -> None:
    faults.on("oom")
    job_id = await worker.submit(steps=2)
    status, _, errors = await call("jobs", "--url", url_of(worker), "watch", job_id)
    assert status == 1
    assert "memory" in errors
    status, _, errors = await call("jobs", "--url", url_of(worker), "watch", "job_unknown")
    assert status == 1
    assert "no job with this id" in errors


async def test_watching_all_jobs_tells_what_happens_to_each(worker: Client, tmp_path: Path) -> None:
    jobs: list[str] = []
    for as_json in (False, True):
        arguments = [*COMMAND, "jobs", "--url", url_of(worker), "watch", *(["--json"] if as_json else [])]
        process = subprocess.Popen(
            arguments, env=surroundings(tmp_path), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        line = asyncio.ensure_future(asyncio.to_thread(process.stdout.readline))
        while not line.done():
            # There is nothing to see of it before the first event.
            jobs.append(await worker.submit(steps=1))
            await asyncio.wait([line], timeout=0.2)
        first = await line
        assert any(job_id in first for job_id in jobs)
        assert json.loads(first)["event"] if as_json else re.match(r"\d\d:\d\d:\d\d  job_", first)
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 130


async def test_jobs_are_listed_as_json_and_cancelled_several_at_once(
    worker: Client, call: Call, faults: Faults
) -> None:
    faults.on("slow", "0.2")
    jobs = [await worker.submit(steps=150) for _ in range(2)]
    status, output, _ = await call("jobs", "--url", url_of(worker), "list", "--json")
    assert status == 0
    assert [json.loads(line)["job_id"] for line in output.splitlines()] == jobs[::-1]
    assert (await call("jobs", "--url", url_of(worker), "cancel", *jobs))[:2] == (0, "cancelled\ncancelled\n")


async def test_inspect_tells_how_a_picture_was_made(call: Call, tmp_path: Path) -> None:
    text = "a lighthouse\nNegative prompt: fog\nSteps: 4, Sampler: Euler a, Seed: 5, Size: 64x64, Clip skip: 2"
    (tmp_path / "a.png").write_bytes(png(chunk(b"tEXt", b"parameters\0" + text.encode())))
    status, output, _ = await call("inspect", "a.png")
    assert status == 0
    assert text in output
    assert re.search(r'scheduler +"euler_a"', output)
    status, output, _ = await call("inspect", "a.png", "--json")
    assert json.loads(output)["fields"]["negative_prompt"] == "fog"
    assert json.loads(output)["settings"]["Clip skip"] == "2"
    (tmp_path / "b.png").write_bytes(png())
    (tmp_path / "c.png").write_bytes(png()[:50])
    for name, reason in (("b.png", "does not say"), ("c.png", "truncated")):
        status, _, errors = await call("inspect", name)
        assert (status, reason in errors) == (1, True), errors
    assert (await call("inspect", "missing.png"))[0] == 2


async def test_a_picture_cannot_command_the_terminal(call: Call, tmp_path: Path) -> None:
    text = "\x1b]0;owned\x07\x1b[2J\u009b2J\u3000\u65e5\nSteps: 4, Seed: 5, Size: 64x64"
    (tmp_path / "a.png").write_bytes(png(chunk(b"tEXt", b"parameters\0" + text.encode())))
    status, output, _ = await call("inspect", "a.png")
    assert status == 0
    assert not set(output) & {"\x1b", "\x07", "\u009b"}
    assert "\u3000\u65e5\nSteps: 4" in output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_printed_and_answers(call: Call, shell: str) -> None:
    status, output, _ = await call("completion", shell)
    assert status == 0
    assert f"_RBEE_SD_COMPLETE={shell}_complete" in output
    variables = {"_RBEE_SD_COMPLETE": f"{shell}_complete", "COMP_WORDS": "rbee-sd jobs wa", "COMP_CWORD": "2"}
    if shell == "fish":
        variables["COMP_CWORD"] = "wa"
    assert "watch" in (await call(**variables))[1]


async def test_bash_completes_a_command(call: Call, tmp_path: Path) -> None:
    program = tmp_path / "rbee-sd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rbee_sd "$@"\n')
    program.chmod(0o755)
    script = (
        f'PATH={tmp_path}:$PATH; eval "$(rbee-sd completion bash)"; COMP_WORDS=(rbee-sd gen); COMP_CWORD=1; '
        '_rbee_sd_completion rbee-sd; echo "${COMPREPLY[@]}"'
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=surroundings(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output.decode().strip() == "generate"


async def on_a_terminal(folder: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Run the command line with a terminal for all three streams; returns the status and what the terminal was sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=surroundings(folder, **more),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)

    def read() -> bytes:
        told = b""
        try:
            while part := os.read(master, 65536):
                told += part
        except OSError:
            # What Linux says when nobody holds the other end any more.
            return told
        return told

    told = await asyncio.to_thread(read)
    status = await asyncio.to_thread(process.wait, 30)
    os.close(master)
    return status, told.decode()


async def test_on_a_terminal_there_is_one_bar_for_all_jobs(worker: Client, tmp_path: Path, faults: Faults) -> None:
    faults.on("slow", "0.02")
    status, told = await on_a_terminal(
        tmp_path, "generate", "a", "b", "--steps", "10", "--seed", "1", "--url", url_of(worker)
    )
    assert status == 0, told
    assert "20/20" in told
    assert "step 10 of 10" not in told
    assert "\x1b_G" not in told


@pytest.mark.parametrize(
    ("arguments", "variables", "shown"),
    [
        ((), {"TERM": "xterm-kitty"}, "\x1b_Ga=T,f=100"),
        ((), {"TERM_PROGRAM": "iTerm.app"}, "\x1b]1337;File=inline=1"),
        (("--preview",), {}, "\x1b_Ga=T,f=100"),
        (("--no-preview",), {"TERM": "xterm-kitty"}, ""),
        ((), {"TERM": "xterm-kitty", "TMUX": "socket"}, ""),
    ],
)
async def test_pictures_are_shown_where_the_terminal_can(
    worker: Client, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], shown: str
) -> None:
    status, told = await on_a_terminal(
        tmp_path, "generate", "a", "--steps", "2", *arguments, "--url", url_of(worker), **variables
    )
    assert status == 0, told
    if shown:
        assert shown in told
    else:
        assert "\x1b_G" not in told
        assert "\x1b]1337" not in told


async def test_generate_with_nothing_said_on_a_terminal_does_not_wait_for_typing(tmp_path: Path) -> None:
    status, told = await on_a_terminal(tmp_path, "generate", "--port", str(free_port()))
    assert status == 2
    assert "rbee-sd generate PROMPT" in told


async def test_its_own_worker_is_of_nobody_elses_business(call: Call, faults: Faults, tmp_path: Path) -> None:
    # What guards a worker that others use must not stand in the way of one for this call.
    (tmp_path / "rbee-sd.toml").write_text('client_jobs = 1\nclient_rate = 0.1\napi_key = "secret"\nhost = "0.0.0.0"\n')
    arguments = ("--conf", "rbee-sd.toml", "--port", str(free_port()), "--fake-pipeline", str(faults.folder))
    status, _, errors = await call("generate", "a", "b", "c", "-o", "o.png", "--steps", "1", *arguments)
    assert status == 0, errors
    assert size_of((tmp_path / "o-2.png").read_bytes()) == (64, 64)
