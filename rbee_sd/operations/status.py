"""`status`: how the worker is. Answered in the front at once, as a job like any other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rbee_sd.jobs.job import Order
from rbee_sd.operations.body import Request
from rbee_sd.operations.limits import Limits


class Status(Request):
    """The fields of a `status`."""

    operation: Literal["status"]
    hive_id: Literal["localhost"] = Field("localhost", description="Older clients send it: this box.")
    worker_id: str = Field("", max_length=200, description="Older clients send it: ignored.")


def order_status(request: Status, limits: Limits) -> Order:
    """The order for a status job."""
    return Order(operation=request.operation, request=request.model_dump(exclude_unset=True))
