"""`engine.knee`: how many rows pay, and the file that remembers it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee_sd.engine.knee import REMEMBERED, Curve, CurveFile


def measured(limit: int, seconds: Callable[[int], float | None]) -> Curve:
    """A curve of a device that takes so many seconds for so many rows; None: they do not fit."""
    curve = Curve(limit)
    for _ in range(60):
        rows = curve.wanted()
        if rows is None:
            return curve
        took = seconds(rows)
        if took is None:
            curve.failed(rows)
        else:
            curve.measured(rows, took)
    raise AssertionError("the measuring does not come to an end")


def test_rows_are_tried_in_doublings_up_to_the_limit() -> None:
    assert list(measured(32, lambda _: 1.0).seconds) == [1, 2, 4, 8, 16, 32]
    assert list(measured(20, lambda _: 1.0).seconds) == [1, 2, 4, 8, 16]
    assert list(measured(1, lambda _: 1.0).seconds) == [1]


def test_rows_that_cost_nothing_are_all_taken() -> None:
    assert measured(32, lambda _: 1.0).cap == 32


def test_rows_that_gain_nothing_are_not_taken() -> None:
    curve = measured(32, lambda rows: float(rows))
    assert curve.cap == 1
    assert max(curve.seconds) == 4


@pytest.mark.parametrize("knee", [1, 2, 4, 8, 16])
def test_the_cap_is_where_the_gain_ends(knee: int) -> None:
    assert measured(32, lambda rows: max(1.0, rows / knee)).cap == knee


def test_one_disturbed_measurement_does_not_end_it() -> None:
    assert measured(32, lambda rows: 2.0 if rows == 4 else 1.0).cap == 32


def test_a_gain_below_a_tenth_is_none() -> None:
    assert measured(8, lambda rows: rows / 1.09 if rows > 1 else 1.0).cap == 1
    assert measured(8, lambda rows: rows / 1.2 if rows > 1 else 1.0).cap == 2


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8])
def test_rows_that_do_not_fit_end_the_measuring(most: int) -> None:
    curve = measured(32, lambda rows: None if rows > most else 1.0)
    assert curve.cap <= most
    assert curve.wanted() is None


def test_a_device_without_memory_for_one_row_comes_to_an_end_too() -> None:
    assert measured(32, lambda _: None).cap == 1


def test_rows_that_fail_later_lower_the_cap() -> None:
    curve = measured(32, lambda _: 1.0)
    curve.failed(20)
    assert curve.cap == 8
    curve.failed(2)
    assert curve.cap == 1
    curve.failed(1)
    assert curve.cap == 1


def test_an_unmeasured_curve_has_a_cap_of_one() -> None:
    assert Curve(32).cap == 1


# The file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "curves.json"


def test_a_curve_comes_back_as_it_was(path: Path) -> None:
    curve = measured(8, lambda rows: 0.1 * rows**0.5)
    CurveFile(path).keep("key", curve)
    assert CurveFile(path).find("key", 8) == curve
    assert CurveFile(path).find("another", 8) is None


def test_a_curve_that_does_not_go_far_enough_is_measured_again(path: Path) -> None:
    CurveFile(path).keep("key", measured(8, lambda _: 1.0))
    assert CurveFile(path).find("key", 16) is None
    found = CurveFile(path).find("key", 4)
    assert found is not None
    assert (found.cap, found.limit, found.wanted()) == (4, 4, None)


def test_without_a_file_nothing_is_remembered() -> None:
    file = CurveFile(None)
    file.keep("key", Curve(1, {1: 1.0}))
    assert file.find("key", 1) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"key": null}',
        '{"key": []}',
        '{"key": {}}',
        '{"key": {"limit": "x", "seconds": {}}}',
        '{"key": {"limit": null, "seconds": {"1": 1}}}',
        '{"key": {"limit": 8, "seconds": null}}',
        '{"key": {"limit": 8, "seconds": []}}',
        '{"key": {"limit": 8, "seconds": {"x": 1}, "spent": 0}}',
        '{"key": {"limit": 8, "seconds": {"1": "x"}, "spent": 0}}',
        '{"key": {"limit": 8, "seconds": {}, "spent": 0}}',
        '{"key": {"limit": 8, "seconds": {"1": 1}}}',
        '{"key": "x"}',
        '{"key": 3}',
    ],
)
def test_a_damaged_file_is_measured_anew_and_written_over(path: Path, content: str) -> None:
    path.write_text(content)
    file = CurveFile(path)
    assert file.find("key", 8) is None
    curve = measured(2, lambda rows: 1.0 + rows / 4)
    curve.limit = 8
    file.keep("key", curve)
    assert file.find("key", 8) == curve


def test_bytes_that_are_no_text_are_measured_anew(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    assert CurveFile(path).find("key", 8) is None


def test_the_oldest_curves_go_first(path: Path) -> None:
    entries = {f"old{n}": {"limit": 1, "seconds": {"1": 1.0}, "spent": 0.1} for n in range(REMEMBERED)}
    path.write_text(json.dumps(entries))
    file = CurveFile(path)
    file.keep("old0", Curve(1, {1: 2.0}))
    file.keep("new", Curve(1, {1: 1.0}))
    assert file.find("old1", 1) is None
    assert file.find("old0", 1) is not None
    assert file.find("old2", 1) is not None
    assert len(json.loads(path.read_text())) == REMEMBERED


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    file = CurveFile(tmp_path / "missing" / "curves.json")
    file.keep("key", Curve(1, {1: 1.0}))
    assert file.find("key", 1) is None
