"""Entry of `python -m rbee_sd.engine.bench PLAN`."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch

from rbee_sd.engine.bench import company, differences, variants
from rbee_sd.engine.bench.plan import WAYS, Plan
from rbee_sd.engine.bench.published import opened
from rbee_sd.engine.bench.ways import Ways
from rbee_sd.engine.calls import Call
from rbee_sd.engine.config import EngineConfig, model_name
from rbee_sd.engine.denoiser import resized
from rbee_sd.engine.device import synchronize
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.pipeline import ModelError

Tell = Callable[[dict[str, Any]], None]


def measure(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Load the model and measure. Raises `ModelError`."""

    def done() -> None:
        tell({"done": 1})

    tell({"part": f"loading {model_name(plan.model)} and measuring how many rows pay", "parts": 1})
    config = EngineConfig(
        name=model_name(plan.model),
        model=plan.model,
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        max_rows=plan.max_rows,
        log_level="warning",
    )
    model = opened(config)
    knee = model.warm_up()
    # As the engine does when it has loaded.
    gc.collect()
    gc.freeze()
    with closing(Ways(model, plan)) as ways:
        for way in plan.ways:
            # The first of everything takes longer.
            ways.measure(way, plan.images if way in ("shared", "static") else 1)
        done()
        return {
            "model": asdict(model.describe()),
            "threads": torch.get_num_threads(),
            "knee": asdict(knee),
            "curve": _curve(model, ways, plan, tell, done),
            "rounds": _rounds(ways, plan, tell, done),
            "variants": _variants(model, config, plan, tell, done),
            "moments": _moments(model, ways, plan, tell, done),
            "differences": _differences(config, plan, tell, done),
        }


def _rounds(ways: Ways, plan: Plan, tell: Tell, done: Callable[[], None]) -> dict[str, list[dict[str, Any]]]:
    """Every way in every round, each time begun with another, so that a noisy machine is noisy for all."""
    samples: dict[str, list[dict[str, Any]]] = {way: [] for way in plan.ways}
    text = f"{plan.rounds} rounds of {plan.images} images in {len(plan.ways)} ways"
    tell({"part": text, "parts": plan.rounds * len(plan.ways)})
    for number in range(plan.rounds):
        first = number % len(plan.ways)
        for way in plan.ways[first:] + plan.ways[:first]:
            samples[way].append(ways.measure(way, plan.images))
            done()
    return samples


def _variants(
    model: Diffusion, config: EngineConfig, plan: Plan, tell: Tell, done: Callable[[], None]
) -> dict[str, dict[str, float] | str]:
    if not plan.variants:
        return {}
    tell({"part": "changing one setting at a time", "parts": len(variants.CHANGES)})
    return variants.measure(model, config, plan.variants, plan.forwards, done)


def _moments(model: Diffusion, ways: Ways, plan: Plan, tell: Tell, done: Callable[[], None]) -> list[dict[str, Any]]:
    if not plan.moments:
        return []
    tell({"part": f"cancelling one of eight jobs and beginning another, {plan.moments} times", "parts": plan.moments})
    return company.measure(model, ways, plan.moments, done)


def _differences(
    config: EngineConfig, plan: Plan, tell: Tell, done: Callable[[], None]
) -> dict[str, dict[str, float] | str]:
    if not plan.dtypes:
        return {}
    tell({"part": f"comparing {plan.images} pictures alone and in company", "parts": len(plan.dtypes)})
    return differences.measure(config, plan, done)


def _curve(model: Diffusion, ways: Ways, plan: Plan, tell: Tell, done: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of forwards by their rows, again interleaved."""
    if not plan.rows:
        return {}
    tell({"part": f"timing forwards of {', '.join(map(str, plan.rows))} rows", "parts": plan.forwards})
    call = model.first_call(ways.work())
    calls = {}
    for rows in plan.rows:
        calls[rows] = resized(call, range(rows))
        _seconds(calls[rows])
    seconds: dict[str, list[float]] = {str(rows): [] for rows in plan.rows}
    for _ in range(plan.forwards):
        for rows, wider in calls.items():
            seconds[str(rows)].append(_seconds(wider))
        done()
    return seconds


def _seconds(call: Call) -> float:
    device = call.denoiser.device  # type: ignore[attr-defined]
    synchronize(device)
    began = time.perf_counter()
    call.denoiser.forward([call])
    synchronize(device)
    return time.perf_counter() - began


def main(argument: str) -> int:
    """Measure what the plan says; the status of the process."""
    # Whatever a library prints must not be taken for ours.
    lines, sys.stdout = sys.stdout, sys.stderr

    def tell(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=lines, flush=True)

    wanted = json.loads(argument)
    plan = Plan(**(wanted | {name: tuple(wanted[name]) for name in ("ways", "rows", "variants", "dtypes")}))
    if unknown := set(plan.ways) - set(WAYS):
        raise ValueError(f"no such way: {unknown}")
    try:
        tell({"result": measure(plan, tell)})
    except ModelError as error:
        tell({"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
