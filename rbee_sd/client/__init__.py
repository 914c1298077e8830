"""A client of the worker, for Python programs: `Client`, and `AsyncClient` for asyncio. They do the same.

Needs httpx2 and orjson, nothing else of what the worker needs. A lost connection, or a worker that is being started
again, is waited for: a stream goes on behind the last event that came, and what was submitted is submitted once.
"""

from rbee_sd.client.asynchronous import AsyncClient
from rbee_sd.client.errors import (
    ApiError,
    ClientError,
    FieldError,
    JobCancelledError,
    JobError,
    JobFailedError,
    NoAnswerError,
)
from rbee_sd.client.events import (
    Cancelled,
    Complete,
    Event,
    Failed,
    Narration,
    Preview,
    Progress,
    Queued,
    Started,
)
from rbee_sd.client.results import Image, Result, Submitted
from rbee_sd.client.synchronous import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "Cancelled",
    "Client",
    "ClientError",
    "Complete",
    "Event",
    "Failed",
    "FieldError",
    "Image",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "Narration",
    "NoAnswerError",
    "Preview",
    "Progress",
    "Queued",
    "Result",
    "Started",
    "Submitted",
]
