"""bin/bench prints what it says it prints. How fast this machine is, is no test's business."""

from __future__ import annotations

import json

from tests.e2e.conftest import Run


def test_bench_engine_prints_json_with_every_figure(run: Run) -> None:
    ended = run("bench", "engine", "--quick", "--rounds", "1", "--rows", "1,2", "--json", "-", timeout=300)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert set(found) == {"benchmark", "plan", "machine", "took_s", "figures"}
    assert found["benchmark"] == "engine"
    assert found["plan"]["rows"] == [1, 2]
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert len(figures) == len(found["figures"])
    assert {name for name, figure in figures.items() if figure["aim"] is not None} == {
        "shared_ratio",
        "single_ratio",
        "cancel_steps_p99",
        "newcomer_steps_p99",
    }
    assert figures["shared_ratio"]["better"] == "more"
    assert all(figure["value"] >= 0 for name, figure in figures.items() if not name.endswith("_idle"))
    for name in ("sequential_per_s", "single_per_s", "shared_per_s", "static_per_s", "shared_rows", "forward_2_ms"):
        assert figures[name]["value"] > 0, name
    # The work is the same, whatever the machine: a guided image has two rows.
    assert figures["single_rows"]["value"] == 2


def test_bench_engine_says_what_is_wrong_with_a_model(run: Run) -> None:
    ended = run("bench", "engine", "--quick", "--model", "./nowhere")
    assert ended.returncode == 1
    assert "neither a folder, nor a file, nor a hub id" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_bench_store_prints_json_with_every_figure(run: Run) -> None:
    ended = run("bench", "store", "--quick", "--jobs", "1000", "--json", "-", timeout=120)
    assert ended.returncode == 0, ended.stderr
    figures = {figure["name"]: figure for figure in json.loads(ended.stdout)["figures"]}
    assert figures["jobs"]["value"] == 1000
    assert {name for name, figure in figures.items() if figure["aim"] is not None} == {"start_worst_s", "accept_p99_ms"}
    assert all(figure["value"] > 0 for figure in figures.values())
