"""`http.door`: which hosts, origins and keys come in."""

from __future__ import annotations

import pytest

from rbee_sd.errors import SettingsError
from rbee_sd.http.door import Door, is_loopback
from rbee_sd.settings import Settings

OURS = "localhost:8600"


def door(**changes: object) -> Door:
    """The door of a worker with these settings."""
    return Door(Settings(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_addresses_of_this_machine_only_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.evil.example", "127.1"])
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8600",
        "LOCALHOST:8600",
        "LocalHost",
        "localhost:1",
        "127.0.0.1",
        "127.0.0.1:8600",
        "127.1.2.3:8600",
        "[::1]",
        "[::1]:8600",
        "[0:0:0:0:0:0:0:1]:8600",
        None,
    ],
)
def test_local_hosts_come_in(host: str | None) -> None:
    assert door().host_allowed(host)
    assert door(host="0.0.0.0", no_auth=True).host_allowed(host)


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8600",
    # Names that rebinding uses, and look-alikes.
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "evil.example.",
    "localhost.evil.example.",
    "notlocalhost",
    "localhost.localdomain.evil",
    "xn--lcalhost-0xa",
    "ⓛocalhost",
    "localhost\u3002",
    # User info and other ways to say two things at once.
    "localhost@evil.example",
    "localhost:8600@evil.example",
    "evil.example@localhost",
    "@localhost",
    "localhost, evil.example",
    "evil.example, localhost",
    "localhost evil.example",
    "localhost/evil.example",
    "localhost/",
    "localhost?evil.example",
    "localhost?",
    "localhost#evil.example",
    "localhost#",
    "localhost\\evil.example",
    "evil.example\\localhost",
    "local\thost",
    "http://localhost",
    "//localhost",
    # Ports that are none.
    "localhost:port",
    "localhost:-1",
    "localhost:65536",
    "localhost:80:80",
    "localhost:8600:evil.example",
    "localhost:+80",
    # Brackets in odd places.
    "[::1].evil.example",
    "[::1]evil.example",
    "evil.example[::1]",
    "127.0.0.1[::1]",
    "[::1",
    "::1]",
    "[localhost]",
    "[evil.example]",
    "[]",
    # Addresses that are not ours, or no addresses.
    "",
    " ",
    ":8600",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "localhost%2eevil.example",
    "%6cocalhost",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_foreign_hosts_stay_out(host: str) -> None:
    assert not door().host_allowed(host)
    assert not door(host="0.0.0.0", no_auth=True).host_allowed(host)


@pytest.mark.parametrize("host", ["0.0.0.0:8600", "192.168.1.5:8600", "8.8.8.8", "[2001:db8::1]:8600", "[::]:8600"])
def test_addresses_beyond_loopback_come_in_only_where_they_are_listened_to(host: str) -> None:
    assert not door().host_allowed(host)
    assert door(host="0.0.0.0", no_auth=True).host_allowed(host)


def test_configured_hosts_come_in_whatever_their_case_and_port() -> None:
    guarded = door(allowed_hosts=("Studio.Example.org",))
    for host in ("studio.example.org", "STUDIO.example.ORG", "studio.example.org:443"):
        assert guarded.host_allowed(host)
    for host in ("example.org", "a.studio.example.org", "studio.example.org.evil.example", "studio.example.orgx"):
        assert not guarded.host_allowed(host)
    assert guarded.host_allowed("localhost")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:3000",
        "HTTP://LOCALHOST:3000",
        "http://127.0.0.1:5173",
        "http://[::1]:3000",
    ],
)
@pytest.mark.parametrize("site", [None, "same-origin", "same-site", "cross-site"])
def test_local_pages_come_in(origin: str, site: str | None) -> None:
    assert door().origin_allowed(origin, site, OURS)


FOREIGN_ORIGINS = [
    "null",
    "NULL",
    "",
    " ",
    "http://evil.example",
    "https://evil.example:8600",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1.evil.example:8600",
    "https://localhost.evil.example:8600",
    "http://notlocalhost",
    "http://[::1].evil.example",
    "http://[::1]evil.example",
    "http://localhost@evil.example",
    "http://evil.example@localhost",
    "http://localhost:8600@evil.example",
    "http://evil.example#localhost",
    "http://evil.example/localhost",
    "http://evil.example?localhost",
    "http://evil.example\\localhost",
    "http://localhost http://evil.example",
    "http://localhost, http://evil.example",
    "http://localhost:port",
    "http://localhost:99999",
    "http://",
    "http:localhost",
    "http:/localhost",
    "//localhost",
    "localhost",
    "localhost:8600",
    "file://",
    "file://localhost",
    "ftp://localhost",
    "data:",
    "javascript://localhost",
    "chrome-extension://localhost",
    "http://0.0.0.0",
    "http://192.168.1.5",
    "http://2130706433",
    "http://local\thost",
]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize("site", [None, "same-origin", "cross-site"])
def test_foreign_pages_stay_out(origin: str, site: str | None) -> None:
    assert not door().origin_allowed(origin, site, OURS)
    assert not door(cors_origins=("https://studio.example.org",)).origin_allowed(origin, site, OURS)


def test_without_an_origin_only_a_cross_site_request_stays_out() -> None:
    for site in (None, "none", "same-origin", "same-site"):
        assert door().origin_allowed(None, site, OURS)
    assert not door().origin_allowed(None, "cross-site", OURS)


def test_configured_pages_come_in_exactly_as_configured() -> None:
    guarded = door(cors_origins=("https://Studio.example.org/", "http://10.0.0.5:3000"))
    for origin in ("https://studio.example.org", "HTTPS://STUDIO.EXAMPLE.ORG", "http://10.0.0.5:3000"):
        assert guarded.origin_allowed(origin, "cross-site", OURS)
    for origin in (
        "http://studio.example.org",
        "https://studio.example.org:8443",
        "https://a.studio.example.org",
        "https://studio.example.org.evil.example",
        "http://10.0.0.5",
        "http://10.0.0.5:30000",
    ):
        assert not guarded.origin_allowed(origin, None, OURS)


def test_a_page_from_the_worker_itself_comes_in_under_its_public_name() -> None:
    guarded = door(allowed_hosts=("studio.example.org",))
    assert guarded.origin_allowed("https://studio.example.org", "same-origin", "studio.example.org")
    assert guarded.origin_allowed("https://studio.example.org:8443", "same-origin", "Studio.example.org:8443")
    assert not guarded.origin_allowed("https://studio.example.org", None, "localhost:8600")


def test_a_page_whose_host_is_foreign_too_is_stopped_at_one_of_the_two_questions() -> None:
    # DNS rebinding: Host and Origin agree, and both are the attacker's.
    host, origin = "evil.example:8600", "http://evil.example:8600"
    assert not (door().host_allowed(host) and door().origin_allowed(origin, "same-origin", host))


def test_without_a_key_everybody_comes_in() -> None:
    for sent in (None, "", "anything"):
        assert door().key_name(sent, sent) == ""


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        ("Bearer secret", None),
        ("bearer secret", None),
        ("BEARER  secret ", None),
        (None, "secret"),
        ("Basic dXNlcjpwYXNz", "secret"),
        ("Basic dXNlcjpzZWNyZXQ=", None),
        ("basic OnNlY3JldA== ", ""),
        ("Bearer secret", "wrong"),
    ],
)
def test_the_right_key_comes_in_by_either_header(authorization: str | None, api_key: str | None) -> None:
    assert door(api_key="secret").key_name(authorization, api_key) == ""


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (None, None),
        ("", ""),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer wrong", None),
        ("Bearer secretx", None),
        ("Bearer secre", None),
        ("Bearer SECRET", None),
        ("secret", None),
        ("Basic secret", None),
        ("Basic c2VjcmV0", None),
        ("Basic c2VjcmV0OnVzZXI=", None),
        ("Basic dXNlcjpzZWNyZXQ=", "wrong"),
        ("Basic Og==", None),
        ("Basic ", None),
        ("Basic sécret", None),
        ("Bearersecret", None),
        ("Bearer sécret", "sécret"),
        (None, "Secret"),
        (None, "secret secret"),
    ],
)
def test_no_other_key_does(authorization: str | None, api_key: str | None) -> None:
    assert door(api_key="secret").key_name(authorization, api_key) is None


@pytest.mark.parametrize("name", ["images.example.org:443", "https://images.example.org", "a b", "", "[::1]"])
def test_a_host_that_could_never_match_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(SettingsError, match="allowed_hosts takes names"):
        door(allowed_hosts=(name,))


@pytest.mark.parametrize("origin", ["www.example.org", "https://www.example.org/page", "*", "null", "ftp://a.example"])
def test_an_origin_that_could_never_match_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins takes origins"):
        door(cors_origins=(origin,))
