"""Figures from what the engine's part has measured. Pure; no I/O.

What is compared is compared by medians over rounds, in each of which every way had its turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbee_sd.bench.measure import Figure, latency, spread, steps

Sample = Mapping[str, Any]

SHARED_AIM = 1.6
"""Times the throughput of `pipe()` again and again, at least."""
SERVED_AIM = 1.5
"""The same, for clients over HTTP."""
SINGLE_AIM = 1.03
"""Times the time of `pipe()`, at most."""
CANCEL_AIM = 1
NEWCOMER_AIM = 2
"""Steps, both."""

DIFFERENCE_AIM = 2
"""Of 255, in every pixel."""

IDLE_AIM = 3.0
"""Percent."""

NAMES = {
    "sequential": "pipe() again and again",
    "single": "engine, one job at a time",
    "shared": "engine, all jobs at once",
    "static": "one pipe() of a batch",
}


@dataclass(frozen=True, slots=True)
class Round:
    """What clients of a worker got: so many `images` in so many `seconds`, how long each took, the engine's count."""

    seconds: float
    images: int
    pulse: Mapping[str, float]
    waits: Sequence[float]


def compared(rounds: Mapping[str, Sequence[Sample]], images: int) -> list[Figure]:
    """The ways beside each other; the aims are relative to the first."""
    median = {way: statistics.median(seconds_of(samples)) for way, samples in rounds.items()}
    ratios = [
        Figure(
            "shared_ratio",
            f"throughput of {images} jobs at once : pipe() again and again",
            median["sequential"] / median["shared"],
            "x",
            SHARED_AIM,
            more=True,
        ),
        Figure(
            "single_ratio",
            "time of one job : pipe()",
            median["single"] / median["sequential"],
            "x",
            SINGLE_AIM,
        ),
        Figure(
            "static_ratio",
            "throughput of a batch : pipe() again and again",
            median["sequential"] / median["static"],
            "x",
        ),
        cpu_ratio(
            "shared", f"CPU of pipe() again and again : {images} jobs at once", rounds["sequential"], rounds["shared"]
        ),
        cpu_ratio("single", "CPU of one job : pipe()", rounds["single"], rounds["sequential"]),
    ]
    return ratios + [figure for way, samples in rounds.items() for figure in speed(way, samples, images)]


def served(sequential: Sequence[float], images: int, rounds: Sequence[Round]) -> list[Figure]:
    """Clients of a worker beside the plain loop, of which each round made so many images."""
    alone = images / statistics.median(sequential)
    rates = [each.images / each.seconds for each in rounds]
    pulses = [each.pulse for each in rounds]
    text = "served, throughput"
    return [
        Figure(
            "served_ratio", f"{text} : pipe() again and again", statistics.median(rates) / alone, "x", SERVED_AIM, True
        ),
        Figure("served_per_s", f"{text}, median of {len(rates)}", statistics.median(rates), "images/s"),
        Figure("served_spread", f"{text}, spread", spread(rates), "%"),
        Figure("sequential_per_s", f"{NAMES['sequential']}, median of {len(sequential)}", alone, "images/s"),
        Figure("sequential_spread", f"{NAMES['sequential']}, spread", spread(sequential), "%"),
        filling("served", "served", pulses),
        idle("served", "served, time of the engine outside the model", pulses, IDLE_AIM),
        *latency(
            "served", "served, from POST to the end of the stream", [wait for each in rounds for wait in each.waits]
        ),
    ]


def cpu_ratio(name: str, text: str, first: Sequence[Sample], second: Sequence[Sample]) -> Figure:
    """The same by seconds of CPU: what others do on this machine is not in it, and neither is waiting."""
    cpu = [statistics.median(float(sample["cpu"]) for sample in samples) for samples in (first, second)]
    return Figure(f"{name}_cpu_ratio", text, cpu[0] / cpu[1], "x")


def speed(way: str, samples: Sequence[Sample], images: int) -> list[Figure]:
    """Images a second, by the median round, and how far the rounds lie apart."""
    seconds = seconds_of(samples)
    return [
        Figure(
            f"{way}_per_s", f"{NAMES[way]}, median of {len(seconds)}", images / statistics.median(seconds), "images/s"
        ),
        Figure(f"{way}_spread", f"{NAMES[way]}, spread", spread(seconds), "%"),
    ]


def counted(rounds: Mapping[str, Sequence[Sample]]) -> list[Figure]:
    """What the engine says of itself: rows of a forward, and the time that its own loop takes."""
    figures = []
    for way in ("single", "shared"):
        pulses = [sample["pulse"] for sample in rounds[way]]
        figures.append(filling(way, NAMES[way], pulses))
        figures.append(idle(way, f"{NAMES[way]}, time outside the model", pulses))
    return figures


def filling(name: str, text: str, pulses: Sequence[Mapping[str, float]]) -> Figure:
    """Rows of a forward, on average."""
    rows = sum(pulse["rows"] for pulse in pulses) / sum(pulse["forwards"] for pulse in pulses)
    return Figure(f"{name}_rows", f"{text}, rows of a forward", rows, "rows")


def idle(name: str, text: str, pulses: Iterable[Mapping[str, float]], aim: float | None = None) -> Figure:
    """The share of the time with jobs in which the model did nothing."""
    each = list(pulses)
    worked, elapsed = (sum(pulse[part] for pulse in each) for part in ("worked", "elapsed"))
    return Figure(f"{name}_idle", text, 100 * (1 - worked / elapsed), "%", aim)


def peaks(rounds: Mapping[str, Sequence[Sample]]) -> list[Figure]:
    """The most memory each way took: of the GPU where there is one, else of the process."""
    return [
        Figure(f"{way}_peak_mb", f"{NAMES[way]}, peak memory", max(sample["peak"] for sample in samples) / 1e6, "MB")
        for way, samples in rounds.items()
    ]


def company(moments: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Figure]:
    """How soon one of eight jobs is gone, and how soon one that joins seven has done its first step."""
    if not moments:
        return []
    gone = [moment["cancel"] for moment in moments]
    come = [moment["newcomer"] for moment in moments]
    return [
        *steps("cancel_steps", "forwards that a cancelled job is still in", forwards_of(gone), CANCEL_AIM),
        *latency("cancel", "from cancelling a job until it is gone", seconds_of(gone)),
        *steps("newcomer_steps", "forwards until a newcomer's first step", forwards_of(come), NEWCOMER_AIM),
        *latency("newcomer", "from submitting a job to its first step", seconds_of(come)),
    ]


def curve(seconds: Mapping[str, Sequence[float]]) -> list[Figure]:
    """The time of a forward by its rows, and the rows a second that this makes."""
    figures = []
    for rows, times in seconds.items():
        median = statistics.median(times)
        figures.append(
            Figure(f"forward_{rows}_ms", f"forward of {rows} rows, median of {len(times)}", 1000 * median, "ms")
        )
        figures.append(Figure(f"forward_{rows}_rows_per_s", f"forward of {rows} rows, rows", int(rows) / median, "/s"))
    return figures


def variants(found: Mapping[str, Mapping[str, float] | str]) -> list[Figure]:
    """What one changed setting does to the time of a forward and of decoding: below 1, it is faster."""
    figures = []
    for name, ratios in found.items():
        if isinstance(ratios, str):
            figures.append(Figure(f"variant {name}", f"{name}: not possible here ({ratios})", 0, ""))
        else:
            figures += [
                Figure(f"variant {name} {what}", f"{name}, {what} : by default", ratio, "x")
                for what, ratio in ratios.items()
            ]
    return figures


def differences(found: Mapping[str, Mapping[str, float] | str], images: int) -> list[Figure]:
    """How far pictures in company are from those made alone. The aim is for float32; others round more coarsely."""
    figures = []
    for dtype, values in found.items():
        name, text = f"difference_{dtype}", f"{dtype}, {images} pictures alone and in company"
        if isinstance(values, str):
            figures.append(Figure(name, f"{text}: not possible here ({values})", 0, ""))
            continue
        aim = DIFFERENCE_AIM if dtype == "float32" else None
        figures += [
            Figure(name, f"{text}, largest difference", values["largest"], "of 255", aim),
            Figure(f"{name}_mean", f"{text}, mean difference", values["mean"], "of 255"),
            Figure(f"{name}_contrast", f"{text}, contrast", values["contrast"], "of 255"),
            Figure(f"{name}_rows", f"{text}, rows of a forward", values["rows"], "rows"),
        ]
    return figures


def seconds_of(samples: Iterable[Sample]) -> list[float]:
    """The time of each."""
    return [float(sample["seconds"]) for sample in samples]


def forwards_of(samples: Iterable[Sample]) -> list[float]:
    """The forwards of each."""
    return [float(sample["forwards"]) for sample in samples]
