"""axe-core, which looks for what people with disabilities would stumble over. For tests only; not part of the project.

The package comes from npm, in the version and with the digest below, into `.venv/`, once.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome

VERSION = "4.14.1"
DIGEST = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
FOLDER = Path(__file__).parents[2] / ".venv" / "axe-core"


def source() -> str:
    """The script, fetched if need be."""
    package = FOLDER / f"axe-core-{VERSION}.tgz"
    if not package.exists() or not _is_it(package):
        _fetch(package)
    with tarfile.open(package) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def _fetch(package: Path) -> None:
    """Get it from npm. It has its name only when all of it is there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as aside:
        command = ["npm", "pack", f"axe-core@{VERSION}", "--pack-destination", aside]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 0, f"npm did not fetch axe-core:\n{done.stderr}"
        fetched = Path(aside) / package.name
        assert _is_it(fetched), "npm fetched another axe-core than the one that was looked at"
        fetched.replace(package)


def _is_it(package: Path) -> bool:
    return hashlib.sha256(package.read_bytes()).hexdigest() == DIGEST


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
