"""What the engine says of its time, with the demo model."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loop import Engine
from rbee_sd.engine.models import only
from rbee_sd.messages import Message, Progress, Pulse
from tests.engine.bench import Bench, work

SLOW = 0.05


def idle(said: list[Message]) -> float:
    """Seconds with jobs in which no model worked."""
    *_, last = (message for message in said if isinstance(message, Pulse))
    return last.elapsed - last.worked


def test_waiting_for_the_front_to_take_a_message_is_idle_time(model: Diffusion) -> None:
    bench = Bench(model)

    def emit(message: Message) -> None:
        if isinstance(message, Progress):
            time.sleep(SLOW)
        bench.said.append(message)

    bench.engine.close()
    bench.engine = Engine(only(model, emit), emit)
    with closing(bench.engine):
        bench.run(work("one", steps=4), work("two", steps=4))
    assert idle(bench.said) >= len(bench.heard(Progress)) * SLOW == 8 * SLOW


def test_making_previews_is_idle_time(model: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = model._previews.make, []

    def slowly(job_id: str, latents: object) -> object:
        time.sleep(SLOW)
        made.append(job_id)
        return make(job_id, latents)  # type: ignore[arg-type]

    monkeypatch.setattr(model._previews, "make", slowly)
    bench = Bench(model)
    with closing(bench.engine):
        bench.engine.submit(work("one", steps=4, preview=True))
        bench.engine.watch("one", True)
        bench.run()
    assert made
    assert idle(bench.said) >= len(made) * SLOW
