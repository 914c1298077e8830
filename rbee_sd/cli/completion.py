"""`rbee-sd completion`: what makes a shell complete the command line. By click, which asks this program in turn."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_RBEE_SD_COMPLETE"
"""With it in the environment, click answers the shell instead of running a command."""


@click.command("completion", short_help="Completion for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print what makes SHELL complete rbee-sd.

    \b
    bash:  eval "$(rbee-sd completion bash)"       in ~/.bashrc
    zsh:   eval "$(rbee-sd completion zsh)"        in ~/.zshrc
    fish:  rbee-sd completion fish | source        in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(click.get_current_context().find_root().command, {}, "rbee-sd", VARIABLE).source())
