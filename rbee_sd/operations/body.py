"""From the bytes of a request to a validated operation, or to an error that names every wrong field.

Front process; parses in place, so the size of a body is bounded before it comes here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rbee_sd.errors import FieldError, RequestError

MAX_FIELDS = 1000
"""Naming wrong fields one by one ends here: each costs some microseconds of everybody's time."""
SHOWN = 100
"""Characters of a wrong value that are shown back."""


class Request(BaseModel):
    """Base of every operation's request: exact types, no unknown field, null only by leaving a field out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class OperationRequest(Request):
    """What every operation takes besides its own fields: what older clients send with each of them."""

    hive_id: Literal["localhost"] = Field("localhost", description="Older clients send it: this box.")
    worker_id: str = Field("", max_length=200, description="Older clients send it: ignored.")


R = TypeVar("R", bound=Request)


class _DuplicateKeyError(ValueError):
    """Raised for a JSON object that has one key twice."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body` (UTF-8, no BOM, no NaN, no duplicate key). Raises 400 `invalid_json`."""
    try:
        value = orjson.loads(body)
        # orjson keeps the last of two equal keys without a word; what was meant cannot be known.
        json.loads(body, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        raise _invalid_json(str(error)) from error
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, orjson.JSONDecodeError) else "a number or nesting out of range"
        raise _invalid_json(f"the body is not valid JSON: {reason[:SHOWN]}") from error
    if not isinstance(value, dict):
        raise _invalid_json("the body must be one JSON object")
    return value


def digest_of(fields: Mapping[str, Any]) -> bytes:
    """A hash that is equal for equal objects, however they were written. Raises 400 `invalid_json`."""
    try:
        return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).digest()
    except TypeError as error:
        raise _invalid_json("the body is nested too deeply") from error


def validate(model: type[R], fields: Mapping[str, Any], context: Any) -> R:
    """The request in `fields`. Raises 400 `invalid_request` that names every wrong field."""
    if len(fields) > MAX_FIELDS:
        text = f"{len(fields)} fields are more than any operation has"
        raise invalid([FieldError("request", "too_many_fields", text)])
    nulls = {
        name: FieldError(_shown(name), "not_null", "null is not a value; leave the field out")
        for name in fields
        if fields[name] is None
    }
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        request = model.model_validate(present, context=context)
    except ValidationError as error:
        # Without its null, a required field is missing too; once is enough.
        named = {(name,) for name in nulls}
        others = [_field_error(entry) for entry in error.errors(include_url=False) if entry["loc"] not in named]
        raise invalid([*nulls.values(), *others]) from error
    if nulls:
        raise invalid([*nulls.values()])
    return request


def invalid(errors: Sequence[FieldError]) -> RequestError:
    """The error for wrong fields."""
    named = "; ".join(f"{error.field}: {error.message}" for error in errors)
    return RequestError(400, "invalid_request", named, fields=errors)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _DuplicateKeyError(f"the key '{_shown(name)}' appears twice in one object")
        found[name] = value
    return found


def _invalid_json(message: str) -> RequestError:
    return RequestError(400, "invalid_json", message)


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    field = ".".join(map(str, entry["loc"])) or "request"
    kind = entry["type"]
    message = {
        "missing": "this field is required",
        "extra_forbidden": "there is no such field",
    }.get(kind, entry["msg"].removeprefix("Value error, "))
    value = None if kind == "missing" or not entry["loc"] else _shown(entry["input"])
    return FieldError(_shown(field), kind, message, value)


def _shown(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else _json(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson reads deeper nesting than it writes.
        return repr(value)
