"""The figures of the benchmarks: aims, ratios and spreads, from made-up samples."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from rbee_sd.bench import engine, ways
from rbee_sd.bench.measure import Figure, frames, percentile, spread, steps, table
from rbee_sd.bench.ways import Round
from rbee_sd.engine.bench import plan


def sample(seconds: float, **changes: Any) -> dict[str, Any]:
    """What one way took in one round."""
    pulse = {"forwards": 20, "rows": 320, "worked": 0.9 * seconds, "elapsed": seconds}
    return {"seconds": seconds, "cpu": seconds / 2, "peak": 500_000_000, "pulse": pulse} | changes


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    """The figures by their names, each of which there is once."""
    found = {figure.name: figure for figure in figures}
    assert len(found) == len(figures)
    return found


@pytest.mark.parametrize(
    ("value", "more", "met"), [(2.0, False, True), (2.1, False, False), (2.0, True, True), (1.9, True, False)]
)
def test_an_aim_is_the_largest_good_value_or_the_least(value: float, more: bool, met: bool) -> None:
    figure = Figure("name", "text", value, "x", 2.0, more)
    assert figure.met is met
    assert figure.to_json()["met"] is met
    assert (">= 2 x" if more else "<= 2 x") in table([figure])


def test_without_an_aim_nothing_is_met_or_missed() -> None:
    assert Figure("name", "text", 1.0, "x").met is None


def test_the_percentile_is_one_of_the_samples() -> None:
    assert percentile([3, 1, 2], 99) == 3
    assert percentile(list(range(1, 101)), 99) == 99
    assert percentile([7], 50) == 7


def test_the_aim_of_steps_is_for_the_99th_percentile() -> None:
    half, most, worst = steps("name", "text", [0] * 50 + [1] * 49 + [5], 1)
    assert (half.value, most.value, worst.value) == (0.5, 1, 5)
    assert (half.met, most.met, worst.met) == (None, True, None)


def test_a_frame_is_late_when_one_was_left_out() -> None:
    figures = by_name(frames("way", "text", [16.7] * 18 + [33.3, 50.0], aim=17, late_aim=4))
    assert figures["way_frame_p50_ms"].value == 16.7
    assert (figures["way_frame_p95_ms"].value, figures["way_frame_p95_ms"].met) == (33.3, False)
    assert figures["way_frame_worst_ms"].value == 50
    assert (figures["way_late"].value, figures["way_late"].met) == (5, False)


def test_the_spread_is_the_middle_half_in_percent_of_the_median() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(100 * 2 / 3)
    assert spread([1.0, 1.0, 1.0, 1.0, 100.0]) == 0
    assert spread([1.0]) == 0


def test_the_ways_are_compared_by_medians() -> None:
    rounds = {
        "sequential": [sample(2.0), sample(1.6), sample(9.0)],
        "single": [sample(2.1), sample(2.0), sample(2.2)],
        "shared": [sample(1.0), sample(5.0), sample(0.9)],
        "static": [sample(0.8)] * 3,
    }
    figures = by_name(ways.compared(rounds, 8))
    assert figures["shared_ratio"].value == pytest.approx(2.0)
    assert figures["shared_ratio"].met
    assert figures["single_ratio"].value == pytest.approx(1.05)
    assert figures["single_ratio"].met is False
    assert figures["static_ratio"].value == pytest.approx(2.5)
    assert figures["shared_per_s"].value == pytest.approx(8.0)
    assert figures["shared_cpu_ratio"].value == pytest.approx(2.0)


def test_a_shared_way_that_is_too_slow_misses_its_aim() -> None:
    rounds = {way: [sample(1.0)] for way in engine.PLAN.ways}
    assert by_name(ways.compared(rounds, 8))["shared_ratio"].met is False


def test_rows_and_idle_time_are_of_all_rounds_together() -> None:
    rounds = {"single": [sample(1.0)], "shared": [sample(1.0), sample(3.0)]}
    figures = by_name(ways.counted(rounds))
    assert figures["shared_rows"].value == 16
    assert figures["shared_idle"].value == pytest.approx(10.0)


def test_company_tells_steps_and_milliseconds() -> None:
    moments = [
        {"cancel": {"forwards": 1, "seconds": 0.01}, "newcomer": {"forwards": 2, "seconds": 0.05}},
        {"cancel": {"forwards": 0, "seconds": 0.02}, "newcomer": {"forwards": 3, "seconds": 0.06}},
    ]
    figures = by_name(ways.company(moments))
    assert (figures["cancel_steps_p99"].value, figures["cancel_steps_p99"].met) == (1, True)
    assert (figures["newcomer_steps_p99"].value, figures["newcomer_steps_p99"].met) == (3, False)
    assert figures["cancel_p50_ms"].value == pytest.approx(15.0)


def test_the_curve_tells_time_and_rows_a_second() -> None:
    figures = by_name(ways.curve({"1": [0.005, 0.004, 0.006], "2": [0.008]}))
    assert figures["forward_1_ms"].value == pytest.approx(5.0)
    assert figures["forward_2_rows_per_s"].value == pytest.approx(250.0)


def test_the_difference_of_pictures_has_an_aim_where_nothing_is_rounded_coarsely() -> None:
    values = {"largest": 3.0, "mean": 0.1, "contrast": 60.0, "rows": 16.0}
    figures = by_name(ways.differences({"float32": values, "float16": values, "bfloat16": "MemoryError"}, 8))
    assert (figures["difference_float32"].value, figures["difference_float32"].met) == (3, False)
    assert (figures["difference_float16"].value, figures["difference_float16"].met) == (3, None)
    assert figures["difference_float16_contrast"].value == 60
    assert "MemoryError" in figures["difference_bfloat16"].text


def test_what_is_served_is_compared_with_the_plain_loop_by_images_a_second() -> None:
    pulse = {"forwards": 60, "rows": 900, "worked": 1.9, "elapsed": 2.0}
    rounds = [Round(seconds, 24, pulse, [0.5, 0.6]) for seconds in (2.0, 2.4, 3.0)]
    figures = by_name(ways.served([1.0, 1.6, 2.0], 8, rounds))
    assert figures["sequential_per_s"].value == pytest.approx(5.0)
    assert figures["served_per_s"].value == pytest.approx(10.0)
    assert figures["served_ratio"].value == pytest.approx(2.0)
    assert figures["served_rows"].value == 15
    assert figures["served_idle"].value == pytest.approx(5.0)
    assert figures["served_idle"].met is False


def test_the_engine_understands_the_plan_it_is_sent() -> None:
    assert [field.name for field in fields(engine.Plan)] == [field.name for field in fields(plan.Plan)]
    assert engine.PLAN.ways == plan.WAYS
