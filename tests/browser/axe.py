"""axe-core, which looks for what people with disabilities would stumble over. For tests only; not part of the project.

The package comes from npm, in the version and with the digest below, into `.venv/`, once.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome

VERSION = "4.14.1"
DIGEST = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
FOLDER = Path(__file__).parents[2] / ".venv" / "axe-core"


def source() -> str:
    """The script, fetched if need be."""
    package = FOLDER / f"axe-core-{VERSION}.tgz"
    if not package.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"axe-core@{VERSION}", "--silent", "--pack-destination", str(FOLDER)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    data = package.read_bytes()
    assert hashlib.sha256(data).hexdigest() == DIGEST, (
        "this is not the axe-core that was looked at; delete .venv/axe-core"
    )
    with tarfile.open(package) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def violations(driver: Chrome, script: str) -> list[str]:
    """What is wrong with the page as it is now: the rule, and where it is broken."""
    driver.execute_script(script)
    run = """
        const done = arguments[0];
        const failed = error => done({violations: [{id: String(error), nodes: []}]});
        axe.run(document, {resultTypes: ["violations"]}).then(done, failed);
    """
    found: dict[str, Any] = driver.execute_async_script(run)
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ] + [rule["id"] for rule in found["violations"] if not rule["nodes"]]
