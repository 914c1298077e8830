"""`engine.models`: which models go for another, without any torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from rbee_sd.engine.admission import Admission, Waiting
from rbee_sd.engine.models import Models
from rbee_sd.engine.pipeline import DeviceLostError, ModelError
from rbee_sd.messages import Failed, Generate, Loading, Message, Ready, Unloaded

GIB = 1 << 30


class Weights:
    """A loaded model that is nothing but its size."""

    forwards = rows = 3
    memory = 0

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def warm_up(self) -> None:
        """See `Pipeline`."""

    def describe(self) -> Ready:
        """See `Pipeline`."""
        return Ready(self.name, "sd", "cpu", "float32", 1, 64, 64, 20, 7.5)


class Shop:
    """A `Supply` with `room` bytes, of which loaded models take theirs."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.loaded: dict[str, int] = {}
        self.full = 0
        self.broken: Exception | None = None

    def open(self, name: str, source: str) -> Any:
        """See `Supply`. The source is the size."""
        if self.broken:
            raise self.broken
        if self.full:
            self.full -= 1
            raise MemoryError
        self.loaded[name] = int(source)
        return Weights(name, int(source))

    def weigh(self, source: str) -> int:
        """See `Supply`."""
        return int(source)

    def free(self) -> int | None:
        """See `Supply`."""
        return None if self.room is None else self.room - sum(self.loaded.values())

    def settle(self) -> None:
        """See `Supply`."""

    def is_full(self, error: Exception) -> bool:
        """See `Supply`."""
        return isinstance(error, MemoryError)


class Bench:
    """Models from a shop, and what they said."""

    def __init__(self, room: int | None = None, most: int = 0) -> None:
        self.said: list[Message] = []
        self.shop = Shop(room)
        self.models = Models(self.shop, self.said.append, "a", most)

    def load(self, name: str, size: int = GIB, busy: Collection[str] = ()) -> None:
        """Load a model, once those are gone that must."""
        going = self.models.outgoing(name, str(size), busy)
        for each in going:
            self.shop.loaded.pop(each)
        self.models.load(name, str(size), going, busy, lambda text: None)

    def there(self) -> list[str]:
        """The names of the loaded models, the one used longest ago first."""
        return list(self.models._held)


@pytest.mark.parametrize(
    "room, wanted, busy, going",
    [
        (10 * GIB, 7 * GIB, "", []),
        (3 * GIB, GIB, "", ["a"]),
        (3 * GIB, 2 * GIB, "", ["a", "b"]),
        (3 * GIB, 9 * GIB, "", ["a", "b", "c"]),
        (3 * GIB, GIB, "a", ["b"]),
        (3 * GIB, 3 * GIB, "b", ["a", "c", "b"]),
        (None, 9 * GIB, "", []),
    ],
)
def test_the_one_used_longest_ago_goes_first_and_those_in_use_last(
    room: int | None, wanted: int, busy: str, going: list[str]
) -> None:
    bench = Bench(room)
    for name in "abc":
        bench.load(name)
    assert bench.models.outgoing("d", str(wanted), set(busy)) == going


def test_being_used_by_a_job_counts() -> None:
    bench = Bench(most=3)
    for name in "abc":
        bench.load(name)
    bench.models.use("a")
    bench.load("d")
    assert bench.there() == ["c", "a", "d"]


def test_no_more_than_may_be_loaded_are() -> None:
    bench = Bench(most=1)
    for name in "abca":
        bench.load(name)
    assert bench.there() == ["a"]
    assert [type(said).__name__ + said.model for said in bench.said if isinstance(said, Unloaded | Ready)] == [
        "Readya",
        "Unloadeda",
        "Readyb",
        "Unloadedb",
        "Readyc",
        "Unloadedc",
        "Readya",
    ]


def test_what_a_model_really_took_is_remembered() -> None:
    bench = Bench(room=4 * GIB)
    bench.load("a")
    bench.models.unload("a")
    bench.shop.loaded.clear()
    bench.load("b", 2 * GIB)
    # Its files say more than it needs.
    assert bench.models.outgoing("a", str(9 * GIB), ()) == []


def test_forwards_of_models_that_went_are_counted() -> None:
    bench = Bench(most=1)
    bench.load("a")
    bench.load("b")
    assert (bench.models.forwards, bench.models.rows) == (6, 6)


def test_out_of_memory_lets_all_idle_ones_go_and_is_tried_once_more() -> None:
    bench = Bench()
    for name in "abc":
        bench.load(name)
    bench.shop.full = 1
    bench.load("d", busy={"b"})
    assert bench.there() == ["b", "d"]
    bench.shop.full = 1
    with pytest.raises(ModelError, match="not enough memory for the model e"):
        # Nothing else can go.
        bench.load("e", busy={"b", "d"})
    assert bench.there() == ["b", "d"]


def test_a_model_that_failed_is_not_tried_again_at_once_unless_it_is_forgiven() -> None:
    bench = Bench()
    bench.shop.broken = ModelError("the model a is broken")
    for _ in range(3):
        with pytest.raises(ModelError, match="is broken"):
            bench.load("a")
    assert bench.said == [Loading("a"), Unloaded("a")]
    bench.shop.broken = None
    bench.models.forgive("a")
    bench.load("a")
    assert bench.there() == ["a"]


def test_whatever_a_model_fails_with_is_an_error_of_the_model_unless_the_device_is_lost() -> None:
    bench = Bench()
    bench.shop.broken = FileNotFoundError("/secret/path")
    with pytest.raises(ModelError, match=r"the model a cannot be loaded \(FileNotFoundError\)") as failed:
        bench.load("a")
    assert "secret" not in str(failed.value)
    bench.shop.broken = DeviceLostError()
    with pytest.raises(DeviceLostError):
        bench.load("b")


def test_a_job_that_is_out_of_memory_lets_the_idle_models_go() -> None:
    bench = Bench()
    for name in "abc":
        bench.load(name)
    assert not bench.models.relieve(RuntimeError(), {"b"})
    assert not bench.models.relieve(MemoryError(), set("abc"))
    assert bench.models.relieve(MemoryError(), {"b"})
    assert bench.there() == ["b"]


def test_nobody_makes_room_for_a_model_that_has_just_failed() -> None:
    bench = Bench(most=1)
    bench.load("a")
    bench.shop.broken = ModelError("the model b is broken")
    admission = Admission(bench.models, bench.said.append)
    first, second = (Generate(job_id, "", "", 0, model="b", source="1") for job_id in ("first", "second"))
    admission.add(Waiting(first, 1))
    assert admission.admit(frozenset(), []) == []
    bench.shop.broken = None
    bench.load("a")
    admission.add(Waiting(second, 2))
    assert admission.admit(frozenset("a"), ["works"]) == []
    assert bench.said[-1] == Failed("second", "model_failed", "the model b is broken")
    assert admission.passes("a")
