"""The port: who listens there, and whether a worker could."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

from rbee_sd.cli.findings import OK, PROBLEM, WARNING, Finding
from rbee_sd.client import ApiError, AsyncClient, ClientError
from rbee_sd.http.door import is_loopback
from rbee_sd.settings import Settings, worker_url

REFUSED = {
    errno.EACCES: "ports below 1024 are for root: choose a higher one, or put a proxy before it (conf/nginx.conf)",
    errno.EADDRINUSE: "stop what runs there, or choose another port",
    errno.EADDRNOTAVAIL: "host is no address of this machine: take 127.0.0.1, or 0.0.0.0 for all",
}
PATIENCE = 10.0
"""Seconds for a worker to say how it is."""


def port(settings: Settings) -> Iterator[Finding]:
    """A worker that runs there and how it is, or whether one could."""
    open_to_all = not (settings.api_key or settings.api_keys or settings.no_auth)
    if open_to_all and not is_loopback(settings.host):
        advice = "set api_keys or api_key, or no_auth on a network you trust"
        yield Finding(PROBLEM, f"listening on {settings.host} would let everybody in", advice)
    yield asyncio.run(_port(settings))


async def _port(settings: Settings) -> Finding:
    url = worker_url(settings.host, settings.port)
    try:
        async with asyncio.timeout(PATIENCE), AsyncClient(url, settings.api_key, patience=0) as client:
            if not await client.healthy():
                return _free(settings)
            status = await client.result("status")
    except TimeoutError:
        return Finding(PROBLEM, f"port {settings.port}: what listens there does not answer", REFUSED[errno.EADDRINUSE])
    except ApiError as error:
        text = f"a worker runs at {url}, but refuses this call: {error}"
        advice = "give its key with api_key" if error.status == 401 else "see its log"
        return Finding(WARNING, text, advice)
    except ClientError as error:
        return Finding(PROBLEM, f"port {settings.port}: {error}", REFUSED[errno.EADDRINUSE])
    if status["ready"]:
        return Finding(OK, f"a worker runs at {url} with model {status['model']}, and is ready")
    return Finding(WARNING, f"a worker runs at {url}, not ready: {status['reason']}", status["detail"])


def _free(settings: Settings) -> Finding:
    """Whether a worker could listen, tried out for a moment."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the worker does: what an ended one has left behind is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        advice = REFUSED.get(error.errno or 0, "choose another with host and port")
        return Finding(PROBLEM, f"{settings.host}, port {settings.port}: {error.strerror}", advice)
    return Finding(OK, f"no worker runs; port {settings.port} is free")
