"""Who may come in: Host allow-list, origins, API keys. Pure decisions about header values; no state, no I/O.

Any web page can reach a loopback port, under a name of its own (DNS rebinding) or from its own origin. So every
request must name a host that is ours, and one that comes from a page must come from a local page or one that the
settings name.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket

from rbee_sd.errors import SettingsError
from rbee_sd.keys import keys_of
from rbee_sd.settings import Settings

# Stricter than any URL parser: what it does not match is nobody's host, so there is nothing to be misread.
AUTHORITY = re.compile(
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


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
        self._keys = keys_of(settings.api_key, settings.api_keys)
        for name in settings.allowed_hosts:
            if _hostname(name) != name.lower():
                raise SettingsError(
                    f"allowed_hosts takes names without a port, such as images.example.org, not {name!r}"
                )
        for origin in self._origins:
            scheme, _, authority = origin.partition("://")
            if scheme not in ("http", "https") or _hostname(authority) is None:
                raise SettingsError(f"cors_origins takes origins such as https://www.example.org, not {origin!r}")

    def host_allowed(self, header: str | None) -> bool:
        """Whether a Host header names this worker. A browser always sends one, so none is harmless."""
        if header is None:
            return True
        name = _hostname(header)
        return name is not None and (name in self._hosts or self._address_allowed(name))

    def origin_allowed(self, origin: str | None, site: str | None, host: str | None) -> bool:
        """Whether a request with these Origin, Sec-Fetch-Site and Host headers may be answered."""
        if origin is None:
            return site != "cross-site"
        lowered = origin.lower()
        if lowered in self._origins:
            return True
        scheme, _, authority = lowered.partition("://")
        name = _hostname(authority)
        if scheme not in ("http", "https") or name is None:
            return False
        return is_loopback(name) or (host is not None and authority == host.lower())

    @property
    def locked(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._keys)

    def key_name(self, authorization: str | None, api_key: str | None) -> str | None:
        """The name of the key that was sent, empty if it has none or none is asked for; None if it is not right."""
        if not self._keys:
            return ""
        scheme, _, token = (authorization or "").partition(" ")
        # Tornado reads header bytes as Latin-1; this is what was sent.
        sent = (api_key or "").encode("latin-1", "replace")
        if scheme.lower() == "bearer":
            sent = token.strip().encode("latin-1", "replace")
        elif scheme.lower() == "basic" and not sent:
            sent = _password(token)
        return self._keys.name_of(sent)

    def _address_allowed(self, name: str) -> bool:
        # An address, unlike a name, cannot be pointed elsewhere by whoever owns a page.
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._local_only


def _password(token: str) -> bytes:
    """The password of Basic credentials, whoever the user is; empty for what is none."""
    try:
        return base64.b64decode(token.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _hostname(authority: str) -> str | None:
    """The host in `host`, `host:port` or `[address]:port`, in lower case; None for anything else."""
    match = AUTHORITY.fullmatch(authority)
    if match is None or int(match["port"] or 0) > 65535:
        return None
    return (match["address"] or match["name"]).lower()
