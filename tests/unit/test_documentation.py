"""What the documentation promises to list, it lists: settings, routes, events, error codes, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rbee_sd import reference
from rbee_sd.cli import SUBCOMMANDS
from rbee_sd.http.routes import ROUTES
from rbee_sd.operations.table import OPERATIONS
from rbee_sd.settings import load
from rbee_sd.worker.worker import Health

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "rbee_sd").rglob("*.py")}


def test_the_settings_file_and_table_are_what_the_definitions_say() -> None:
    assert (ROOT / reference.TOML).read_text(encoding="utf-8") == reference.toml(), "run bin/reference"
    assert (ROOT / reference.TABLE).read_text(encoding="utf-8") == reference.table(), "run bin/reference"


@pytest.mark.parametrize("name", ["rbee-sd.toml", "development.toml", "production.toml"])
def test_every_settings_file_loads(name: str) -> None:
    load(conf=ROOT / "conf" / name)


def test_the_settings_file_with_every_comment_removed_holds_the_defaults(tmp_path: Path) -> None:
    lines = (ROOT / reference.TOML).read_text(encoding="utf-8").splitlines()
    live = [line.removeprefix("# ") for line in lines if re.match(r"# \w+ = ", line)]
    file = tmp_path / "all.toml"
    file.write_text("\n".join(live))
    assert load(conf=file) == load()


def test_every_route_is_documented() -> None:
    for pattern, _ in ROUTES:
        path = pattern.replace("studio/([^/]+)", "studio/{file}").replace("([^/]+)", "{id}")
        path = path.replace("([0-9]+)", "{n}").replace(r"\.", ".")
        assert re.search(rf"`[A-Z]+ {re.escape(path)}(\?[^`]*)?`", API), path


def test_every_operation_is_documented() -> None:
    for name in OPERATIONS:
        assert f"### {name}\n" in API


def test_every_field_is_documented_and_every_older_name_of_one() -> None:
    for name, operation in OPERATIONS.items():
        for field in {*operation.request.model_fields, *operation.request.aliases}:
            assert f"`{field}`" in API, (name, field)


def test_every_event_is_documented() -> None:
    emitted = {name for text in SOURCES.values() for name in re.findall(r'\.emit\("(\w+)"|State\.\w+, "(\w+)"', text)}
    names = {name for pair in emitted for name in pair if name}
    assert names == {"queued", "started", "narration", "progress", "preview", "complete", "error", "cancelled"}
    for name in names:
        assert f"\n| `{name}` |" in API


def test_every_error_code_is_documented() -> None:
    raised = {code for text in SOURCES.values() for code in re.findall(r'RequestError\(\s*\d{3},\s*"(\w+)"', text)}
    failed = {
        code
        for text in SOURCES.values()
        for code in re.findall(r'(?:\.fail\(job, |Failed\(job_id, |GenerationError\(|Fatal\()"(\w+)"', text)
    }
    assert len(raised) > 10
    assert len(failed) >= 6
    for code in raised | failed:
        assert f"`{code}`" in API, code


def test_every_test_that_reliability_names_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 40
    assert {name for name in named if f"def {name}(" not in tests} == set()
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def metric_names() -> set[str]:
    """The metrics that the source makes, without what Prometheus adds to a name."""
    source = (ROOT / "rbee_sd" / "metrics.py").read_text(encoding="utf-8")
    return set(re.findall(r'"(rbee_sd_[a-z_]+)"', source)) - {"rbee_sd_front", "rbee_sd_engine"}


def test_every_metric_is_documented() -> None:
    assert len(metric_names()) > 15
    for name in metric_names():
        assert f"`{name}`" in API or f"`{name}_total`" in API, name


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "prometheus-alerts.yml"])
def test_what_is_shown_and_what_alarms_are_metrics_there_are(file: str) -> None:
    text = (ROOT / "conf" / file).read_text(encoding="utf-8")
    named = set(re.findall(r"rbee_sd_[a-z_]+", text))
    processes = {f"rbee_sd_{process}_process_resident_memory_bytes" for process in ("front", "engine")}
    assert len(named) > 4
    for name in named - processes:
        assert name in metric_names() or re.sub("_(total|bucket|sum|count)$", "", name) in metric_names(), name


def test_the_dashboard_has_a_panel_for_every_metric() -> None:
    text = (ROOT / "conf" / "grafana-dashboard.json").read_text(encoding="utf-8")
    assert {name for name in metric_names() if name not in text} == set()


def test_every_reason_of_ready_is_documented() -> None:
    for reason in Health:
        # When it is stopped there is nobody left to ask.
        assert reason in (Health.READY, Health.STOPPED) or f"`{reason}`" in API, reason


def test_every_command_is_in_the_readme() -> None:
    for name in SUBCOMMANDS:
        assert f"bin/rbee-sd {name}" in README
    scripts = {path.name for path in (ROOT / "bin").iterdir() if path.name not in ("environment", "rbee-sd")}
    documents = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for script in scripts:
        assert f"bin/{script}" in documents, script


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), (document.name, target)
