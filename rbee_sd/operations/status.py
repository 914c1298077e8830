"""`status`: how the worker is. Answered in the front at once, as a job like any other."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from rbee_sd.jobs.job import Order
from rbee_sd.operations.body import OperationRequest
from rbee_sd.operations.limits import Limits


class Status(OperationRequest):
    """The fields of a `status`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operation": "status"}]})

    operation: Literal["status"]


def order_status(request: Status, limits: Limits) -> Order:
    """The order for a status job."""
    return Order(operation=request.operation, request=request.model_dump(exclude_unset=True))
