"""The worker against its own OpenAPI document: schemathesis sends what the document allows, and what it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.process.conftest import StartWorker

CONFIG = Path(__file__).with_name("schemathesis.toml")
KEY = "sesame"
# Small jobs, none of which is more work than is allowed.
SETTINGS = {"max_side": 128, "max_steps": 6, "max_count": 2, "queue_size": 100_000, "disconnect_grace": 0.3}


def test_no_answer_is_other_than_the_document_says(start_worker: StartWorker, tmp_path: Path) -> None:
    worker, _ = start_worker(api_key=KEY, **SETTINGS)
    command = [
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
        *("--config-file", str(CONFIG), "run", f"{worker.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}"),
        *("--max-examples", "10", "--seed", "6", "--generation-database", "none", "--request-timeout", "15"),
        *("--no-color", "--continue-on-failure"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert counts, ended.stdout[-2000:]
    assert int(counts[1]) == int(counts[2]) > 500
    assert "Traceback" not in worker.log
