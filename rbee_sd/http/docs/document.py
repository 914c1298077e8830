"""The OpenAPI 3.1 document, made of the table of routes and of what its handlers say of themselves.

Pure functions; front process. The document is for one worker: bounds, names and operations are those it takes now. For
nobody in particular (`limits` is None) it has what holds for every worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaValue

from rbee_sd import __version__
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.description import JSON, STREAM, Answer, Doc, OneOf, Parameter, Shape
from rbee_sd.http.docs.schemas import Schemas
from rbee_sd.operations.limits import Limits

Routes = Sequence[tuple[str, type[BaseHandler]]]

ABOUT = """\
A Stable Diffusion worker. A job is submitted, answered at once with its id, and followed on its stream of
Server-Sent Events; when all its listeners have gone it is cancelled, unless it asks to be finished.

Every path answers a method that it does not have with 405 and `Allow`, and `OPTIONS` with 204; where there is no path
the answer is 404. `X-Request-ID` is taken from the request (up to 64 of `A-Z a-z 0-9 . _ -`) or made up.
"""
GROUP = re.compile(r"\([^)]*\)")
HEADERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "X-Request-ID": ("The request's id, which the worker's log has too.", {"type": "string"}),
    "Retry-After": ("Seconds after which another try may succeed.", {"type": "integer", "minimum": 0}),
    "ETag": ("For `If-None-Match`.", {"type": "string"}),
    "WWW-Authenticate": ("How to send a key.", {"type": "string"}),
}
WITH = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
"""Headers of errors."""
OLDER = "/v1/inference"
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The worker's API key."},
    "basic": {"type": "http", "scheme": "basic", "description": "The same key as the password, under any name."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


@dataclass(frozen=True, slots=True)
class Described:
    """One method of one route. `path` is written as OpenAPI has it, `/v1/jobs/{job_id}`."""

    path: str
    method: str
    handler: type[BaseHandler]
    doc: Doc

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All of them, in the order of the path first."""
        named = [each for each in self.handler.path_parameters if f"{{{each.name}}}" in self.path]
        return *named, *self.doc.parameters

    @property
    def errors(self) -> list[int]:
        """Every status with an error, those included that follow from what the route is."""
        statuses = {*self.doc.errors, 403, 413}
        if not self.handler.open_to_all:
            statuses |= {401, 429}
        if self.doc.body or any(each.place != "header" for each in self.parameters):
            statuses.add(self.handler.wrong_value)
        return sorted(statuses)


def described(routes: Routes) -> Iterator[Described]:
    """Every method of every route."""
    for pattern, handler in routes:
        path = _path(pattern, handler.path_parameters)
        for method, doc in handler.docs.items():
            yield Described(path, method, handler, doc)
        if "HEAD" in handler.methods():
            yield Described(path, "HEAD", handler, replace(handler.docs["GET"], answers=_headers_only(handler)))


def document(routes: Routes, limits: Limits | None, *, locked: bool) -> dict[str, Any]:
    """The document. `locked`: an API key is asked for."""
    methods = list(described(routes))
    references, schemas = Schemas(limits).of(_models(methods, limits))
    writer = _Writer(limits, references)
    paths: dict[str, dict[str, Any]] = {}
    errors: dict[str, dict[str, Any]] = {}
    for each in methods:
        paths.setdefault(each.path, {})[each.method.lower()] = writer.operation(each, locked)
        errors |= {_error_name(each.handler, status): writer.error(each.handler, status) for status in each.errors}
    components: dict[str, Any] = {
        "schemas": schemas,
        "responses": dict(sorted(errors.items())),
        "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()},
    }
    if locked:
        components["securitySchemes"] = KEYS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rbee-sd",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each.handler.tag for each in methods)],
        "paths": paths,
        "components": components,
    }


def _path(pattern: str, parameters: Iterable[Parameter]) -> str:
    """`/v1/jobs/([^/]+)` as `/v1/jobs/{job_id}`; parameters that the pattern has no place for are left over."""
    start, *parts = GROUP.split(pattern.replace(r"\.", "."))
    return start + "".join(f"{{{each.name}}}{part}" for each, part in zip(parameters, parts, strict=False))


def _headers_only(handler: type[BaseHandler]) -> dict[int, Answer]:
    """What a HEAD is answered: as a GET is, without a body."""
    return {status: replace(answer, content={}) for status, answer in handler.docs["GET"].answers.items()}


def _models(methods: Iterable[Described], limits: Limits | None) -> Iterator[type[BaseModel]]:
    """The models of all bodies; some more than once."""
    for each in methods:
        yield each.handler.error_shape
        for content in (each.doc.body, *(answer.content for answer in each.doc.answers.values())):
            for shape in content.values():
                if isinstance(shape, OneOf):
                    yield from shape.models(limits).values()
                elif shape is not None:
                    yield shape


def _error_name(handler: type[BaseHandler], status: int) -> str:
    return f"{handler.error_shape.__name__}{status}"


def _parameter(parameter: Parameter) -> dict[str, Any]:
    written: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.place == "path":
        written["required"] = True
    if parameter.example is not None:
        written["example"] = parameter.example
    return written


def _event(data: JsonSchemaValue) -> dict[str, Any]:
    """One event of a stream, as an object of its fields, which is how tools for OpenAPI read a stream."""
    text = {"type": "string"}
    told = {
        "properties": {"id": text, "event": text, "data": {**text, "contentMediaType": JSON, "contentSchema": data}},
        "required": ["event", "data"],
    }
    done = {"properties": {"event": {"const": "message"}, "data": {"const": "[DONE]"}}, "required": ["data"]}
    return {"description": "One event; its data is JSON.", "type": "object", "anyOf": [told, done]}


class _Writer:
    """Writes operations and errors. `references` leads from models to their schemas."""

    def __init__(self, limits: Limits | None, references: Mapping[type[BaseModel], JsonSchemaValue]) -> None:
        self._limits = limits
        self._references = references

    def operation(self, each: Described, locked: bool) -> dict[str, Any]:
        """One method of one path."""
        doc = each.doc
        responses = {
            status: {"$ref": f"#/components/responses/{_error_name(each.handler, status)}"} for status in each.errors
        }
        responses |= {status: self._answer(answer) for status, answer in doc.answers.items()}
        written: dict[str, Any] = {
            "operationId": "_".join([each.method.lower(), *re.findall(r"\w+", each.path)]),
            "tags": [each.handler.tag],
            "summary": doc.summary,
            "responses": {str(status): responses[status] for status in sorted(responses)},
        }
        if each.path.startswith(OLDER):
            written["deprecated"] = True
        if each.parameters:
            written["parameters"] = [_parameter(parameter) for parameter in each.parameters]
        if doc.body:
            written["requestBody"] = {"required": True, "content": self._content(doc.body)}
        if locked and not each.handler.open_to_all:
            written["security"] = [{name: []} for name in KEYS]
        return written

    def error(self, handler: type[BaseHandler], status: int) -> dict[str, Any]:
        """One status of the errors that a handler answers."""
        content = {JSON: handler.error_shape}
        return self._answer(Answer(handler.meanings[status], content, headers=WITH.get(status, ())))

    def _answer(self, answer: Answer) -> dict[str, Any]:
        names = ("X-Request-ID", *answer.headers)
        written: dict[str, Any] = {
            "description": answer.description,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        }
        if answer.content:
            written["content"] = self._content(answer.content)
        return written

    def _content(self, content: Mapping[str, Shape]) -> dict[str, Any]:
        return {media_type: self._media(media_type, shape) for media_type, shape in content.items()}

    def _media(self, media_type: str, shape: Shape) -> dict[str, Any]:
        if shape is None:
            return {"schema": {"type": "string"}} if media_type.startswith("text/") else {}
        schema = self._one_of(shape) if isinstance(shape, OneOf) else self._references[shape]
        return {"schema": _event(schema) if media_type == STREAM else schema}

    def _one_of(self, shape: OneOf) -> dict[str, Any]:
        references = {value: self._references[model] for value, model in shape.models(self._limits).items()}
        mapping = {value: reference["$ref"] for value, reference in references.items()}
        return {
            "oneOf": list(references.values()),
            "discriminator": {"propertyName": shape.field, "mapping": mapping},
        }
