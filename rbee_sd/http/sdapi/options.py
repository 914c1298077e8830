"""Options, flags and memory of AUTOMATIC1111's dialect. Front process, IOLoop thread.

Of the original's hundreds of options there is one that can be set, the model; and that is the caller's own.
"""

from __future__ import annotations

from typing import ClassVar

from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs
from rbee_sd.http.sdapi import answers
from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.models import model_named
from rbee_sd.http.sdapi.requests import Options


class OptionsHandler(SdapiHandler):
    """`/sdapi/v1/options`."""

    takes = Options
    docs: ClassVar[Docs] = {
        "GET": Doc("The model of the caller's next requests", {200: Answer("As it is now.", {JSON: answers.Chosen})}),
        "POST": Doc(
            "Choose the model of the caller's next requests",
            {200: Answer("It is chosen, and being loaded; other options are ignored.", {JSON: answers.Nothing})},
            errors=(404, 415, 503),
            body={JSON: Options},
        ),
    }

    def get(self) -> None:
        """The model of the caller's next requests, and what clients look for besides."""
        self.answer(
            {
                "sd_model_checkpoint": self.context.callers.chosen(self.owner) or self.context.status()["model"],
                "sd_checkpoint_hash": "",
                "sd_vae": "Automatic",
                "CLIP_stop_at_last_layers": 1,
                "samples_format": "png",
                "live_previews_enable": True,
            }
        )

    async def post(self) -> None:
        """Choose the model, and have it loaded; everything else is ignored. The answer does not wait for that."""
        title = self.read(Options).sd_model_checkpoint
        if title is not None:
            model = model_named(title, self.context.limits)
            self.context.callers.choose(self.owner, model)
            if model not in self.context.status()["loaded"]:
                await self._load(model)
        self.answer({})

    async def _load(self, model: str) -> None:
        callers, fields = self.context.callers, {"operation": "model_load", "model": model, "on_disconnect": "finish"}
        # Some clients send all options again before each picture.
        if all(job.order.request != fields for job in callers.jobs(self.owner)):
            callers.began(await self.context.desk.accept(fields, owner=self.owner))


class FlagsHandler(SdapiHandler):
    """`/sdapi/v1/cmd-flags`."""

    docs: ClassVar[Docs] = {
        "GET": Doc(
            "Flags that it was started with", {200: Answer("As the original would say it.", {JSON: answers.Flags})}
        )
    }

    def get(self) -> None:
        """The two of the original's flags that this worker behaves like."""
        self.answer({"api": True, "nowebui": True})


class MemoryHandler(SdapiHandler):
    """`/sdapi/v1/memory`."""

    docs: ClassVar[Docs] = {"GET": Doc("Memory", {200: Answer("In bytes.", {JSON: answers.Memory})})}

    def get(self) -> None:
        """The machine's memory, and what the engine holds of the device's."""
        # Not needed before somebody asks, and it takes longer to load than the front may to listen.
        import psutil

        memory = psutil.virtual_memory()
        held = self.context.status()["engine"]["memory"]
        self.answer(
            {
                "ram": {"free": memory.available, "used": memory.total - memory.available, "total": memory.total},
                "cuda": {"reserved": {"current": held}} if held else {"error": "unavailable"},
            }
        )


class RefreshHandler(SdapiHandler):
    """`/sdapi/v1/refresh-checkpoints` and `/sdapi/v1/refresh-loras`."""

    docs: ClassVar[Docs] = {
        "POST": Doc("Look for new files: no effect", {200: Answer("Nothing is done.", {JSON: answers.Nothing})})
    }

    def post(self) -> None:
        """Nothing: what this worker offers is what it tells."""
        self.answer({})
