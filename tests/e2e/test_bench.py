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
        "difference_float32",
    }
    assert figures["difference_float32"]["value"] <= 2
    assert figures["difference_float32_contrast"]["value"] > 10
    assert figures["difference_float32_rows"]["value"] == 16
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


def test_bench_serve_prints_json_with_every_figure(run: Run) -> None:
    ended = run("bench", "serve", "--quick", "--max-rows", "16", "--json", "-", timeout=400)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["benchmark"] == "serve"
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert len(figures) == len(found["figures"])
    assert {name: figure["aim"] for name, figure in figures.items() if figure["aim"] is not None} == {
        "served_ratio": 1.5,
        "served_idle": 3,
        "newcomer_steps_p99": 2,
        "cancel_steps_p99": 1,
    }
    for name in ("served_per_s", "sequential_per_s", "step_ms", "newcomer_p50_ms", "front_peak_mb", "engine_peak_mb"):
        assert figures[name]["value"] > 0, name
    # The work is the same, whatever the machine: eight guided images of two rows fit, and one is not alone.
    assert figures["places"]["value"] == 8
    assert 2 < figures["served_rows"]["value"] <= 16
    assert 0 < figures["served_idle"]["value"] < 100
    assert figures["newcomer_steps_p50"]["value"] >= 1
    # Who counts from the request has counted all that who counts from its arrival has.
    for later, sooner in (("newcomer_steps", "newcomer_post_steps"), ("cancel_steps", "cancel_delete_steps")):
        assert 0 <= figures[f"{later}_worst"]["value"] <= figures[f"{sooner}_worst"]["value"]


def test_bench_store_prints_json_with_every_figure(run: Run) -> None:
    ended = run("bench", "store", "--quick", "--jobs", "1000", "--json", "-", timeout=120)
    assert ended.returncode == 0, ended.stderr
    figures = {figure["name"]: figure for figure in json.loads(ended.stdout)["figures"]}
    assert figures["jobs"]["value"] == 1000
    assert {name for name, figure in figures.items() if figure["aim"] is not None} == {"start_worst_s", "accept_p99_ms"}
    assert all(figure["value"] > 0 for figure in figures.values())
