"""Entry of bin/smoke and bin/smoke-cancel: `python -m rbee_sd.smoke picture|cancel`."""

from __future__ import annotations

import asyncio
import sys

import click

from rbee_sd.client import AsyncClient, ClientError
from rbee_sd.smoke import SmokeError
from rbee_sd.smoke.cancel import check_cancel
from rbee_sd.smoke.picture import check_picture

CHECKS = {"picture": check_picture, "cancel": check_cancel}


@click.command()
@click.argument("check", type=click.Choice(list(CHECKS)))
@click.option("--url", default="http://127.0.0.1:8600", show_default=True, help="The worker.")
@click.option("--api-key", envvar="RBEE_SD_API_KEY", default="", help="Its key; also in RBEE_SD_API_KEY.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds for the whole check.")
def main(check: str, url: str, api_key: str, timeout: float) -> None:
    """Check a running worker. Exit status 0 when all is well, 1 when not, 2 when used wrongly."""
    try:
        asyncio.run(_run(check, url, api_key, timeout))
    except (SmokeError, ClientError) as error:
        click.echo(f"FAILED: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except TimeoutError:
        click.echo(f"FAILED: not done within {timeout:g} s", err=True)
        sys.exit(1)
    click.echo("OK")


async def _run(check: str, url: str, api_key: str, timeout: float) -> None:
    async with asyncio.timeout(timeout), AsyncClient(url, api_key) as client:
        await CHECKS[check](client)


if __name__ == "__main__":
    main()
