"""Names of models as OpenAI's clients use them: ours, those that the settings map to them, and OpenAI's own. Pure."""

from __future__ import annotations

import re
import time
from typing import Any

from rbee_sd.errors import FieldError, RequestError, SettingsError
from rbee_sd.operations.json_object import shown
from rbee_sd.operations.limits import Limits

OPENAI = re.compile(r"(gpt-image|chatgpt-image|dall-e)(-[a-z0-9.-]{1,50})?", re.ASCII)
"""Programs have these built in, and few let their users change them: they mean the default model."""
SINCE = int(time.time())
"""When a model came to be here is not known; no client looks at it."""


def aliases_of(entries: tuple[str, ...]) -> dict[str, str]:
    """The setting `model_aliases` by alias. Raises `SettingsError`."""
    aliases = {}
    for entry in entries:
        alias, equals, model = (part.strip() for part in entry.partition("="))
        if not (alias and equals and model):
            raise SettingsError(f"model_aliases takes entries such as gpt-image-1=demo, not {entry!r:.100}")
        aliases[alias] = model
    return aliases


class ModelNames:
    """What models may be called."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._aliases = aliases_of(limits.settings.model_aliases)

    def resolve(self, name: str | None) -> str | None:
        """The model of a name; None for the default one. Raises 404 `model_not_found`."""
        known = self._limits.models
        model = self._aliases.get(name or "", name)
        if model is None or model in known:
            return model
        if OPENAI.fullmatch(model):
            return None
        names = ", ".join((*known, *self._aliases))
        text = f"there is no model {shown(name)!r} here; there is {names}"
        raise RequestError(404, "model_not_found", text, fields=[FieldError("model", "unknown", text)])

    def listed(self) -> list[dict[str, Any]]:
        """Every model, and every name that the settings give one."""
        present = [alias for alias, model in self._aliases.items() if model in self._limits.models]
        return [described(name) for name in dict.fromkeys((*self._limits.models, *present))]


def described(name: str) -> dict[str, Any]:
    """A model as it is listed."""
    return {"id": name, "object": "model", "created": SINCE, "owned_by": "rbee-sd"}
