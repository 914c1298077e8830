"""An engine in the test's own process: small jobs for it, what it says, and the pictures that come of it."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from rbee_sd.engine.config import EngineConfig, model_name
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loop import Engine
from rbee_sd.engine.models import Models, only
from rbee_sd.messages import Finished, Generate, LoadModel, Message

PROMPT = "a red circle on a blue background"
SIDE = 64
TOLERANCE = 2
"""Of 255: how far a picture may be from the one its job makes alone (rounding may depend on company)."""

DEADLINE = 30.0

Pixels = npt.NDArray[np.uint8]
M = TypeVar("M", bound=Message)


def config(model: object, **changes: Any) -> EngineConfig:
    """What the front tells an engine that is to load `model`; one thread, for a small machine."""
    # With a cap that is set nothing is measured, so that every forward is one that a job asked for.
    values = {"device": "cpu", "threads": 1, "log_level": "warning", "max_rows": 32, **changes}
    return EngineConfig(name=model_name(str(model)), model=str(model), **values)


def work(job_id: str = "job", **changes: Any) -> Generate:
    """A small, quick job; `changes` are fields of `Generate`."""
    values = {"prompt": PROMPT, "negative_prompt": "", "seed": 1, "steps": 3, "width": SIDE, "height": SIDE}
    return Generate(job_id, **{**values, **changes})


class Bench:
    """An `Engine` over a model, or over several, with everything it has said."""

    def __init__(self, model: Diffusion | None, models: Callable[[Callable[[Message], None]], Models] | None = None):
        self.said: list[Message] = []
        if model is not None:
            self.model = model
        self.models = models(self.said.append) if models else only(self.model, self.said.append)
        self.engine = Engine(self.models, self.said.append)

    def run(self, *works: Generate | LoadModel) -> None:
        """Do these jobs, together, to the end."""
        for each in works:
            self.engine.submit(each)
        while self.engine._tasks or self.engine._admission:
            if self.engine.busy:
                self.engine.step()
            else:
                wait([self.engine.wakeup], timeout=DEADLINE)
            self.engine.deliver()

    def step(self, times: int = 1) -> None:
        """Take what jobs there are so many steps further."""
        for _ in range(times):
            self.engine.deliver()
            self.engine.step()

    def rest(self) -> None:
        """Wait until the engine's other threads have done what they were given, and hold none of it."""
        for threads in (self.engine._encoder._reading, self.engine._encoder._encoding):
            threads.submit(int).result()

    def heard(self, kind: type[M], job_id: str | None = None) -> list[M]:
        """What was said of this kind, about one job or all."""
        return [
            message
            for message in self.said
            if isinstance(message, kind) and job_id in (None, getattr(message, "job_id", None))
        ]

    def picture(self, job_id: str) -> Pixels:
        """The first image of a finished job."""
        (finished,) = self.heard(Finished, job_id)
        return pixels(finished.images[0])


def draw(model: Diffusion, **changes: Any) -> list[bytes]:
    """The PNG files that this job gets when it is alone."""
    return alone(model, work(**changes))


def alone(model: Diffusion, each: Generate) -> list[bytes]:
    """The PNG files that this job gets when it is alone."""
    bench = Bench(model)
    try:
        bench.run(each)
        (finished,) = bench.heard(Finished)
        return list(finished.images)
    finally:
        bench.engine.close()


def picture(model: Diffusion, **changes: Any) -> Pixels:
    """The first image that this job gets when it is alone."""
    return pixels(draw(model, **changes)[0])


def pixels(file: bytes, kind: str = "png") -> Pixels:
    """(height, width, 3) in 0..255."""
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == kind.upper()
        return np.asarray(image.convert("RGB"))


def tensors() -> int:
    """How many tensors there are in this process."""
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def difference(first: Pixels, second: Pixels) -> int:
    """The largest difference of two pictures of one size, 0..255."""
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())


@contextmanager
def before_each_forward(module: Any, act: Callable[[], None]) -> Iterator[None]:
    """Have `act` called, and perhaps fail, whenever `module` (a torch module) is about to work."""

    def hook(*_: Any) -> None:
        act()

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
