"""The same images made in four ways, on one loaded model: what is compared.

Every image has a prompt and a seed that no other has, so that nothing that is kept helps anybody; every image becomes
a PNG file by the engine's own function.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from PIL import Image

from rbee_sd.engine import outputs
from rbee_sd.engine.bench.peak import forget, peak
from rbee_sd.engine.bench.plan import Plan
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loop import Engine
from rbee_sd.engine.models import only
from rbee_sd.messages import Failed, Finished, Generate, Message, Pulse, encode


class Ways:
    """Makes the images of a round in one way or another."""

    def __init__(self, model: Diffusion, plan: Plan) -> None:
        self._model = model
        self._plan = plan
        self._ready = model.describe()
        self._side = plan.side or self._ready.width
        self._numbers = count(1)
        self._live = Engine(only(model, self._emit), self._emit)
        self._poll = select.poll()
        self._poll.register(self._live.wakeup, select.POLLIN)
        self._pulse = Pulse(0)
        self._finished = 0
        self._files: dict[str, bytes] = {}

    def close(self) -> None:
        """End the engine's other thread."""
        self._live.close()

    def work(self, **changes: Any) -> Generate:
        """A job for one image that nobody has asked for before."""
        number = next(self._numbers)
        values = {"steps": self._plan.steps, "width": self._side, "height": self._side, **changes}
        return Generate(f"job-{number}", f"a red circle, number {number}", "", number, **values)

    def measure(self, way: str, images: int) -> dict[str, Any]:
        """Make so many images. Seconds that passed, seconds of CPU, the peak of memory, the engine's own count."""
        make: Callable[[int], dict[str, Any] | None] = getattr(self, f"_{way}")
        forget(self._model.denoiser.device)
        began, cpu = time.perf_counter(), time.process_time()
        pulse = make(images)
        took, used = time.perf_counter() - began, time.process_time() - cpu
        return {"seconds": took, "cpu": used, "peak": peak(self._model.denoiser.device), "pulse": pulse}

    def files(self, groups: list[list[Generate]]) -> dict[str, bytes]:
        """The PNG files of these jobs by their ids, one group after the other, each group's jobs at once."""
        self._engine(groups)
        return self._files

    def _sequential(self, images: int) -> None:
        for _ in range(images):
            self._pipe([self.work()])

    def _static(self, images: int) -> None:
        self._pipe([self.work() for _ in range(images)])

    def _single(self, images: int) -> dict[str, Any]:
        return self._engine([[self.work()] for _ in range(images)])

    def _shared(self, images: int) -> dict[str, Any]:
        return self._engine([[self.work() for _ in range(images)]])

    def _pipe(self, works: list[Generate]) -> None:
        """What anybody would write with diffusers."""
        output = self._model.pipe(
            [work.prompt for work in works],
            num_inference_steps=self._plan.steps,
            guidance_scale=self._ready.guidance_scale,
            width=self._side,
            height=self._side,
            generator=[torch.Generator("cpu").manual_seed(work.seed) for work in works],
        )
        for work, image in zip(works, output.images, strict=True):
            self._file(work, image)

    def _file(self, work: Generate, image: Image.Image) -> bytes:
        recipe = {
            "prompt": work.prompt,
            "negative_prompt": work.negative_prompt,
            "seed": work.seed,
            "steps": work.steps,
            "guidance_scale": self._ready.guidance_scale,
            "width": work.width,
            "height": work.height,
            "scheduler": type(self._model.pipe.scheduler).__name__,
            "model": self._ready.model,
            "loras": [],
        }
        return outputs.picture_file(image, recipe)

    def _engine(self, groups: list[list[Generate]]) -> dict[str, Any]:
        """Groups of jobs, one group after the other, as the engine's own loop does them."""
        self._finished, self._files, before = 0, {}, self._pulse
        forwards, rows = self._model.forwards, self._model.rows
        engine, expected = self._live, 0
        for group in groups:
            for work in group:
                engine.submit(work)
            expected += len(group)
            while self._finished < expected:
                if self._poll.poll(0 if engine.busy else None):
                    engine.deliver()
                if engine.busy:
                    engine.step()
        return {
            # By the model's own count: not every forward of this process is the engine's.
            "forwards": self._model.forwards - forwards,
            "rows": self._model.rows - rows,
            "worked": self._pulse.worked - before.worked,
            "elapsed": self._pulse.elapsed - before.elapsed,
        }

    def _emit(self, message: Message) -> None:
        # The front would get this frame.
        encode(message)
        match message:
            case Pulse():
                self._pulse = message
            case Finished(job_id, images):
                self._finished += 1
                self._files[job_id] = images[0]
            case Failed(_, _, text):
                raise RuntimeError(f"a job failed: {text}")
