"""What the engine asks of anything that makes images: the real pipelines and the tests' fake one.

Runs in the engine process, on its main thread. Imports nothing heavy.
"""

from __future__ import annotations

from typing import Protocol

from rbee_sd.messages import Generate, Ready


class GenerationError(Exception):
    """This job cannot be done; the engine is well. `code` is an error code of the contract."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DeviceLostError(Exception):
    """The device answers no more in this process: after this job, the engine has to be started anew."""


class ModelError(Exception):
    """The model cannot be loaded. The message is for clients: no path in it."""


class Report(Protocol):
    """How a pipeline tells what it is doing. `step` is where a job may be interrupted."""

    def started(self, total: int, width: int, height: int, guidance_scale: float, scheduler: str) -> None:
        """The job has begun, with every open value settled."""

    def step(self, step: int) -> None:
        """One more denoise step is done. Others may run before this returns; it raises when the job is to end."""

    def narrate(self, text: str) -> None:
        """A sentence for people."""


class Pipeline(Protocol):
    """A loaded model."""

    forwards: int
    """How often the denoiser was called."""

    def describe(self) -> Ready:
        """What the model is and what it wants by default."""

    def generate(self, work: Generate, report: Report) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """Make the images of a job: PNG files, and which of them the safety checker blacked out.

        Raises `GenerationError` for what the model cannot do, and whatever `report.step` raises.
        """
