"""What the engine asks of anything that makes images: the real models and the tests' fake one.

Runs in the engine process, on its main thread. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from rbee_sd.engine.calls import Call
from rbee_sd.messages import Curve, Generate, Ready


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


@dataclass(frozen=True, slots=True)
class Plan:
    """A job with every open value settled. `total` is the number of denoise steps that it really takes.

    `inputs` is what `Pipeline.read` returned, `notes` are sentences for the client.
    """

    work: Generate
    steps: int
    total: int
    width: int
    height: int
    guidance_scale: float
    scheduler: str
    strength: float | None = None
    inputs: Any = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished image. `encode` makes its file, in the job's format, and that of its thumbnail.

    It may be called in another thread, and blocks it. See `Finished` about thumbnails.
    """

    encode: Callable[[], tuple[bytes, bytes]]
    flagged: bool = False


class Report(Protocol):
    """How an image in the making tells where it is."""

    @property
    def aside(self) -> AbstractContextManager[None]:
        """For `with`, around what is not of the model's doing: it does not count as its time. Nothing parks in it."""

    def step(self, step: int) -> None:
        """So many denoise steps are done."""

    def wants_preview(self) -> bool:
        """Whether somebody would see a preview."""

    def preview(self, step: int, encode: Callable[[], bytes]) -> None:
        """A preview. `encode` makes the JPEG file; it may be called in another thread, and blocks it."""


class Pipeline(Protocol):
    """A loaded model."""

    @property
    def forwards(self) -> int:
        """How many forwards of the denoiser were done."""

    @property
    def rows(self) -> int:
        """How many rows they had, together."""

    @property
    def memory(self) -> int:
        """Bytes of the device that are held; 0 on a CPU, whose memory is the process's."""

    @property
    def size(self) -> int:
        """Bytes of its weights."""

    def warm_up(self) -> Curve | None:
        """Find out how many rows pay in the size that the model wants; once, before `describe`.

        Raises `ModelError`, and `MemoryError` when there is no room for it.
        """

    def describe(self) -> Ready:
        """What the model is and what it wants by default."""

    def reads(self, work: Generate) -> bool:
        """Whether `read` would take long."""

    def read(self, work: Generate) -> Any:
        """Decode the inputs of a job, and read what files it needs. Raises `GenerationError`.

        Called in another thread, which it blocks, if `reads` says so.
        """

    def settle(self, work: Generate, inputs: Any) -> Plan:
        """Fill in what the job leaves open. Raises `GenerationError` for what the model cannot do."""

    def paint(self, plan: Plan, index: int, report: Report) -> Picture:
        """Make one image of a job, in a greenlet of its own, in which it parks for what takes long.

        Raises `GenerationError`, and whatever it is woken with.
        """

    def forget(self, job_id: str) -> None:
        """The job has ended."""

    def knee(self, call: Call, at_most: int) -> Curve | None:
        """Go on measuring how many rows, `at_most`, pay for calls like this; the curve when that settles it."""
