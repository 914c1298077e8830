"""The operation table, and the one way in: the fields of a request to an accepted job.

Front process, IOLoop thread; nothing here blocks. A new operation is one file and one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.jobs.job import Job, Order
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.operations.body import Request, invalid, validate
from rbee_sd.operations.generation import ImageGeneration
from rbee_sd.operations.image import ImageRequest, order_image
from rbee_sd.operations.inpaint import ImageInpaint
from rbee_sd.operations.json_object import digest_of, parse_object
from rbee_sd.operations.limits import Limits
from rbee_sd.operations.models import (
    ModelDelete,
    ModelDownload,
    ModelGet,
    ModelListing,
    ModelLoad,
    ModelUnload,
    order_list,
    order_model,
)
from rbee_sd.operations.status import Status, order_status
from rbee_sd.operations.transform import ImageTransform


@dataclass(frozen=True, slots=True)
class Operation:
    """A request model, and what makes an order of it."""

    request: type[Request]
    order: Callable[[Any, Limits], Order]


OPERATIONS = {
    "image_generation": Operation(ImageGeneration, order_image),
    "image_transform": Operation(ImageTransform, order_image),
    "image_inpaint": Operation(ImageInpaint, order_image),
    "status": Operation(Status, order_status),
    "model_list": Operation(ModelListing, order_list),
    "model_get": Operation(ModelGet, order_model),
    "model_load": Operation(ModelLoad, order_model),
    "model_unload": Operation(ModelUnload, order_model),
    "model_delete": Operation(ModelDelete, order_model),
    "model_download": Operation(ModelDownload, order_model),
}
DEFAULT = "image_generation"
"""What a request without `operation` but with `prompt` means."""


def offered(limits: Limits) -> dict[str, Operation]:
    """The operations that this worker does: of those that make images, what the loaded model can."""
    images = limits.operations
    return {
        name: operation
        for name, operation in OPERATIONS.items()
        if name in images or not issubclass(operation.request, ImageRequest)
    }


def models_of(limits: Limits | None) -> dict[str, type[Request]]:
    """The request models by operation: those that a worker takes now, or all."""
    operations = OPERATIONS if limits is None else offered(limits)
    return {name: operation.request for name, operation in operations.items()}


class Desk:
    """Takes requests in."""

    def __init__(self, registry: JobRegistry, limits: Limits) -> None:
        self._registry = registry
        self._limits = limits

    async def submit(self, body: bytes, key: str | None = None, owner: str = "") -> Job:
        """Accept the operation in the bytes of a JSON `body`; see `accept`."""
        return await self.accept(parse_object(body), key, owner)

    async def accept(self, fields: dict[str, Any], key: str | None = None, owner: str = "", call: str = "") -> Job:
        """Accept the operation in `fields` for `owner`, once for each Idempotency-Key; returns when it is on disk.

        The fields are those of our own API, whatever dialect they came in; an image may be the bytes of its file.
        `call` is what the request is known by if it waits for the job; see `Order`.
        Raises `RequestError`.
        """
        digest = b"" if key is None else digest_of(fields)
        if key is not None and (before := await self._registry.repeated(key, digest)) is not None:
            await self._registry.stored(before)
            return before
        operation = _look_up(fields, offered(self._limits.of(fields.get("model"))))
        request = validate(operation.request, fields, self._limits)
        order = replace(operation.order(request, self._limits), owner=owner, call=call)
        job = self._registry.accept(order, key, digest)
        await self._registry.stored(job)
        return job


def _look_up(fields: dict[str, Any], operations: dict[str, Operation]) -> Operation:
    if "job_id" in fields:
        raise invalid([FieldError("job_id", "server_made", "the server makes the id; leave the field out")])
    name = fields.get("operation", DEFAULT if "prompt" in fields else None)
    known = ", ".join(operations)
    if name is None:
        raise invalid([FieldError("operation", "missing", f"say which operation: {known}")])
    if not isinstance(name, str) or name not in operations:
        text = f"this worker does not do that operation; it does {known}"
        wrong = FieldError("operation", "unsupported", text, str(name)[:100])
        raise RequestError(400, "unsupported_operation", text, fields=[wrong])
    return operations[name]
