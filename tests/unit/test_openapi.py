"""The OpenAPI document: all routes and statuses are in it, it is valid, and it says what this worker accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema_rs
import pytest
from pydantic import Field

from rbee_sd.errors import RequestError
from rbee_sd.http.docs.document import described, document
from rbee_sd.http.docs.schemas import Schemas
from rbee_sd.http.door import Door
from rbee_sd.http.routes import ROUTES
from rbee_sd.jobs.job import State
from rbee_sd.messages import SCHEDULERS, Ready
from rbee_sd.operations.body import Request, validate
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.table import OPERATIONS
from rbee_sd.settings import Settings
from tests.documented import GENERAL, wrong
from tests.pictures import png, text

READY = Ready("demo", "sd", "cpu", "float32", 1, 128, 96, 10, 5.0, ("image_generation",), ("euler", "ddim"), 16)
SETTINGS = Settings(max_side=512, max_steps=30, max_count=2)
SCHEMAS = GENERAL["components"]["schemas"]
SOURCES = "\n".join(path.read_text() for path in (Path(__file__).parents[2] / "rbee_sd").rglob("*.py"))


def of(limits: Limits) -> dict[str, Any]:
    """The schemas in the document of a worker."""
    schemas: dict[str, Any] = document(ROUTES, limits, locked=False)["components"]["schemas"]
    return schemas


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from parts(each)


def test_every_method_of_every_route_says_what_it_takes_and_answers() -> None:
    for pattern, handler in ROUTES:
        assert set(handler.docs) | {"OPTIONS"} == set(handler.methods()) - {"HEAD"}, (pattern, handler)


def test_every_route_is_in_the_document_with_all_its_methods_and_no_other_is() -> None:
    paths = dict(GENERAL["paths"])
    for pattern, handler in ROUTES:
        (path,) = [path for path in paths if re.fullmatch(pattern, re.sub(r"\{n\}", "0", path))]
        assert {method.upper() for method in paths.pop(path)} | {"OPTIONS"} == set(handler.methods())
    assert not paths


def test_every_status_of_a_method_is_in_the_document() -> None:
    for each in described(ROUTES):
        written = GENERAL["paths"][each.path][each.method.lower()]
        assert {int(status) for status in written["responses"]} == {*each.doc.answers, *each.errors}


def test_every_error_code_is_in_the_document_where_its_status_is() -> None:
    raised = set(re.findall(r'RequestError\(\s*(\d{3}),\s*"(\w+)"', SOURCES))
    assert len(raised) > 15
    for status, code in raised:
        assert any(f"`{code}`" in handler.meanings.get(int(status), "") for _, handler in ROUTES), (status, code)


def test_the_document_is_openapi_3_1() -> None:
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(GENERAL)] == []


def test_every_schema_is_json_schema_and_every_reference_leads_somewhere() -> None:
    for schema in SCHEMAS.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    for part in parts(GENERAL):
        if "$ref" in part:
            target: Any = GENERAL
            for name in part["$ref"].removeprefix("#/").split("/"):
                target = target[name]


def test_no_name_is_given_twice() -> None:
    names = [part["operationId"] for part in parts(GENERAL["paths"]) if "operationId" in part]
    assert len(names) == len(set(names)) > 10
    # Of two models with one name, pydantic would name the modules too.
    assert [name for name in SCHEMAS if not name.isalnum()] == []


def test_a_job_is_one_of_all_the_operations_there_are() -> None:
    (content,) = GENERAL["paths"]["/v1/jobs"]["post"]["requestBody"]["content"].values()
    mapping = content["schema"]["discriminator"]["mapping"]
    assert set(mapping) == set(OPERATIONS)
    assert [part["$ref"] for part in content["schema"]["oneOf"]] == list(mapping.values())


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(GENERAL)) == GENERAL


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_example_of_an_operation_is_accepted(name: str) -> None:
    model = OPERATIONS[name].request
    limits = Limits(Settings(), ("demo",), lambda: None)
    (example,) = SCHEMAS[model.__name__]["examples"]
    assert wrong(model.__name__, example) == []
    validate(model, example, limits)


def test_everything_that_can_be_sent_has_an_example() -> None:
    for part in parts(GENERAL["paths"]):
        for content in part.get("requestBody", {"content": {}})["content"].values():
            for schema in content["schema"].get("oneOf", [content["schema"]]):
                assert SCHEMAS[schema["$ref"].rpartition("/")[2]]["examples"], part["operationId"]


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if "examples" in schema])
def test_an_example_is_what_its_schema_says(name: str) -> None:
    for example in SCHEMAS[name]["examples"]:
        assert wrong(name, example) == []


class Lenient(Request):
    """A request of another dialect."""

    takes_null: ClassVar[bool] = True

    id: int
    name: str = Field("x", description="A name.")
    size: int | None = None


def test_where_null_counts_as_left_out_the_schema_takes_it() -> None:
    assert validate(Lenient, {"id": 1, "name": None, "size": None}, None).name == "x"
    with pytest.raises(RequestError, match="id"):
        validate(Lenient, {"id": None}, None)
    _, schemas = Schemas(None).of([Lenient])
    assert schemas["Lenient"]["properties"] == {
        "id": {"type": "integer"},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": "x", "description": "A name."},
        "size": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    }


def test_bounds_and_names_are_those_of_the_worker() -> None:
    schemas = of(Limits(SETTINGS, ("demo",), lambda: READY, ("watercolour",)))
    fields = schemas["ImageGeneration"]["properties"]
    assert (fields["width"]["maximum"], fields["height"]["multipleOf"]) == (512, 16)
    assert (fields["steps"]["maximum"], fields["count"]["maximum"]) == (30, 2)
    assert fields["scheduler"]["enum"] == ["euler", "ddim"]
    assert fields["model"]["enum"] == ["demo"]
    assert schemas["Lora"]["properties"]["name"]["enum"] == ["watercolour"]
    # This model makes images from a prompt only.
    assert "ImageTransform" not in schemas


def test_before_the_model_is_loaded_the_document_holds_what_is_accepted_then() -> None:
    schemas = of(Limits(SETTINGS, ("demo",), lambda: None))
    assert schemas["ImageInpaint"]["properties"]["scheduler"]["enum"] == list(SCHEDULERS)
    assert schemas["ImageInpaint"]["properties"]["loras"]["maxItems"] == 0


def test_the_document_for_no_worker_in_particular_names_nothing_of_one() -> None:
    assert "enum" not in SCHEMAS["ImageGeneration"]["properties"]["model"]
    assert "enum" not in SCHEMAS["Lora"]["properties"]["name"]
    assert "maximum" not in SCHEMAS["ImageGeneration"]["properties"]["steps"]


IMAGE = text(png())
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("image_generation", {"prompt": "x"}),
    ("image_generation", {"prompt": "x", "guidance_scale": 7, "loras": []}),
    ("image_transform", {"operation": "image_transform", "prompt": "x", "init_image": IMAGE}),
    ("image_inpaint", {"operation": "image_inpaint", "prompt": "x", "image": IMAGE, "mask_image": IMAGE}),
    ("status", {"operation": "status", "hive_id": "localhost"}),
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("image_generation", {}),
    ("image_generation", {"prompt": "x", "steps": None}),
    ("image_generation", {"prompt": "x", "steps": "20"}),
    ("image_generation", {"prompt": "a\0b"}),
    ("image_generation", {"prompt": "x", "colour": "red"}),
    ("image_generation", {"prompt": "x", "image": IMAGE}),
    ("image_transform", {"operation": "image_transform", "prompt": "x"}),
    ("image_transform", {"operation": "image_transform", "prompt": "x", "image": IMAGE, "input_image": IMAGE}),
    ("image_inpaint", {"operation": "image_inpaint", "prompt": "x", "image": IMAGE}),
    ("image_inpaint", {"operation": "image_inpaint", "prompt": "x", "image": "", "mask": "", "mask_image": ""}),
]


@pytest.mark.parametrize("name, fields", GOOD)
def test_what_is_accepted_is_what_the_schema_says(name: str, fields: dict[str, Any]) -> None:
    model = OPERATIONS[name].request
    validate(model, fields, Limits(Settings(), ("demo",), lambda: None))
    assert wrong(model.__name__, fields) == []


@pytest.mark.parametrize("name, fields", BAD)
def test_what_is_refused_is_not_what_the_schema_says(name: str, fields: dict[str, Any]) -> None:
    model = OPERATIONS[name].request
    with pytest.raises(RequestError):
        validate(model, fields, Limits(Settings(), ("demo",), lambda: None))
    assert wrong(model.__name__, fields)


def test_a_key_is_asked_for_where_the_door_does() -> None:
    open_to_all = {pattern for pattern, handler in ROUTES if handler.open_to_all}
    assert open_to_all == {"/", "/studio/([^/]+)", "/health", "/ready", "/docs"}
    open_to_all |= {"/studio/{file}"}
    locked = document(ROUTES, None, locked=True)
    for path, methods in locked["paths"].items():
        for written in methods.values():
            assert ("security" in written, "401" in written["responses"]) == ((path not in open_to_all,) * 2)
    assert set(locked["components"]["securitySchemes"]) == {"bearer", "basic", "header"}
    assert not any("security" in part or "securitySchemes" in part for part in parts(GENERAL))
    assert not Door(Settings()).locked
    assert Door(Settings(api_key="sesame")).locked


def test_the_states_of_a_job_are_those_there_are() -> None:
    assert set(SCHEMAS["State"]["enum"]) == set(State)
