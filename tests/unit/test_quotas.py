"""`http.quotas`: what one client may ask for, and that others are not touched by it."""

from __future__ import annotations

import pytest

from rbee_sd.errors import RequestError
from rbee_sd.http import quotas as module
from rbee_sd.http.quotas import Quotas


class Clock:
    """Time as the test wants it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def through(quotas: Quotas, owner: str) -> bool:
    """Whether a request is let through."""
    try:
        quotas.request(owner)
    except RequestError:
        return False
    return True


def taken(quotas: Quotas, owner: str, tries: int) -> int:
    """How many of some requests were let through."""
    return sum(through(quotas, owner) for _ in range(tries))


def test_ten_seconds_worth_come_at_once_and_then_as_many_as_the_rate(clock: Clock) -> None:
    quotas = Quotas(2.0, 0, clock)
    assert taken(quotas, "a", 100) == 20
    clock.now += 1.0
    assert taken(quotas, "a", 100) == 2
    clock.now += 1000.0
    assert taken(quotas, "a", 100) == 20
    assert taken(quotas, "b", 100) == 20


def test_a_rate_below_one_lets_one_through_and_says_when_the_next(clock: Clock) -> None:
    quotas = Quotas(0.05, 0, clock)
    quotas.request("a")
    with pytest.raises(RequestError) as caught:
        quotas.request("a")
    assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
    assert caught.value.headers["Retry-After"] == "20"
    clock.now += 20.0
    quotas.request("a")


def test_without_a_rate_everything_comes_through_and_nothing_is_kept(clock: Clock) -> None:
    quotas = Quotas(0.0, 0, clock)
    assert taken(quotas, "a", 1000) == 1000
    assert not quotas._buckets


def test_many_clients_do_not_fill_the_memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 3)
    quotas = Quotas(0.1, 0, clock)
    for owner in "abc":
        quotas.request(owner)
    assert taken(quotas, "a", 1) == 0
    quotas.request("d")
    # The one unused for longest made room.
    assert list(quotas._buckets) == ["c", "a", "d"]


def test_streams_are_counted_for_each_client_until_they_end(clock: Clock) -> None:
    quotas = Quotas(0.0, 2, clock)
    quotas.enter("a")
    quotas.enter("a")
    with pytest.raises(RequestError) as caught:
        quotas.enter("a")
    assert (caught.value.status, caught.value.code) == (429, "too_many_streams")
    quotas.enter("b")
    quotas.leave("a")
    quotas.enter("a")
    for owner in ("a", "a", "b"):
        quotas.leave(owner)
    assert not quotas._open
