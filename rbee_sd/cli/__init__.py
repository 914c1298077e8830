"""The command line: `rbee-sd SUBCOMMAND`. Each subcommand is a module, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from rbee_sd import __version__

SUBCOMMANDS = ("serve", "generate", "jobs", "models", "inspect", "keys", "doctor", "completion")


class Lazy(click.Group):
    """A group that imports only the subcommand it runs: `serve` must listen within half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All subcommands, in the order of the help."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = importlib.import_module(f"rbee_sd.cli.{cmd_name}").command
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rbee-sd")
def group() -> None:
    """A Stable Diffusion worker for one box."""


def main(args: Any = None) -> None:
    """Entry of `python -m rbee_sd` and of the console script. Exit status: see the README."""
    try:
        sys.exit(group.main(args, prog_name="rbee-sd", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        # Ctrl-C, which click turns into this.
        sys.exit(130)
