"""What there is to choose from, as AUTOMATIC1111's clients ask for it: models, samplers, LoRAs, and empty lists.

Front process, IOLoop thread. What clients ask for at their start is answered also where there is none of it: some take
a missing list for a missing server.
"""

from __future__ import annotations

from typing import ClassVar

from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs
from rbee_sd.http.sdapi import answers
from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.models import entry_of
from rbee_sd.samplers import SAMPLERS

NO_UPSCALER: dict[str, object] = {
    "name": "None",
    "model_name": None,
    "model_path": None,
    "model_url": None,
    "scale": 1,
}


class ModelsHandler(SdapiHandler):
    """`/sdapi/v1/sd-models`."""

    docs: ClassVar[Docs] = {"GET": Doc("Models", {200: Answer("Their titles.", {JSON: answers.Models})})}

    def get(self) -> None:
        """The models of this worker."""
        self.answer_list([entry_of(model) for model in self.context.limits.models])


class SamplersHandler(SdapiHandler):
    """`/sdapi/v1/samplers`."""

    docs: ClassVar[Docs] = {
        "GET": Doc("Samplers", {200: Answer("Those that the model takes.", {JSON: answers.Samplers})})
    }

    def get(self) -> None:
        """The samplers that the model takes; their aliases are the schedulers of our own API."""
        aliases: dict[str, list[str]] = {}
        for scheduler in self.context.limits.schedulers:
            aliases.setdefault(SAMPLERS[scheduler][0], []).append(scheduler)
        self.answer_list([{"name": name, "aliases": also, "options": {}} for name, also in aliases.items()])


class SchedulersHandler(SdapiHandler):
    """`/sdapi/v1/schedulers`."""

    docs: ClassVar[Docs] = {
        "GET": Doc("Schedules", {200: Answer("Those that any sampler has a choice of.", {JSON: answers.Schedules})})
    }

    def get(self) -> None:
        """The schedules that any sampler has a choice of; each sampler's own is called Automatic."""
        schedules = {SAMPLERS[scheduler][1] for scheduler in self.context.limits.schedulers} - {""}
        self.answer_list([_schedule(label) for label in ("Automatic", *sorted(schedules))])


class LorasHandler(SdapiHandler):
    """`/sdapi/v1/loras`."""

    docs: ClassVar[Docs] = {"GET": Doc("LoRAs", {200: Answer("To be named in a prompt.", {JSON: answers.Loras})})}

    def get(self) -> None:
        """The LoRAs of this worker, to be named in a prompt."""
        names = self.context.limits.loras
        self.answer_list([{"name": name, "alias": name, "path": "", "metadata": {}} for name in names])


class UpscalersHandler(SdapiHandler):
    """`/sdapi/v1/upscalers`."""

    docs: ClassVar[Docs] = {"GET": Doc("Upscalers", {200: Answer("There are none.", {JSON: answers.Upscalers})})}

    def get(self) -> None:
        """`None` alone, which clients want to be the first."""
        self.answer_list([NO_UPSCALER])


class EmptyListHandler(SdapiHandler):
    """What the original has and this worker has none of."""

    docs: ClassVar[Docs] = {
        "GET": Doc(
            "What the original has and this worker has none of", {200: Answer("None.", {JSON: answers.EmptyList})}
        )
    }

    def get(self) -> None:
        """An empty list."""
        self.answer_list([])


class EmbeddingsHandler(SdapiHandler):
    """`/sdapi/v1/embeddings`."""

    docs: ClassVar[Docs] = {"GET": Doc("Embeddings", {200: Answer("There are none.", {JSON: answers.Embeddings})})}

    def get(self) -> None:
        """None."""
        self.answer({"loaded": {}, "skipped": {}})


class ScriptsHandler(SdapiHandler):
    """`/sdapi/v1/scripts`."""

    docs: ClassVar[Docs] = {"GET": Doc("Scripts", {200: Answer("There are none.", {JSON: answers.Scripts})})}

    def get(self) -> None:
        """None."""
        self.answer({"txt2img": [], "img2img": []})


def _schedule(label: str) -> dict[str, object]:
    return {"name": label.lower(), "label": label, "aliases": None, "default_rho": -1, "need_inner_model": False}
