"""The OpenAPI document as a page for people: HTML without scripts and without anything from elsewhere.

Front process, IOLoop thread. The templates beside this file are read with the first page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tornado.escape import xhtml_escape
from tornado.template import Loader, Template

from rbee_sd.http.docs.outline import Outline

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "page.css").read_text(encoding="utf-8")
CODE = re.compile("`([^`]+)`")
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own stylesheet and nothing else."""


@cache
def template() -> Template:
    """The page's template; compiling it takes longer than a worker has to start."""
    return Loader(str(FOLDER)).load("page.html")


def page(document: Mapping[str, Any], url: str) -> bytes:
    """The page about a document of `openapi`, with commands for the worker at `url`."""
    outline = Outline(document, url)
    operations = list(outline.operations())
    sent = {body.model.name for operation in operations for body in operation.bodies}
    html: bytes = template().generate(
        style=STYLE,
        info=document["info"],
        locked="securitySchemes" in document["components"],
        tags={tag["name"]: [each for each in operations if each.tag == tag["name"]] for tag in document["tags"]},
        errors=outline.errors(),
        prose=prose,
        models=[outline.model(name) for name in document["components"]["schemas"] if name not in sent],
    )
    return html


def prose(text: str) -> str:
    """Text as HTML. What is between backticks is code."""
    return CODE.sub(r"<code>\1</code>", xhtml_escape(text))
