"""From the fields of a request to a validated operation, or to an error that names every wrong field.

Front process, IOLoop thread; does not block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.operations.json_object import shown

MAX_FIELDS = 1000
"""Naming wrong fields one by one ends here: each costs some microseconds of everybody's time."""


class Request(BaseModel):
    """Base of every operation's request: exact types, no unknown field, null only by leaving a field out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    aliases: ClassVar[dict[str, str]] = {}
    """Names that older clients use for fields, and the fields' own."""
    takes_null: ClassVar[bool] = False
    """Whether null is a way to leave a field out, as dialects have it."""

    def crossed(self, context: Any) -> list[FieldError]:
        """What is wrong with the fields taken together, once each by itself is right."""
        return []

    @classmethod
    def narrow(cls, fields: dict[str, Any], limits: Any) -> None:
        """Write what a worker's limits mean for the fields into `fields`, their JSON Schemas by name."""


OLDER: dict[str, JsonValue] = {"deprecated": True}


class OperationRequest(Request):
    """What every operation takes besides its own fields: what older clients send with each of them."""

    hive_id: Literal["localhost"] = Field(
        "localhost", description="Older clients send it: this box.", json_schema_extra=OLDER
    )
    worker_id: str = Field("", max_length=200, description="Older clients send it: ignored.", json_schema_extra=OLDER)


R = TypeVar("R", bound=Request)


def validate(model: type[R], fields: Mapping[str, Any], context: Any) -> R:
    """The request in `fields`. Raises 400 `invalid_request` that names every wrong field."""
    if len(fields) > MAX_FIELDS:
        text = f"{len(fields)} fields are more than any operation has"
        raise invalid([FieldError("request", "too_many_fields", text)])
    values: dict[str, Any] = {}
    sent: dict[str, str] = {}
    wrong = []
    for name, value in fields.items():
        if value is None and model.takes_null:
            continue
        field = model.aliases.get(name, name)
        if field in sent:
            text = f"the same as '{sent[field]}' under another name; send one of them"
            wrong.append(FieldError(shown(name), "sent_twice", text))
            continue
        sent[field] = name
        if value is None:
            wrong.append(FieldError(shown(name), "not_null", "null is not a value; leave the field out"))
        else:
            values[field] = value
    try:
        request = model.model_validate(values, context=context)
    except ValidationError as error:
        # Without its null, a required field is missing too; once is enough.
        nulls = {(field,) for field in sent.keys() - values}
        others = [_field_error(entry, sent) for entry in error.errors(include_url=False) if entry["loc"] not in nulls]
        raise invalid([*wrong, *others]) from error
    if wrong := wrong or request.crossed(context):
        raise invalid(wrong)
    return request


def invalid(errors: Sequence[FieldError]) -> RequestError:
    """The error for wrong fields."""
    named = "; ".join(f"{error.field}: {error.message}" for error in errors)
    return RequestError(400, "invalid_request", named, fields=errors)


def _field_error(entry: Mapping[str, Any], sent: Mapping[str, str]) -> FieldError:
    # A field is named as the client named it.
    first, *rest = entry["loc"] or ("request",)
    field = ".".join(map(str, (sent.get(first, first), *rest)))
    kind = entry["type"]
    message = {
        "missing": "this field is required",
        "extra_forbidden": "there is no such field",
    }.get(kind, entry["msg"].removeprefix("Value error, "))
    value = None if kind == "missing" or not entry["loc"] else shown(entry["input"])
    return FieldError(shown(field), kind, message, value)
