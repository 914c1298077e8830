"""Handlers whose POST takes a body: of one media type, bounded by `max_body`, refused before it is read.

Front process, IOLoop thread.
"""

from __future__ import annotations

import re

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.description import Parameter
from rbee_sd.operations.body import invalid

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
IDEMPOTENCY = Parameter(
    "Idempotency-Key",
    "However often it is sent with the same body, it makes one job.",
    {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
    "header",
)


class BodyHandler(BaseHandler):
    """Takes JSON in UTF-8, as it is. The body is in `self.body` when `post` is called."""

    def admit(self) -> None:
        """Refuse what is of another kind before reading it."""
        if self.request.method == "POST":
            self.max_body = self.context.settings.max_body
        super().admit()
        if self.request.method == "POST":
            self.check_type()

    def check_type(self) -> None:
        """Raise 415 for a body that is not of the kind that is taken here."""
        media_type, charset = self.media_type()
        if media_type != "application/json" or charset not in ("", "charset=utf-8"):
            raise RequestError(415, "not_json", "send application/json in UTF-8")
        self.check_encoding()

    def check_encoding(self) -> None:
        """Raise 415 for a compressed body."""
        if self.request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RequestError(415, "encoded_body", "send the body without a Content-Encoding")

    def media_type(self) -> tuple[str, str]:
        """The Content-Type in lower case, and its parameters without quotes."""
        media_type, _, parameters = self.request.headers.get("Content-Type", "").partition(";")
        return media_type.strip().lower(), parameters.strip().lower().replace('"', "")

    def idempotency_key(self) -> str | None:
        """What the client marks repeats of this request with, if it does. Raises 400."""
        key = self.request.headers.get("Idempotency-Key")
        if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
            raise invalid([FieldError("Idempotency-Key", "pattern", "up to 255 visible ASCII characters")])
        # Each named API key has Idempotency-Keys of its own.
        return f"{self.key} {key}" if key is not None and self.key else key
