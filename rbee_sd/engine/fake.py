"""A pipeline without a model, for tests: flat PNGs, and faults switched on by files in a folder.

Runs in the engine process when the setting `fake_pipeline` names the folder. A fault is on while a file of its
name is there; a file that holds the word `once` is removed as its fault happens. `slow` and `slow-start` hold
seconds (per step, and before the model is ready).
"""

from __future__ import annotations

import io
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.pipeline import DeviceLostError, ModelError, Report
from rbee_sd.messages import Generate, Ready

SIDE = 64
STEPS = 20


class FakePipeline:
    """Takes `slow` seconds a step, or none, and paints each image in a colour made from its seed."""

    def __init__(self, config: EngineConfig, pipe: Connection) -> None:
        self._name = config.name
        self._folder = Path(config.fake_pipeline)
        self._pipe = pipe
        self.forwards = 0
        time.sleep(self._seconds("slow-start"))
        if self._on("crash-on-start"):
            os._exit(70)
        if self._on("model-failed"):
            raise ModelError("the model cannot be loaded")

    def describe(self) -> Ready:
        """See `Pipeline`."""
        return Ready(self._name, "fake", "cpu", "float32", 1, SIDE, SIDE, STEPS, 7.5)

    def generate(self, work: Generate, report: Report) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """See `Pipeline`."""
        total = work.steps or STEPS
        size = (work.width or SIDE, work.height or SIDE)
        report.started(total, *size, work.guidance_scale or 7.5, work.scheduler or "euler")
        report.narrate(f"pretending to paint {total} steps")
        for step in range(1, total + 1):
            time.sleep(self._seconds("slow"))
            self._faults(report)
            self.forwards += 1
            report.step(step)
        return tuple(_png(size, work.seed + n) for n in range(work.count)), ()

    def _faults(self, report: Report) -> None:
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
                report.narrate(f"spam {n}")
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


def _png(size: tuple[int, int], seed: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256 % 256, seed // 65536 % 256)).save(file, "PNG")
    return file.getvalue()
