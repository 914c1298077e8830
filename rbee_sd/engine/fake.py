"""A pipeline without a model, for tests: flat PNGs, and faults switched on by files in a folder.

Runs in the engine process when the setting `fake_pipeline` names the folder. A fault is on while a file of its
name is there; a file that holds the word `once` is removed as its fault happens. `slow` and `slow-start` hold
seconds (per step, and before a model is ready), `model-failed` may hold the name of the one model that fails,
`model-NAME` what the model NAME says of itself, as JSON of the fields of `Ready`. While there is a file `noise`,
pictures and previews are as hard to compress as photographs.
"""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from rbee_sd.engine.calls import Call, park
from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.pipeline import DeviceLostError, GenerationError, ModelError, Picture, Plan, Report
from rbee_sd.engine.recipe import parameters, recipe
from rbee_sd.messages import Curve, Generate, Narration, Ready, encode

SIDE = 64
STEPS = 20
CAP = 16
"""Rows of a forward, of which each image has two."""
SMALL_SIDE = 256
"""Pixels of the longer side of previews and thumbnails."""
CLOUD = 8
"""Pixels that change colour together."""
CONTRAST, GRAIN = 30.0, 0.5
"""Of 256 colours: a PNG of 1024 x 1024 has 1.7 MB then."""


class FakePipeline:
    """Takes `slow` seconds a forward, or none, and paints each image in a colour made from its seed,
    with the settings that say so.

    Its forwards are shared like a model's. The file `capacity` holds how many jobs it takes at once; without it, one.
    """

    def __init__(self, config: EngineConfig, pipe: Connection) -> None:
        self._name = config.name
        self._folder = Path(config.fake_pipeline)
        self._pipe = pipe
        self.forwards = 0
        self.rows = 0
        self.memory = 0
        self.size = 0
        time.sleep(self._seconds("slow-start"))
        if self._on("crash-on-start"):
            os._exit(70)
        if self._text("model-failed") in ("", "once", config.name):
            self._on("model-failed")
            raise ModelError("the model cannot be loaded")

    def warm_up(self) -> Curve:
        """See `Pipeline`."""
        return Curve(SIDE, SIDE, (1, 2), (1.0, 2.0), CAP, self._name)

    def describe(self) -> Ready:
        """See `Pipeline`."""
        capacity = int(self._text("capacity") or 1)
        ready = Ready(self._name, "fake", "cpu", "float32", capacity, SIDE, SIDE, STEPS, 7.5)
        return replace(ready, **json.loads(self._text(f"model-{self._name}") or "{}"))

    def reads(self, work: Generate) -> bool:
        """See `Pipeline`."""
        return bool(work.inputs)

    def read(self, work: Generate) -> None:
        """See `Pipeline`."""
        if self._on("bad-input"):
            raise GenerationError("invalid_input", "the image cannot be decoded")

    def settle(self, work: Generate, inputs: None) -> Plan:
        """See `Pipeline`."""
        steps = work.steps or STEPS
        return Plan(
            work,
            steps=steps,
            total=max(1, int(steps * (work.strength or 1.0))),
            width=work.width or SIDE,
            height=work.height or SIDE,
            guidance_scale=work.guidance_scale or 7.5,
            scheduler=work.scheduler or "euler",
        )

    def paint(self, plan: Plan, index: int, report: Report) -> Picture:
        """See `Pipeline`."""
        size = (plan.width, plan.height)
        seed = plan.work.seed + index
        for step in range(1, plan.total + 1):
            lane = (id(self), size, plan.work.job_id if plan.work.exclusive else "")
            park(Call(self, shape=(id(self), size), signature=lane, lane=lane, rows=2, arguments=None, label=size))
            self._faults(plan.work.job_id)
            report.step(step)
            if step < plan.total and report.wants_preview():
                report.preview(step, partial(_small, size, seed + step, self._on("noise")))
        made_by = recipe(plan, seed, self._name, negative=True)
        return Picture(partial(_picture, plan.work.format, size, seed, self._on("noise"), parameters(made_by)))

    def forget(self, job_id: str) -> None:
        """See `Pipeline`."""

    def knee(self, call: Call, at_most: int) -> None:
        """See `Pipeline`."""

    # The `Denoiser` of `calls`.

    def forward(self, calls: Sequence[Call]) -> list[None]:
        """See `Denoiser`."""
        time.sleep(self._seconds("slow"))
        self.forwards += 1
        self.rows += sum(call.rows for call in calls)
        return [None] * len(calls)

    def cap(self, call: Call) -> int:
        """See `Denoiser`."""
        return CAP

    def is_too_large(self, error: Exception) -> bool:
        """See `Denoiser`."""
        return False

    def shrink(self, call: Call, rows: int) -> None:
        """See `Denoiser`."""

    def halve(self, call: Call) -> tuple[Call, Call]:
        """See `Denoiser`."""
        return call, call

    def join(self, first: None, second: None) -> None:
        """See `Denoiser`."""

    def _faults(self, job_id: str) -> None:
        for fault, error in (
            ("oom", MemoryError()),
            ("fail", RuntimeError(f"something about {self._folder}")),
            ("device-lost", DeviceLostError()),
        ):
            if self._on(fault):
                raise error
        self._deaths()
        if self._on("garbage"):
            self._pipe.send_bytes(b"\xff\xfe garbage")
        if self._on("spam"):
            for n in range(10_000):
                self._pipe.send_bytes(encode(Narration(f"spam {n}", job_id)))
        while (self._folder / "hang").exists():
            time.sleep(0.01)

    def _deaths(self) -> None:
        if self._on("crash"):
            os._exit(70)
        if self._on("segv"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._on("half-message"):
            # A length of 1000 bytes, then 3 of them, then nothing.
            os.write(self._pipe.fileno(), (1000).to_bytes(4, "big") + b"abc")
            os._exit(70)
        if self._on("huge-frame"):
            # A length of 2 GiB, and the engine goes on as if nothing were wrong.
            os.write(self._pipe.fileno(), (2**31 - 1).to_bytes(4, "big"))

    def _on(self, fault: str) -> bool:
        text = self._text(fault)
        if text == "once":
            (self._folder / fault).unlink(missing_ok=True)
        return text is not None

    def _seconds(self, fault: str) -> float:
        return float(self._text(fault) or 0)

    def _text(self, fault: str) -> str | None:
        try:
            return (self._folder / fault).read_text().strip()
        except FileNotFoundError:
            return None


def _picture(kind: str, size: tuple[int, int], seed: int, noise: bool, settings: str) -> tuple[bytes, bytes]:
    """A file in the seed's colour; of a PNG, also with the text that says how it was made. And its thumbnail."""
    file = io.BytesIO()
    info = PngInfo()
    info.add_text("parameters", settings)
    _painted(size, seed, noise).save(file, kind, pnginfo=info)
    return file.getvalue(), _small(size, seed, noise) if max(size) > SMALL_SIDE else b""


def _small(size: tuple[int, int], seed: int, noise: bool) -> bytes:
    file = io.BytesIO()
    share = min(1.0, SMALL_SIDE / max(size))
    _painted((int(size[0] * share), int(size[1] * share)), seed, noise).save(file, "JPEG")
    return file.getvalue()


def _painted(size: tuple[int, int], seed: int, noise: bool) -> Image.Image:
    if noise:
        return Image.merge("RGB", [_noise(size) for _ in range(3)])
    return Image.new("RGB", size, (seed % 256, seed // 256 % 256, seed // 65536 % 256))


def _noise(size: tuple[int, int]) -> Image.Image:
    """One band: soft clouds with a grain."""
    width, height = size
    clouds = Image.effect_noise((width // CLOUD, height // CLOUD), CONTRAST).resize(size, Image.Resampling.BICUBIC)
    return ImageChops.add(clouds, Image.effect_noise(size, GRAIN), offset=-128)
