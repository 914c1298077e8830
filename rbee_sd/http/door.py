"""Who may come in: Host allow-list, origins, API key. Pure decisions about header values; no state, no I/O.

Any web page can reach a loopback port, under a name of its own (DNS rebinding) or from its own origin. So every
request must name a host that is ours, and one that comes from a page must come from a local page or one that the
settings name.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from rbee_sd.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether an address or name to listen on is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Door:
    """The rules, made once from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._local_only = is_loopback(settings.host)
        self._hosts = {"localhost", *(name.lower() for name in settings.allowed_hosts)}
        if not self._local_only:
            self._hosts.add(socket.gethostname().lower())
        self._origins = {origin.lower().rstrip("/") for origin in settings.cors_origins}
        self._key = settings.api_key.encode()

    def host_allowed(self, header: str | None) -> bool:
        """Whether a Host header names this worker. A browser always sends one, so none is harmless."""
        if header is None:
            return True
        name = _hostname(f"//{header}")
        return name is not None and (name in self._hosts or self._address_allowed(name))

    def origin_allowed(self, origin: str | None, site: str | None, host: str | None) -> bool:
        """Whether a request with these Origin, Sec-Fetch-Site and Host headers may be answered."""
        if origin is None:
            return site != "cross-site"
        lowered = origin.lower()
        if lowered in self._origins:
            return True
        parts = lowered.split("://", 1)
        if len(parts) != 2 or parts[0] not in ("http", "https"):
            return False
        name = _hostname(lowered)
        if name is None:
            return False
        return name == "localhost" or is_loopback(name) or (host is not None and parts[1] == host.lower())

    def key_accepted(self, authorization: str | None, api_key: str | None) -> bool:
        """Whether the key that was sent, if one is asked for, is right. Takes the same time for every wrong one."""
        if not self._key:
            return True
        sent = api_key or ""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            sent = token.strip()
        return hmac.compare_digest(sent.encode(), self._key)

    def _address_allowed(self, name: str) -> bool:
        # An address, unlike a name, cannot be pointed elsewhere by whoever owns a page.
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._local_only


def _hostname(url: str) -> str | None:
    """The host of an URL in lower case, None when it has none or more than a host and port."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises for a port that is no number)
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname
