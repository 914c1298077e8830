"""`rbee-sd doctor`: looks at what the worker needs, and says what to do about each finding."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from rbee_sd.cli import options
from rbee_sd.cli.findings import PROBLEM, Finding, machine, model_files, network, storage
from rbee_sd.settings import Settings


@click.command("doctor", short_help="Check this machine and its worker.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each finding.")
@options.with_settings()
def command(conf: str | None, as_json: bool, **flags: Any) -> None:
    """Check device, versions, memory, disk, port and model files. Exit status 1 when something is a problem."""
    settings = options.read(conf, flags)
    problems = 0
    for finding in _findings(settings):
        problems += finding.level == PROBLEM
        click.echo(json.dumps(asdict(finding), ensure_ascii=False) if as_json else _lines(finding))
    sys.exit(1 if problems else 0)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield from machine.versions()
    yield from machine.device(settings)
    yield from machine.memory()
    yield from machine.open_files()
    yield from storage.state_folder(settings)
    yield from storage.key_file(settings)
    yield from storage.lora_folder(settings)
    yield from model_files.model(settings)
    yield from network.port(settings)


def _lines(finding: Finding) -> str:
    advice = f"\n         -> {finding.advice}" if finding.advice else ""
    return f"{finding.level:<8} {finding.text}{advice}"
