"""`engine.halving`: who fails when a shared forward fails, with numbers for tensors."""

from __future__ import annotations

import gc
import itertools
import traceback
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rbee_sd.engine import halving
from rbee_sd.engine.calls import Call
from rbee_sd.engine.pipeline import DeviceLostError


class TooLargeError(Exception):
    """So many rows do not fit."""


class Doubler:
    """Its forward doubles numbers; it fails with some of them, and above so many rows."""

    def __init__(self, *bad: int, most: int = 1000) -> None:
        self.bad = bad
        self.most = most
        self.known = 1000
        self.tried: list[list[int]] = []

    def call(self, *rows: int) -> Call:
        """A call with these rows."""
        return Call(self, "shape", "signature", "lane", len(rows), rows, (64, 64))

    def forward(self, calls: Sequence[Call]) -> list[Any]:
        rows = [row for call in calls for row in call.arguments]
        self.tried.append(rows)
        if len(rows) > self.most:
            raise TooLargeError
        if set(rows) & set(self.bad):
            raise ValueError(f"in {rows}")
        return [[2 * row for row in call.arguments] for call in calls]

    def cap(self, call: Call) -> int:
        return self.known

    def is_too_large(self, error: Exception) -> bool:
        return isinstance(error, TooLargeError)

    def shrink(self, call: Call, rows: int) -> None:
        self.known = min(self.known, max(1, rows // 2))

    def halve(self, call: Call) -> tuple[Call, Call]:
        middle = call.rows // 2
        first, second = call.arguments[:middle], call.arguments[middle:]
        return replace(call, rows=len(first), arguments=first), replace(call, rows=len(second), arguments=second)

    def join(self, first: Any, second: Any) -> Any:
        return first + second


def test_what_works_is_done_once() -> None:
    doubler = Doubler()
    assert halving.forward([doubler.call(1, 2), doubler.call(3)]) == [([2, 4], None), ([6], None)]
    assert doubler.tried == [[1, 2, 3]]


def test_any_culprits_among_eight_fail_and_nobody_else() -> None:
    for size in range(9):
        for bad in itertools.combinations(range(8), size):
            doubler = Doubler(*bad)
            outcomes = halving.forward([doubler.call(number) for number in range(8)])
            for number, (result, error) in enumerate(outcomes):
                if number in bad:
                    assert str(error) == f"in [{number}]"
                    assert result is None
                else:
                    assert (result, error) == ([2 * number], None)


def test_one_culprit_is_found_in_few_tries() -> None:
    doubler = Doubler(5)
    halving.forward([doubler.call(number) for number in range(16)])
    assert len(doubler.tried) == 9


def test_a_single_call_that_fails_is_not_tried_again() -> None:
    doubler = Doubler(2)
    ((_, error),) = halving.forward([doubler.call(1, 2, 3)])
    assert isinstance(error, ValueError)
    assert doubler.tried == [[1, 2, 3]]


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 2, 3, 5, 10])
def test_too_many_rows_are_done_in_parts_down_to_single_ones(calls: int, rows: int, most: int) -> None:
    doubler = Doubler(most=most)
    made = halving.forward([doubler.call(*range(rows * each, rows * (each + 1))) for each in range(calls)])
    assert [row for result, _ in made for row in result] == [2 * row for row in range(calls * rows)]
    assert all(error is None for _, error in made)


def test_what_one_half_has_shown_to_be_too_large_is_not_tried_with_the_other() -> None:
    doubler = Doubler(most=3)
    halving.forward([doubler.call(number) for number in range(16)])
    assert [len(rows) for rows in doubler.tried if len(rows) > 3] == [16, 8, 4]


def test_one_row_that_is_too_large_fails_as_such() -> None:
    doubler = Doubler(most=0)
    outcomes = halving.forward([doubler.call(1, 2), doubler.call(3)])
    assert [type(error) for _, error in outcomes] == [TooLargeError, TooLargeError]
    assert doubler.known == 1


def test_a_half_that_fails_fails_its_call() -> None:
    doubler = Doubler(4, most=2)
    good, bad = halving.forward([doubler.call(1, 2, 3), doubler.call(4, 5, 6)])
    assert good == ([2, 4, 6], None)
    assert bad[0] is None
    assert isinstance(bad[1], ValueError)


def test_a_lost_device_is_nobodys_fault() -> None:
    class Lost(Doubler):
        def forward(self, calls: Sequence[Call]) -> list[Any]:
            raise DeviceLostError

    with pytest.raises(DeviceLostError):
        halving.forward([Lost().call(1), Lost().call(2)])


def test_the_log_is_told_where_a_culprit_failed() -> None:
    ((_, error),) = halving.forward([Doubler(1).call(1)])
    assert error is not None
    assert "raise ValueError" in "".join(traceback.format_exception(error))


def test_nothing_of_a_failed_forward_is_kept() -> None:
    kept: list[weakref.ref[Any]] = []

    class Tensor:
        pass

    class Leaky(Doubler):
        def forward(self, calls: Sequence[Call]) -> list[Any]:
            tensor = Tensor()
            kept.append(weakref.ref(tensor))
            return super().forward(calls)

    leaky = Leaky(1)
    gc.disable()
    try:
        outcomes = halving.forward([leaky.call(1), leaky.call(2)])
        assert [each() for each in kept] == [None] * 3
        assert outcomes[0][1] is not None
    finally:
        gc.enable()
