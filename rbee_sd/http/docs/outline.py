"""An OpenAPI document as a page shows it: calls and models, with their fields in words. Pure; front process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rbee_sd.http.docs.curl import curl_of
from rbee_sd.http.docs.description import JSON, STREAM
from rbee_sd.http.docs.kinds import PLACE, Piece, kind_of, listed


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a model, a parameter, or an answer."""

    name: str
    kind: list[Piece]
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """What has fields; or something else with a name, which is of some `kind`."""

    name: str
    description: str
    fields: list[Field]
    kind: list[Piece]


@dataclass(frozen=True, slots=True)
class Body:
    """What can be sent, and a command that sends an example of it."""

    media_type: str
    model: Model
    curl: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `curl` is a command where there is no body."""

    id: str
    method: str
    path: str
    summary: str
    tag: str
    deprecated: bool
    parameters: list[Field]
    bodies: list[Body]
    answers: list[Field]
    errors: dict[str, str]
    """The names of errors, by status."""
    curl: str


class Outline:
    """Reads a document into what the template shows."""

    def __init__(self, document: Mapping[str, Any], url: str) -> None:
        self._paths = document["paths"]
        self._schemas = document["components"]["schemas"]
        self._responses = document["components"]["responses"]
        self._url = url

    def operations(self) -> Iterator[Operation]:
        """All of them but HEAD, which is as GET."""
        for path, methods in self._paths.items():
            for method, written in methods.items():
                if method != "head":
                    yield self._operation(path, method.upper(), written)

    def model(self, name: str) -> Model:
        """A model of the document."""
        schema = self._schemas[name]
        required = {*schema.get("required", ()), *_required_by_some_name(schema)}
        properties = sorted(
            schema.get("properties", {}).items(), key=lambda each: (each[0] not in required, "deprecated" in each[1])
        )
        fields = [_field(field, each, field in required) for field, each in properties]
        return Model(name, schema.get("description", ""), fields, [] if fields else kind_of(schema))

    def errors(self) -> list[Field]:
        """What operations refer to as their errors."""
        return [_answer(name, answer) for name, answer in self._responses.items()]

    def _operation(self, path: str, method: str, written: Mapping[str, Any]) -> Operation:
        parameters = written.get("parameters", [])
        answers = {status: answer for status, answer in written["responses"].items() if "$ref" not in answer}
        command = partial(
            curl_of,
            self._url,
            method,
            path,
            parameters,
            key="security" in written,
            answers=list(answers["200"].get("content", ())),
        )
        bodies = [
            Body(media_type, self.model(name), command(media_type=media_type, body=self._example(name)))
            for media_type, content in written.get("requestBody", {"content": {}})["content"].items()
            for name in _names(content["schema"])
        ]
        return Operation(
            id=written["operationId"],
            method=method,
            path=path,
            summary=written["summary"],
            tag=written["tags"][0],
            deprecated="deprecated" in written,
            parameters=[
                _field(each["name"], {**each["schema"], "description": each["description"]}, each["in"] == "path")
                for each in parameters
            ],
            bodies=bodies,
            answers=[_answer(status, answer) for status, answer in answers.items()],
            errors={
                status: answer["$ref"].rpartition("/")[2]
                for status, answer in written["responses"].items()
                if "$ref" in answer
            },
            curl="" if bodies else command(),
        )

    def _example(self, name: str) -> Mapping[str, Any]:
        example: Mapping[str, Any] = self._schemas[name]["examples"][0]
        return example


def _names(schema: Mapping[str, Any]) -> list[str]:
    """The models that a body may be one of."""
    return [part["$ref"].removeprefix(PLACE) for part in schema.get("oneOf", [schema])]


def _required_by_some_name(schema: Mapping[str, Any]) -> Iterator[str]:
    """Fields that are required under one of several names; the first of them is the one to use."""
    for each in schema.get("allOf", ()):
        if all("required" in name for name in each["oneOf"]):
            yield each["oneOf"][0]["required"][0]


def _field(name: str, schema: Mapping[str, Any], required: bool) -> Field:
    kind = kind_of(schema)
    if schema.get("default", "") not in ("", [], {}):
        kind.append(Piece(f"; {listed([schema['default']])} when left out"))
    return Field(name, kind, schema.get("description", ""), required)


def _answer(status: str, answer: Mapping[str, Any]) -> Field:
    kind: list[Piece] = []
    for media_type, content in answer.get("content", {}).items():
        kind.append(Piece(f"{media_type} "))
        schema = content.get("schema", {})
        if media_type == STREAM:
            schema = schema["anyOf"][0]["properties"]["data"]["contentSchema"]
        if media_type in (JSON, STREAM) and schema:
            kind += kind_of(schema)
    return Field(status, kind, answer["description"])
