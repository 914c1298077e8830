"""Who a request comes from, so that clients can take turns. A pure decision; no state, no I/O.

An address, for that is all there is: everybody uses the one API key. It is no proof of anything, and nothing but
fairness hangs on it.
"""

from __future__ import annotations

import ipaddress
import re

from tornado.httputil import HTTPServerRequest

from rbee_sd.http.door import is_loopback

# Stricter than what parses: an IPv6 zone could hold anything, at any length.
ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}", re.ASCII)


def owner_of(request: HTTPServerRequest) -> str:
    """The client's address; behind a proxy on this machine, the one that the proxy names.

    Only from there: anybody else who names an address would be believed to be somebody else each time.
    """
    peer = request.remote_ip or ""
    if not is_loopback(peer):
        return peer
    forwarded = request.headers.get("X-Forwarded-For", "").partition(",")[0]
    return _address(forwarded) or _address(request.headers.get("X-Real-IP", "")) or peer


def _address(text: str) -> str | None:
    text = text.strip()
    if not ADDRESS.fullmatch(text):
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
