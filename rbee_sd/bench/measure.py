"""Figures: a measured value beside its aim, percentiles, and how figures are shown. Pure; no I/O."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LATE = 33.4
"""Milliseconds after the one before it from which on a frame is late: of 60 in a second, one was left out."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One result. `aim` is the largest value that is good enough, or the least if `more` is better; None: no aim."""

    name: str
    text: str
    value: float
    unit: str
    aim: float | None = None
    more: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the aim was reached; None without one."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.more else self.value <= self.aim

    def to_json(self) -> dict[str, Any]:
        """The figure as a JSON object, its value unrounded."""
        return {
            "name": self.name,
            "text": self.text,
            "value": self.value,
            "unit": self.unit,
            "aim": self.aim,
            "better": "more" if self.more else "less",
            "met": self.met,
        }


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all samples do not exceed (nearest rank)."""
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]


def latency(name: str, text: str, seconds: Sequence[float], aim_ms: float | None = None) -> list[Figure]:
    """Median, 99th percentile (which has the aim) and worst of durations, in milliseconds."""
    return [
        Figure(f"{name}_p50_ms", f"{text}, p50 of {len(seconds)}", 1000 * statistics.median(seconds), "ms"),
        Figure(f"{name}_p99_ms", f"{text}, p99", 1000 * percentile(seconds, 99), "ms", aim_ms),
        Figure(f"{name}_worst_ms", f"{text}, worst", 1000 * max(seconds), "ms"),
    ]


def steps(name: str, text: str, samples: Sequence[float], aim: float | None = None) -> list[Figure]:
    """Median, 99th percentile (which has the aim) and worst of counts of denoise steps."""
    return [
        Figure(f"{name}_p50", f"{text}, p50 of {len(samples)}", statistics.median(samples), "steps"),
        Figure(f"{name}_p99", f"{text}, p99", percentile(samples, 99), "steps", aim),
        Figure(f"{name}_worst", f"{text}, worst", max(samples), "steps"),
    ]


def frames(
    name: str, text: str, gaps: Sequence[float], aim: float | None = None, late_aim: float | None = None
) -> list[Figure]:
    """Median, 95th percentile (`aim`), longest of milliseconds between frames, and how many are late (`late_aim`)."""
    late = 100 * sum(gap > LATE for gap in gaps) / len(gaps)
    return [
        Figure(f"{name}_frame_p50_ms", f"{text}, frame to frame, p50 of {len(gaps)}", statistics.median(gaps), "ms"),
        Figure(f"{name}_frame_p95_ms", f"{text}, frame to frame, p95", percentile(gaps, 95), "ms", aim),
        Figure(f"{name}_frame_worst_ms", f"{text}, frame to frame, longest", max(gaps), "ms"),
        Figure(f"{name}_late", f"{text}, frames over {LATE:.0f} ms", late, "%", late_aim),
    ]


def spread(samples: Sequence[float]) -> float:
    """How far the middle half of the samples lies apart, in percent of the median; no measure of few samples."""
    if len(samples) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return 100 * (upper - lower) / statistics.median(samples)


def table(figures: Iterable[Figure]) -> str:
    """The figures as lines of text: what, measured, aim, met."""
    rows = [("figure", "measured", "aim", "met")]
    for figure in figures:
        bound = ">= " if figure.more else "<= "
        aim = "" if figure.aim is None else f"{bound}{figure.aim:g} {figure.unit}"
        met = {None: "", True: "yes", False: "NO"}[figure.met]
        rows.append((figure.text, f"{_rounded(figure.value)} {figure.unit}", aim, met))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{what:<{widths[0]}}  {measured:>{widths[1]}}  {aim:>{widths[2]}}  {met}".rstrip()
        for what, measured, aim, met in rows
    ]
    lines.insert(1, "-" * (sum(widths) + 6))
    return "\n".join(lines)


def _rounded(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
