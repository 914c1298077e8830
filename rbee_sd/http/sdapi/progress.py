"""`progress`, `interrupt` and `skip`: of the caller's own jobs, and nobody else's. Front process, IOLoop thread.

The original has one job at a time. Here the caller's current job is the oldest of those that its requests wait for.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import orjson

from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs, Parameter
from rbee_sd.http.sdapi import answers
from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.info import timestamp
from rbee_sd.jobs.job import Job

LOADING = ("model loading", "engine restarting")
"""Reasons of `/ready` that pass by themselves."""
SKIP = ("false", "true", "False", "True", "0", "1")
LEAST = 0.01
"""Progress of a job that has not begun: some clients take none for no job."""


class ProgressHandler(SdapiHandler):
    """`/sdapi/v1/progress`."""

    docs: ClassVar[Docs] = {
        "GET": Doc(
            "How far the caller's current job is",
            {200: Answer("As it is now; nothing without a job.", {JSON: answers.SdapiProgress})},
            parameters=(
                Parameter(
                    "skip_current_image",
                    "Whether the preview is left out.",
                    {"enum": list(SKIP), "default": SKIP[0]},
                ),
            ),
        )
    }

    def get(self) -> None:
        """How far the caller's current job is; without one, whether a model is being loaded."""
        callers = self.context.callers
        jobs = callers.pictures(self.owner)
        if not jobs:
            loading = bool(callers.jobs(self.owner)) or self.context.status()["reason"] in LOADING
            self.answer(_progress(0.0, 0.0, _state("loading the model" if loading else "", int(loading)), None))
            return
        job = jobs[0]
        share = min(1.0, max(LEAST, job.step / job.total if job.total else 0.0))
        left = 0.0 if job.started is None else (time.monotonic() - job.started) * (1 - share) / share
        wanted = self.choice("skip_current_image", SKIP)
        image = None if wanted.lower() in ("true", "1") else _preview(job)
        self.answer(_progress(share, left, _state(job.id, len(jobs), job), image))


class InterruptHandler(SdapiHandler):
    """`/sdapi/v1/interrupt` and `/sdapi/v1/skip`."""

    docs: ClassVar[Docs] = {
        "POST": Doc(
            "Stop the caller's current job", {200: Answer("It is stopped, if there was one.", {JSON: answers.Nothing})}
        )
    }

    async def post(self) -> None:
        """Stop the caller's jobs whose clients have gone, or else the current one; answered alike however often."""
        registry, watcher = self.context.registry, self.context.watcher
        # As in the original, a model that is being loaded is not stopped.
        jobs = self.context.callers.pictures(self.owner)
        left = [job for job in jobs if not watcher.listeners(job.id)]
        for job in left or jobs[:1]:
            registry.cancel(job, "requested")
            await registry.closed(job)
        self.answer({})


def _progress(share: float, left: float, state: dict[str, Any], image: str | None) -> dict[str, Any]:
    return {
        "progress": round(share, 4),
        "eta_relative": round(left, 2),
        "state": state,
        "current_image": image,
        "textinfo": None,
    }


def _state(name: str, count: int, job: Job | None = None) -> dict[str, Any]:
    return {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": name,
        "job_count": count,
        "job_timestamp": timestamp(job) if job else "0",
        "job_no": 0,
        "sampling_step": job.step if job else 0,
        "sampling_steps": (job.total or 0) if job else 0,
    }


def _preview(job: Job) -> str | None:
    """The newest preview of the job's first image that has one: a small JPEG in base64."""
    for number, _ in job.previews.values():
        for _, event in job.log.after(number - 1)[:1]:
            image: str = orjson.loads(event.data)["image_base64"]
            return image
    return None
