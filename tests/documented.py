"""The OpenAPI document as tests use it: which statuses it knows, and whether a value is what it says."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jsonschema_rs

from rbee_sd.http.docs.document import described, document
from rbee_sd.http.routes import ROUTES

GENERAL = document(ROUTES, None, locked=False)
"""For no worker in particular."""
PATTERNS = [(pattern, {each.method: each for each in described([(pattern, handler)])}) for pattern, handler in ROUTES]
DOOR = {401, 403, 413, 429}
"""What is answered before it is looked at what is asked for."""


def statuses(method: str, path: str) -> set[int]:
    """The statuses that a request may be answered with, by what the document says."""
    for pattern, calls in PATTERNS:
        if re.fullmatch(pattern, path):
            if method == "OPTIONS":
                return {204, *DOOR}
            if method not in calls:
                return {405, *DOOR}
            return {*calls[method].doc.answers, *calls[method].errors}
    # A method that HTTP does not have is refused wherever it is sent to.
    return {404, 405, *DOOR}


@cache
def validator(name: str) -> Any:
    """What tells whether a value is of the schema of this name."""
    reference = {"$ref": f"#/components/schemas/{name}", "components": GENERAL["components"]}
    return jsonschema_rs.Draft202012Validator(reference)


def wrong(name: str, value: Any) -> list[str]:
    """What about a value is not as the schema of this name says."""
    return [str(error) for error in validator(name).iter_errors(value)]
