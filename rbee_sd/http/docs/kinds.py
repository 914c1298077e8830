"""JSON Schema in words for people: `whole number, 1 to 150`. Pure functions; front process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLACE = "#/components/schemas/"
WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "object",
    "array": "list",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a line. `link` is the name of a model, if it is one's."""

    text: str
    link: str = ""


def kind_of(schema: Mapping[str, Any]) -> list[Piece]:
    """What a value of a schema is."""
    return list(_pieces(schema))


def listed(values: Sequence[Any]) -> str:
    """Values as they are sent: `euler, ddim or lms`."""
    words = ["empty" if value == "" else value if isinstance(value, str) else json.dumps(value) for value in values]
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part) or "none"


def _pieces(schema: Mapping[str, Any]) -> Iterator[Piece]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(PLACE)
        yield Piece(name, name)
    elif "const" in schema or "enum" in schema:
        yield Piece(listed(schema.get("enum", [schema.get("const")])))
    elif parts := schema.get("anyOf", schema.get("oneOf")):
        for number, part in enumerate(parts):
            if number:
                yield Piece(" or ")
            yield from _pieces(part)
    else:
        yield Piece(WORDS.get(schema.get("type", ""), "anything"))
        if schema.get("type") == "array" and schema.get("items"):
            yield Piece(" of ")
            yield from _pieces(schema["items"])
        yield Piece(_bounds(schema))


def _bounds(schema: Mapping[str, Any]) -> str:
    text = _range(schema.get("minimum"), schema.get("maximum"), "")
    if "exclusiveMinimum" in schema:
        text = f", more than {schema['exclusiveMinimum']:,}" + _range(None, schema.get("maximum"), "")
    text += _range(schema.get("minLength"), schema.get("maxLength"), " characters")
    text += _range(schema.get("minItems"), schema.get("maxItems"), "")
    if "multipleOf" in schema:
        text += f", a multiple of {schema['multipleOf']:,}"
    return text


def _range(least: float | None, most: float | None, unit: str) -> str:
    if least is not None and most is not None:
        return f", {_number(least)} to {_number(most)}{unit}"
    if most is not None:
        return f", up to {_number(most)}{unit}"
    return f", at least {_number(least)}{unit}" if least is not None else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,}"
