"""Who had the CPU while something was measured: without it, nobody can tell a slow front from a busy machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from rbee_sd.bench.measure import Figure
from rbee_sd.bench.worker import BenchedWorker


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU used up to a moment: by the front, its engine, this client, and all of the machine."""

    at: float
    front: float
    engine: float
    client: float
    machine: float

    @classmethod
    def now(cls, benched: BenchedWorker) -> CpuTimes:
        """Read the clocks."""
        front = benched.front
        return cls(
            time.monotonic(),
            _used(front),
            sum(_used(child) for child in front.children()),
            _used(psutil.Process()),
            _machine(),
        )


def shares(name: str, text: str, before: CpuTimes, after: CpuTimes) -> list[Figure]:
    """How many cores each had between two moments; `others` is every other process and what the host took away."""
    seconds = after.at - before.at
    used = {part: getattr(after, part) - getattr(before, part) for part in ("front", "engine", "client", "machine")}
    machine = used.pop("machine")
    used["others"] = max(0.0, machine - sum(used.values()))
    return [
        Figure(f"{name}_cores_{part}", f"{text}, used by {part}", share / seconds, "cores")
        for part, share in used.items()
    ]


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
