"""The settings as files: `conf/rbee-sd.toml` and `docs/settings.md`, written from their one definition.

Run by a developer (`bin/reference`) after a setting has changed; a test compares. `write` blocks.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from rbee_sd.settings import Settings, environment_name, flag_name, kind_name

TOML = Path("conf/rbee-sd.toml")
TABLE = Path("docs/settings.md")

TOML_HEAD = """\
# Every setting of rbee-sd, with its default. Remove the '#' before a line to change it.
#
#   bin/rbee-sd serve --conf conf/rbee-sd.toml
#
# A flag (--port 8601) goes before an environment variable (RBEE_SD_PORT=8601), which goes before this file.
# An unknown key is an error. Written by bin/reference from rbee_sd/settings.py.
"""

TABLE_HEAD = """\
# Settings

Each setting is a key of the TOML file (`--conf FILE`, or the variable `RBEE_SD_CONF`), an environment variable and a
flag of `rbee-sd serve`. A flag goes before a variable, a variable before the file, the file before the default. In a
variable or a flag, a list is written with commas. An unknown key or variable is an error that names the nearest
known one.

`conf/rbee-sd.toml` holds all of them; `conf/development.toml` and `conf/production.toml` are profiles to start from.

This page is written by `bin/reference` from `rbee_sd/settings.py`.

| key | variable | flag | kind | default | what it does |
|---|---|---|---|---|---|
"""


def toml() -> str:
    """The text of `conf/rbee-sd.toml`."""
    return TOML_HEAD + "".join(_toml_entry(item) for item in fields(Settings))


def table() -> str:
    """The text of `docs/settings.md`."""
    return TABLE_HEAD + "".join(_row(item) for item in fields(Settings))


def write(root: Path) -> None:
    """Write both files under the project's root."""
    (root / TOML).write_text(toml(), encoding="utf-8")
    (root / TABLE).write_text(table(), encoding="utf-8")


def _toml_entry(item: Field[Any]) -> str:
    words = textwrap.wrap(f"{item.metadata['help']} {_bounds(item)}".strip(), 110)
    return "\n" + "".join(f"# {line}\n" for line in words) + f"# {item.name} = {_literal(item.default)}\n"


def _row(item: Field[Any]) -> str:
    cells = (
        f"`{item.name}`",
        f"`{environment_name(item.name)}`",
        f"`{flag_name(item.name)}`",
        ", ".join(filter(None, (kind_name(item.name), _bounds(item).strip("()")))),
        f"`{_literal(item.default)}`",
        item.metadata["help"],
    )
    return "| " + " | ".join(cells) + " |\n"


def _bounds(item: Field[Any]) -> str:
    rules = item.metadata
    if rules["choices"]:
        return f"(one of {', '.join(rules['choices'])})"
    if rules["minimum"] is not None:
        return f"({rules['minimum']} to {rules['maximum']})"
    return ""


def _literal(value: Any) -> str:
    """A default as TOML writes it; JSON's way is the same for all the kinds that settings have."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    write(Path(__file__).parents[1])
