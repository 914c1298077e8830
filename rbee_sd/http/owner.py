"""Who a request comes from, so that clients can take turns. A pure decision; no state, no I/O.

An address, for those who have no API key of their own. It is no proof of anything: fairness and quotas hang on it, and
which jobs the dialects take for a client's own, but no right that others do not have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from rbee_sd.http.door import is_loopback

# Stricter than what parses: an IPv6 zone could hold anything, at any length.
ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}", re.ASCII)


def owner_of(peer: str | None, headers: Mapping[str, str]) -> str:
    """The address of a connection's `peer`; of a proxy's on this machine, the one that the proxy names.

    Only from there: anybody else who names an address would be believed to be somebody else each time.
    """
    if peer is None or not is_loopback(peer):
        return peer or ""
    forwarded = headers.get("X-Forwarded-For", "").partition(",")[0]
    return _address(forwarded) or _address(headers.get("X-Real-IP", "")) or peer


def _address(text: str) -> str | None:
    text = text.strip()
    if not ADDRESS.fullmatch(text):
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
