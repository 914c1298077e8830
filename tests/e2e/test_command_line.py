"""bin/rbee-sd as a person uses it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from rbee_sd.cli import SUBCOMMANDS
from rbee_sd.jobs.store import DATABASE, Store
from rbee_sd.keys import keys_of
from rbee_sd.smoke.png import size_of
from tests.e2e.conftest import ROOT, LiveWorker, Run, environ, free_port


def test_generate_makes_a_png_with_a_worker_of_its_own_where_none_runs(run: Run, tmp_path: Path) -> None:
    ended = run("rbee-sd", "generate", "a red circle", "-o", "out.png", "--port", str(free_port()), "--seed", "7")
    assert ended.returncode == 0, ended.stderr
    assert size_of((tmp_path / "out.png").read_bytes()) == (128, 128)
    assert "out.png" in ended.stdout
    assert "step 20 of 20" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".part")] == ["out.png"]


def test_generate_uses_the_running_worker_and_both_make_the_same_picture(
    run: Run, live_worker: LiveWorker, tmp_path: Path
) -> None:
    arguments = ("generate", "a red circle", "--seed", "7", "--steps", "5")
    begun = time.monotonic()
    first = run("rbee-sd", *arguments, "-o", "shared.png", "--port", str(live_worker.port))
    took = time.monotonic() - begun
    assert first.returncode == 0, first.stderr
    second = run("rbee-sd", *arguments, "-o", "own.png", "--port", str(free_port()))
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "shared.png").read_bytes() == (tmp_path / "own.png").read_bytes()
    assert "POST /v1/jobs" in live_worker.log.read_text()
    # Its own worker has to load the model; this is no timing test, only the difference between the two.
    assert took < time.monotonic() - begun - took


def test_generate_with_a_count_writes_one_file_for_each_image(
    run: Run, live_worker: LiveWorker, tmp_path: Path
) -> None:
    ended = run(
        "rbee-sd", "generate", "x", "-o", "a.png", "--count", "3", "--steps", "2", "--port", str(live_worker.port)
    )
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png", "a-1.png", "a-2.png"}
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "", "-o", "x.png"),
        ("generate", "a", "--width", "7", "-o", "x.png"),
        ("generate", "a", "--steps", "many", "-o", "x.png"),
        ("generate", "a", "-o", "no/such/folder/x.png"),
        ("generate", "a", "--model", "another", "-o", "x.png"),
        ("generate",),
        ("serve", "--port", "99999999"),
        ("serve", "--prot", "1"),
        ("serve", "--host", "0.0.0.0"),
        ("serve", "--conf", "no-such-file.toml"),
        ("nonsense",),
    ],
)
def test_wrong_use_is_one_clear_message_and_status_2(
    run: Run, live_worker: LiveWorker, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    port = ("--port", str(live_worker.port)) if arguments[0] == "generate" else ()
    ended = run("rbee-sd", *arguments, *port)
    assert ended.returncode == 2, (ended.stdout, ended.stderr)
    assert ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("*.png"))


def test_generate_says_when_the_worker_it_was_told_to_use_is_not_there(run: Run) -> None:
    ended = run("rbee-sd", "generate", "a", "--url", f"http://127.0.0.1:{free_port()}")
    assert ended.returncode == 1
    assert "no worker answers" in ended.stderr


def test_ctrl_c_cancels_the_job_at_once_and_ends_with_130(live_worker: LiveWorker, tmp_path: Path, run: Run) -> None:
    size = ("--width", "1024", "--height", "1024", "--steps", "150")
    process = subprocess.Popen(
        [ROOT / "bin" / "rbee-sd", "generate", "a", "--port", str(live_worker.port), "-o", "never.png", *size],
        cwd=tmp_path,
        env=environ(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("painting"):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert not (tmp_path / "never.png").exists()
    listed = run("rbee-sd", "jobs", "--port", str(live_worker.port)).stdout.splitlines()
    assert "cancelled" in listed[0]


def test_jobs_lists_shows_and_cancels(run: Run, live_worker: LiveWorker) -> None:
    port = ("--port", str(live_worker.port))
    assert run("rbee-sd", "generate", "a small job", "--steps", "2", *port, "-o", "x.png").returncode == 0
    listed = run("rbee-sd", "jobs", *port)
    assert listed.returncode == 0, listed.stderr
    line = next(line for line in listed.stdout.splitlines() if "a small job" in line)
    job_id = line.split()[0]
    shown = run("rbee-sd", "jobs", *port, "show", job_id)
    assert '"state": "completed"' in shown.stdout
    assert run("rbee-sd", "jobs", *port, "cancel", job_id).stdout.strip() == "completed"
    missing = run("rbee-sd", "jobs", *port, "show", "job_unknown")
    assert missing.returncode == 1
    assert "no job with this id" in missing.stderr


def test_doctor_finds_a_healthy_machine_and_the_running_worker(run: Run, live_worker: LiveWorker) -> None:
    ended = run("rbee-sd", "doctor", "--port", str(live_worker.port))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "is ready" in ended.stdout
    assert "device cpu" in ended.stdout


def test_doctor_names_problems_and_what_to_do(run: Run, tmp_path: Path) -> None:
    (tmp_path / "weights.ckpt").write_bytes(b"x")
    ended = run(
        "rbee-sd",
        "doctor",
        "--device",
        "cuda:9",
        "--model",
        "weights.ckpt",
        "--port",
        str(free_port()),
        "--threads",
        "1",
    )
    assert ended.returncode == 1
    assert "no device 'cuda:9'" in ended.stdout
    assert "not a .safetensors file" in ended.stdout
    assert ended.stdout.count("->") >= 2


def test_doctor_tells_what_is_kept_and_a_database_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / DATABASE)
    store.open()
    store.close()
    arguments = ("rbee-sd", "doctor", "--state-dir", str(tmp_path), "--port", str(free_port()))
    ended = run(*arguments)
    assert "jobs kept: 0 ended, 0 that go on" in ended.stdout
    (tmp_path / DATABASE).write_text("notes, not jobs\n" * 1000)
    ended = run(*arguments)
    assert ended.returncode == 1
    assert "the database of jobs cannot be read" in ended.stdout


def test_keys_are_made_listed_and_removed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = run("rbee-sd", "keys", "--api-keys", str(path), "add", "alice")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert keys_of("", str(path)).name_of(key.encode()) == "alice"
    listed = run("rbee-sd", "keys", "--api-keys", str(path), "list")
    assert listed.stdout.startswith("alice  ")
    assert key not in listed.stdout
    assert run("rbee-sd", "keys", "--api-keys", str(path), "remove", "alice").returncode == 0
    assert run("rbee-sd", "keys", "--api-keys", str(path), "list").stdout == ""
    for arguments in (("remove", "alice"), ("add", "1")):
        refused = run("rbee-sd", "keys", "--api-keys", str(path), *arguments)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
    assert "in which file" in run("rbee-sd", "keys", "list").stderr


def test_doctor_finds_a_state_folder_without_a_home_a_problem(run: Run) -> None:
    ended = run("rbee-sd", "doctor", "--state-dir", "~nobody-of-this-name/x", "--port", str(free_port()))
    assert ended.returncode == 1
    assert "set state_dir" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_every_subcommand_has_help(run: Run) -> None:
    for subcommand in SUBCOMMANDS:
        ended = run("rbee-sd", subcommand, "--help")
        assert ended.returncode == 0, ended.stderr
        assert "Usage: rbee-sd" in ended.stdout


def started(arguments: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    """`generate` of a long job in the background, by a worker of its own with the fake pipeline."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "temporary").mkdir()
    faulty = ("--port", str(free_port()), "--fake-pipeline", "faults")
    return subprocess.Popen(
        [ROOT / "bin" / "rbee-sd", "generate", "a", *faulty, *arguments],
        cwd=tmp_path,
        env=environ(tmp_path) | {"TMPDIR": str(tmp_path / "temporary")},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_generate_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with started(["--steps", "150", "-o", "never.png"], tmp_path) as process:
        (tmp_path / "faults" / "slow").write_text("0.2")
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("painting"):
                break
        process.send_signal(number)
        assert process.wait(30) == status
        assert "Traceback" not in process.stderr.read()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "never.png").exists()


def test_generate_gives_up_when_its_own_engine_dies_at_every_start(tmp_path: Path) -> None:
    with started(["-o", "never.png"], tmp_path) as process:
        (tmp_path / "faults" / "crash-on-start").touch()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "dies at every start" in errors


def test_generate_names_what_its_model_setting_leads_to(run: Run, live_worker: LiveWorker, tmp_path: Path) -> None:
    demo = ROOT / "rbee_sd" / "engine" / "demo"
    ended = run(
        "rbee-sd", "generate", "a", "--model", str(demo), "--steps", "2", "-o", "a.png", "--port", str(live_worker.port)
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "nonsense", "ftp://localhost"])
def test_an_address_that_is_none_is_a_message_and_no_traceback(run: Run, url: str) -> None:
    ended = run("rbee-sd", "jobs", "--url", url)
    assert ended.returncode == 1
    assert ended.stderr.startswith("rbee-sd: ")
    assert "Traceback" not in ended.stderr


def test_jobs_asked_for_wrongly_is_status_2(run: Run, live_worker: LiveWorker) -> None:
    for arguments in (("list", "--limit", "5000"), ("list", "--state", "bogus"), ("list", "--state", "failed&limit=1")):
        ended = run("rbee-sd", "jobs", "--port", str(live_worker.port), *arguments)
        assert ended.returncode == 2, ended.stderr
