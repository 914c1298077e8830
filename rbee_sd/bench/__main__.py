"""Entry of `python -m rbee_sd.bench`: one subcommand for each benchmark."""

from __future__ import annotations

import click

from rbee_sd.bench import engine, front, serve, store, studio


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def group() -> None:
    """Benchmarks of the worker on this machine."""


group.add_command(front.command)
group.add_command(engine.command)
group.add_command(serve.command)
group.add_command(store.command)
group.add_command(studio.command)

if __name__ == "__main__":
    group(prog_name="bench")
