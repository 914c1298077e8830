"""The settings as flags, and the settings read from them. Used by every subcommand."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import Field, fields
from typing import Any, TypeVar

import click

from rbee_sd import settings
from rbee_sd.errors import SettingsError

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(names: Collection[str] = tuple(settings.HINTS)) -> Callable[[F], F]:
    """Add `--conf` and a flag for each of the settings `names` (all of them by default)."""

    def add(command: F) -> F:
        for item in reversed(fields(settings.Settings)):
            if item.name in names:
                command = _option(item)(command)
        return click.option("--conf", metavar="FILE", help="Settings file (TOML).")(command)

    return add


def read(conf: str | None, flags: dict[str, Any]) -> settings.Settings:
    """The settings of this call. Ends the process with status 2 when they are wrong."""
    with usage_errors():
        return settings.load(flags, os.environ, conf)


@contextmanager
def usage_errors() -> Iterator[None]:
    """What is wrong with a setting, or with a file that one names, is wrong with the call: status 2."""
    try:
        yield
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def _option(item: Field[Any]) -> Callable[[F], F]:
    flag, text = settings.flag_name(item.name), item.metadata["help"]
    if settings.HINTS[item.name] is bool:
        return click.option(flag, item.name, is_flag=True, default=None, help=text)
    return click.option(flag, item.name, metavar=_metavar(item), help=text + _default(item.default))


def _metavar(item: Field[Any]) -> str:
    if item.metadata["choices"]:
        return "|".join(item.metadata["choices"])
    return {int: "N", float: "NUMBER", str: "TEXT"}.get(settings.HINTS[item.name], "A,B,…")


def _default(value: Any) -> str:
    return "" if value in ("", ()) else f"  [default: {value}]"
