"""`model_list`, `model_get`, `model_download`, `model_delete`, `model_load`, `model_unload`. Front process.

Here is what may be asked for; `models.errands` does it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from rbee_sd.jobs.job import Order
from rbee_sd.models.catalogue import REPO
from rbee_sd.operations.body import OperationRequest
from rbee_sd.operations.image import limits_of, one_of
from rbee_sd.operations.limits import Limits


class ModelListing(OperationRequest):
    """The fields of a `model_list`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "model_list"}]})

    operation: Literal["model_list"]


class ModelRequest(OperationRequest):
    """What the operations on one model that is present take."""

    operation: str
    model: str = Field(description="One of the names in /v1/capabilities.")
    on_disconnect: Literal["cancel", "finish"] = Field("cancel", description="When the last listener has gone.")

    @field_validator("model")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return one_of(value, limits_of(info.context).models, "model")

    @classmethod
    def narrow(cls, fields: dict[str, Any], limits: Limits) -> None:
        """See `Request`."""
        fields["model"]["enum"] = list(limits.models)


class ModelGet(ModelRequest):
    """The fields of a `model_get`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "model_get", "model": "demo"}]})

    operation: Literal["model_get"]


class ModelLoad(ModelRequest):
    """The fields of a `model_load`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "model_load", "model": "demo"}]})

    operation: Literal["model_load"]


class ModelUnload(ModelRequest):
    """The fields of a `model_unload`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "model_unload", "model": "demo"}]})

    operation: Literal["model_unload"]


class ModelDelete(ModelRequest):
    """The fields of a `model_delete`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "model_delete", "model": "demo"}]})

    operation: Literal["model_delete"]


class ModelDownload(OperationRequest):
    """The fields of a `model_download`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"operation": "model_download", "model": "stabilityai/sd-turbo"}]}
    )

    operation: Literal["model_download"]
    model: str = Field(description="A model on the hub, as owner/name.")
    on_disconnect: Literal["cancel", "finish"] = Field("cancel", description="When the last listener has gone.")

    @field_validator("model")
    @classmethod
    def _on_the_hub(cls, value: str) -> str:
        if REPO.fullmatch(value) is None:
            raise ValueError("name a model on the hub as owner/name")
        return value


def order_list(request: ModelListing, limits: Limits) -> Order:
    """The order for a list of the models."""
    return Order(operation=request.operation, request=request.model_dump(exclude_unset=True))


def order_model(request: ModelRequest | ModelDownload, limits: Limits) -> Order:
    """The order for what is done with one model."""
    return Order(
        operation=request.operation,
        request=request.model_dump(exclude_unset=True),
        on_disconnect=request.on_disconnect,
    )
