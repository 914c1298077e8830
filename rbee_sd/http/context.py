"""What the handlers work with. Front process; made once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rbee_sd.http.door import Door
from rbee_sd.http.openai.models import ModelNames
from rbee_sd.http.quotas import Quotas
from rbee_sd.http.retries import Retries
from rbee_sd.http.sdapi.callers import Callers
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.jobs.watcher import Watcher
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.table import Desk
from rbee_sd.settings import Settings


class Numbers(Protocol):
    """What the handlers need of the metrics."""

    def dropped(self) -> None:
        """A client that did not read was cut off."""

    def text(self) -> bytes:
        """All numbers as they are now."""


@dataclass(frozen=True, slots=True)
class Context:
    """One for the whole application.

    `status` and `batching` return JSON objects about the worker and its engine, `models` one for each model.
    """

    settings: Settings
    door: Door
    registry: JobRegistry
    watcher: Watcher
    desk: Desk
    limits: Limits
    quotas: Quotas
    retries: Retries
    model_names: ModelNames
    metrics: Numbers
    callers: Callers
    status: Callable[[], dict[str, Any]]
    models: Callable[[], list[dict[str, Any]]]
    batching: Callable[[], dict[str, Any]]
