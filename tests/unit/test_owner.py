"""`http.owner`: who a request comes from."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from rbee_sd.http.owner import owner_of

PEER = "203.0.113.9"


def owner(peer: str | None, **headers: str) -> str:
    """The owner of a request from `peer` with these headers; `x_real_ip` stands for X-Real-IP."""
    return owner_of(peer, HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize("peer", [PEER, "127.0.0.1", "2001:db8::7", "::1"])
def test_a_client_is_its_address(peer: str) -> None:
    assert owner(peer) == peer


@pytest.mark.parametrize("proxy", ["127.0.0.1", "127.8.9.1", "::1"])
def test_a_proxy_on_this_machine_names_the_client(proxy: str) -> None:
    assert owner(proxy, x_forwarded_for=PEER) == PEER
    assert owner(proxy, x_real_ip=PEER) == PEER
    assert owner(proxy, x_forwarded_for=f" {PEER} , 10.0.0.1, 10.0.0.2") == PEER
    assert owner(proxy, x_forwarded_for="2001:DB8:0::7") == "2001:db8::7"
    assert owner(proxy, x_forwarded_for=PEER, x_real_ip="198.51.100.1") == PEER


def test_nobody_else_can_name_another() -> None:
    for peer in (PEER, "10.0.0.1", "192.168.1.5", "2001:db8::7"):
        assert owner(peer, x_forwarded_for="198.51.100.1", x_real_ip="198.51.100.1") == peer


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        ",",
        "unknown",
        "_hidden",
        "203.0.113.9:1234",
        "[2001:db8::7]:80",
        "999.1.1.1",
        "1",
        "fe80::1%eth0",
        "a" * 100_000,
        "1." * 50_000,
        "203.0.113.9\x1b[31m",
        "٢٠٣.٠.١١٣.٩",
        "; DROP TABLE",
    ],
)
def test_what_is_no_address_is_nobody(nonsense: str) -> None:
    assert owner("127.0.0.1", x_forwarded_for=nonsense, x_real_ip=nonsense) == "127.0.0.1"
    assert owner("127.0.0.1", x_forwarded_for=nonsense, x_real_ip=PEER) == PEER


def test_a_peer_that_is_unknown_is_one_owner() -> None:
    assert owner(None, x_forwarded_for=PEER) == owner(None) == ""
