"""`bin/bench studio` prints what it says it prints. How fast this machine is, is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.usefixtures("chromium")
def test_bench_studio_prints_json_with_every_figure() -> None:
    command = [sys.executable, "-m", "rbee_sd.bench", "studio", "--quick", "--jobs", "200", "--json", "-"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    figures = {figure["name"]: figure for figure in json.loads(ended.stdout)["figures"]}
    assert {name for name, figure in figures.items() if figure["aim"] is not None} == {
        "page_kb",
        "paint_ms",
        "paint_worst_ms",
        "watch_frame_p95_ms",
        "gallery_128_late",
        "gallery_1024_late",
    }
    for name in ("page_kb", "page_files", "paint_ms", "previews_shown", "gallery_1024_screen_p50_ms"):
        assert figures[name]["value"] > 0, name
    # However many there are, a screenful is in the page.
    assert figures["gallery_128_elements"]["value"] < 500
    assert figures["page_kb"]["met"]


def test_bench_studio_without_selenium_says_what_it_needs() -> None:
    script = "import sys; sys.modules['selenium'] = None; from rbee_sd.bench.__main__ import group; group(['studio'])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "bin/bench studio needs what the tests need" in ended.stderr
    assert "Traceback" not in ended.stderr
