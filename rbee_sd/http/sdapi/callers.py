"""Who calls in AUTOMATIC1111's dialect: the model each has chosen, and the jobs of each.

Owned by the front's IOLoop thread; nothing here blocks. In the original, the chosen model, the progress and the
interruption are everybody's. Here each is the caller's own: `owner` is the name of a key, or an address.
"""

from __future__ import annotations

from collections import OrderedDict

from rbee_sd.jobs.job import Job
from rbee_sd.jobs.registry import JobRegistry

CHOICES = 10_000
"""Callers whose choice of a model is kept; the one made longest ago goes first."""


class Callers:
    """All who have called."""

    def __init__(self, registry: JobRegistry) -> None:
        self._jobs: dict[str, list[Job]] = {}
        self._models: OrderedDict[str, str] = OrderedDict()
        registry.on_finish(self._finished)

    def choose(self, owner: str, model: str) -> None:
        """This model is for the caller's requests from now on."""
        self._models.pop(owner, None)
        self._models[owner] = model
        if len(self._models) > CHOICES:
            self._models.popitem(last=False)

    def chosen(self, owner: str) -> str | None:
        """The model that the caller has chosen, if any."""
        return self._models.get(owner)

    def began(self, job: Job) -> None:
        """A request of this dialect is behind this job: a new one, or by its Idempotency-Key one from before."""
        jobs = self._jobs.get(job.order.owner, [])
        if not job.state.terminal and job not in jobs:
            self._jobs[job.order.owner] = [*jobs, job]

    def jobs(self, owner: str) -> list[Job]:
        """The caller's jobs that have not ended, oldest first."""
        return self._jobs.get(owner, [])

    def pictures(self, owner: str) -> list[Job]:
        """Those that make pictures; the others load the model that the caller has chosen."""
        return [job for job in self.jobs(owner) if job.order.work is not None]

    def _finished(self, job: Job) -> None:
        owner = job.order.owner
        left = [each for each in self.jobs(owner) if each is not job]
        if left:
            self._jobs[owner] = left
        else:
            self._jobs.pop(owner, None)
