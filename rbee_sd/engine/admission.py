"""Who waits for a model, and when it is loaded for them.

Runs on the engine's main thread; `admit` blocks it while a model is loaded, and every job in hand with it. Knows no
torch. Jobs of loaded models never wait here, with one exception: while a model must go to make room for who has waited
longer, jobs that come for it wait too, or it would never be idle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from rbee_sd.engine.models import Models
from rbee_sd.engine.pipeline import ModelError
from rbee_sd.messages import Failed, Finished, Generate, LoadModel, Message, Narration

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Waiting:
    """A job, or somebody who only wants the model. `place` is its number in the order in which they came."""

    work: Generate | LoadModel
    place: int
    watched: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Lower goes first."""
        return -self.work.priority if isinstance(self.work, Generate) else 0, self.place


class Admission:
    """Those who wait. `busy` is always the names of the models that jobs in hand work with."""

    def __init__(self, models: Models, emit: Callable[[Message], None]) -> None:
        self._models = models
        self._emit = emit
        self._waiting: dict[str, Waiting] = {}
        self._yielding: frozenset[str] = frozenset()
        self._stuck: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def passes(self, model: str) -> bool:
        """Whether a job of this model may begin without waiting."""
        return model in self._models and (model not in self._yielding or not self._models.settled_in(model))

    def add(self, waiting: Waiting) -> None:
        """Let a job wait for its model."""
        if isinstance(waiting.work, LoadModel):
            self._models.forgive(waiting.work.model)
        self._waiting[waiting.work.job_id] = waiting
        self._stuck = None

    def drop(self, job_id: str) -> bool:
        """It waits no more. Whether it did."""
        self._stuck = None
        return self._waiting.pop(job_id, None) is not None

    def watch(self, job_id: str, watched: bool) -> None:
        """Somebody listens to a job, or nobody any more. No effect on one that does not wait."""
        if job_id in self._waiting:
            self._waiting[job_id].watched = watched

    def wanted(self, model: str) -> bool:
        """Whether anybody waits for a model."""
        return any(each.work.model == model for each in self._waiting.values())

    def can_admit(self, busy: frozenset[str]) -> bool:
        """Whether there is something for `admit` to do."""
        return bool(self._waiting) and self._stuck != busy

    def admit(self, busy: frozenset[str], in_hand: list[str]) -> list[Waiting]:
        """Load the model of who is first in line if there is room; returns those who have theirs.

        `in_hand` are the ids of jobs that are held up by it.
        """
        if not self.can_admit(busy):
            return []
        first = min(self._waiting.values(), key=lambda each: each.rank)
        name = first.work.model
        if failure := self._models.failure(name):
            # Nobody needs to make room for it.
            self._fail(name, failure)
        elif name not in self._models:
            going = self._models.outgoing(name, first.work.source, busy)
            if busy.intersection(going):
                self._yield(first, busy.intersection(going), busy)
                return []
            self._load(first, going, busy, in_hand)
        self._yielding, self._stuck = frozenset(), None
        return self._ready(name) if name in self._models else []

    def _yield(self, first: Waiting, going: frozenset[str], busy: frozenset[str]) -> None:
        """Wait until models are idle that must go."""
        if going != self._yielding:
            names = ", ".join(sorted(going))
            text = f"waiting for the jobs of {names}, which makes room for model {first.work.model}"
            self._emit(Narration(text, first.work.job_id))
        self._yielding, self._stuck = going, busy

    def _load(self, first: Waiting, going: list[str], busy: frozenset[str], in_hand: list[str]) -> None:
        name = first.work.model
        for job_id in in_hand:
            self._emit(Narration(f"paused while model {name} is loaded", job_id))

        def tell(text: str) -> None:
            for each in self._of(name):
                self._emit(Narration(text, each.work.job_id))

        try:
            self._models.load(name, first.work.source, going, busy, tell)
        except ModelError as error:
            log.error("%s", error)
            self._fail(name, str(error))

    def _fail(self, name: str, text: str) -> None:
        for each in self._of(name):
            del self._waiting[each.work.job_id]
            self._emit(Failed(each.work.job_id, "model_failed", text))

    def _ready(self, name: str) -> list[Waiting]:
        ready = sorted(self._of(name), key=lambda each: each.rank)
        for each in ready:
            del self._waiting[each.work.job_id]
            if isinstance(each.work, LoadModel):
                self._models.use(name)
                self._emit(Finished(each.work.job_id, ()))
        return ready

    def _of(self, name: str) -> list[Waiting]:
        return [each for each in self._waiting.values() if each.work.model == name]
