"""`/health`, `/ready`, `/v1/status`, `/v1/capabilities`: what load balancers, scripts and forms ask.

Front process, IOLoop thread.
"""

from __future__ import annotations

import time
from typing import ClassVar

from rbee_sd import messages
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.answers import Capabilities, Health, Readiness, WorkerStatus
from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs
from rbee_sd.operations import limits
from rbee_sd.operations.table import offered


class HealthHandler(BaseHandler):
    """`/health`: the front lives."""

    open_to_all = True
    tag = "Worker"
    docs: ClassVar[Docs] = {
        "GET": Doc("Whether the worker lives", {200: Answer("It does, whatever the engine does.", {JSON: Health})})
    }

    def get(self) -> None:
        """200, whatever the engine does."""
        self.answer({"status": "healthy", "timestamp": round(time.time(), 3)})

    head = get


class ReadyHandler(BaseHandler):
    """`/ready`: jobs that are sent now start at once, or when those before them are done."""

    open_to_all = True
    tag = "Worker"
    docs: ClassVar[Docs] = {
        "GET": Doc(
            "Whether the engine takes jobs",
            {
                200: Answer("It does.", {JSON: Readiness}),
                503: Answer(
                    "Not yet, or not any more. Jobs are accepted all the same, and wait.",
                    {JSON: Readiness},
                    ("Retry-After",),
                ),
            },
        )
    }

    def get(self) -> None:
        """200 when the engine takes jobs, else 503 with the reason."""
        status = self.context.status()
        ready = status["ready"]
        if not ready:
            self.set_header("Retry-After", "1")
        self.answer({name: status[name] for name in ("ready", "reason", "detail")}, 200 if ready else 503)

    head = get


class StatusHandler(BaseHandler):
    """`/v1/status`: how the worker is, for pages; the operation `status` is the same as a job."""

    tag = "Worker"
    docs: ClassVar[Docs] = {"GET": Doc("How the worker is", {200: Answer("As it is now.", {JSON: WorkerStatus})})}

    def get(self) -> None:
        """200, whatever the engine does."""
        self.answer(self.context.status())


class CapabilitiesHandler(BaseHandler):
    """`/v1/capabilities`: what a form or a client may offer."""

    tag = "Worker"
    docs: ClassVar[Docs] = {
        "GET": Doc("What this worker does and accepts", {200: Answer("As it is now.", {JSON: Capabilities})})
    }

    def get(self) -> None:
        """Operations, models, schedulers, LoRAs, limits, and what the model wants by default."""
        settings, accepted = self.context.settings, self.context.limits
        loaded = accepted.loaded()
        defaults = None
        if loaded is not None:
            defaults = {
                "width": loaded.width,
                "height": loaded.height,
                "steps": loaded.steps,
                "guidance_scale": loaded.guidance_scale,
            }
        self.answer(
            {
                "operations": list(offered(accepted)),
                "models": list(accepted.models),
                "model_details": self.context.models(),
                "schedulers": list(accepted.schedulers),
                "loras": list(accepted.loras),
                "defaults": defaults,
                "strengths": messages.STRENGTHS,
                "batching": self.context.batching(),
                "limits": {
                    "min_side": messages.MIN_SIDE,
                    "max_side": settings.max_side,
                    "multiple_of": accepted.multiple,
                    "max_steps": settings.max_steps,
                    "max_count": settings.max_count,
                    "max_megapixel_steps": settings.max_megapixel_steps,
                    "max_prompt": limits.MAX_PROMPT,
                    "max_guidance_scale": messages.MAX_GUIDANCE_SCALE,
                    "max_strength": limits.MAX_STRENGTH,
                    "max_input_side": limits.MAX_INPUT_SIDE,
                    "max_input_pixels": messages.MAX_INPUT_PIXELS,
                    "formats": list(messages.FORMATS),
                    "input_formats": list(messages.INPUT_FORMATS),
                    "max_loras": limits.MAX_LORAS,
                    "max_lora_scale": limits.MAX_LORA_SCALE,
                    "max_body": settings.max_body,
                    "queue_size": settings.queue_size,
                    "disconnect_grace": settings.disconnect_grace,
                    "job_timeout": settings.job_timeout,
                },
            }
        )
