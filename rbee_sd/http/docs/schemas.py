"""JSON Schemas of the models of requests and answers. Pure functions; front process.

pydantic makes them; here is added what it cannot know of an operation's request: that null is refused, the older names
of fields, and what this worker's limits mean for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rbee_sd.operations.body import Request
from rbee_sd.operations.limits import Limits

PLACE = "#/components/schemas/"
NULL = {"type": "null"}


class Schemas(GenerateJsonSchema):
    """Makes the schemas of any number of models, once. `limits` are a worker's, or None for any worker's."""

    def __init__(self, limits: Limits | None) -> None:
        super().__init__(ref_template=PLACE + "{model}")
        self._limits = limits

    def of(self, models: Iterable[type[BaseModel]]) -> tuple[dict[type[BaseModel], JsonSchemaValue], dict[str, Any]]:
        """A reference for each model, and what they refer to, by name."""
        models = list(models)
        for model in models:
            model.model_rebuild()
        wanted = [(model, "validation", model.__pydantic_core_schema__) for model in models]
        references, definitions = self.generate_definitions(wanted)  # type: ignore[arg-type]
        named: dict[str, Any] = {str(name): schema for name, schema in definitions.items()}
        return {model: reference for (model, _), reference in references.items()}, named

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Called by pydantic for each model."""
        made = super().model_schema(schema)
        model = schema["cls"]
        if issubclass(model, Request):
            required = made.get("required", ())
            made["properties"] = {
                name: _or_null(field) if model.takes_null and name not in required else _without_null(field)
                for name, field in made["properties"].items()
            }
            if self._limits is not None:
                model.narrow(made["properties"], self._limits)
            _add_older_names(made, model.aliases)
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Called by pydantic. A field has its name; a title made of that would say nothing more."""
        return False

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        """Called by pydantic. What was written in an order is read in it."""
        return value


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """An optional field where null is a way to leave it out."""
    if NULL in field.get("anyOf", ()):
        return field
    told = {name: value for name, value in field.items() if name in ("default", "description")}
    kind = {name: value for name, value in field.items() if name not in told}
    return {"anyOf": [kind, NULL], **told}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """An optional field may be left out, which is what its null says to pydantic; sent it may not be null."""
    field = {name: value for name, value in field.items() if (name, value) != ("default", None)}
    kinds = [kind for kind in field.get("anyOf", ()) if kind != NULL]
    if len(kinds) == 1:
        del field["anyOf"]
        field |= kinds[0]
    return field


def _add_older_names(made: dict[str, Any], aliases: Mapping[str, str]) -> None:
    """Under whichever name a field is sent, it is sent once."""
    for older, name in aliases.items():
        made["properties"][older] = {
            **made["properties"][name],
            "description": f"An older name of `{name}`.",
            "deprecated": True,
        }
    for name in sorted(set(aliases.values())):
        names = [name, *(older for older, now in aliases.items() if now == name)]
        sent: dict[str, Any] = {"oneOf": [{"required": [each]} for each in names]}
        if name in made.get("required", ()):
            made["required"].remove(name)
        else:
            sent["oneOf"].append({"not": {"anyOf": list(sent["oneOf"])}})
        made.setdefault("allOf", []).append(sent)
