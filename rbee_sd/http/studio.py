"""The studio: the page at `/`, and the modules and the stylesheet that it consists of. Front process, IOLoop thread.

The files are read once, with the module's first use, and answered from memory: 120,000 bytes at most. A browser asks
each time whether its copy is still the right one (ETag), so that the page is never of two versions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from rbee_sd.errors import RequestError
from rbee_sd.http.base import BaseHandler
from rbee_sd.http.docs.description import IF_NONE_MATCH, Answer, Doc, Docs, Parameter

FOLDER = Path(__file__).parents[1] / "studio"
PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""Nothing inline, nothing from elsewhere, nothing around it; and no text ever becomes markup."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    kind: str
    body: bytes
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """The files of the page by their names. Blocks for a moment, the first time."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES:
            body = path.read_bytes()
            found[path.name] = Asset(TYPES[path.suffix], body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found


class AssetHandler(BaseHandler):
    """`/studio/{file}`: a module, the stylesheet, the icon."""

    tag = "Studio"
    path_parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("file", "Its name.", {"type": "string"}, "path", "main.js"),
    )
    docs: ClassVar[Docs] = {
        "GET": Doc(
            "A file of the page",
            {
                200: Answer("The file.", {kind.partition(";")[0]: None for kind in TYPES.values()}, ("ETag",)),
                304: Answer("The client has it.", headers=("ETag",)),
            },
            errors=(404,),
            parameters=(IF_NONE_MATCH,),
        )
    }
    open_to_all = True
    """It holds no secret; what it shows it asks for with a key."""

    def get(self, name: str = PAGE) -> None:
        """The file; 304 when the browser has it."""
        asset = assets().get(name)
        if asset is None:
            raise RequestError(404, "not_found", "there is nothing at this path")
        self.set_header("Content-Type", asset.kind)
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Etag", asset.etag)
        if self.check_etag_header():
            self.set_status(304)
            return
        self.finish(asset.body)

    head = get


class StudioHandler(AssetHandler):
    """`/`: the page."""

    path_parameters = ()
    docs: ClassVar[Docs] = {
        "GET": Doc(
            "The studio, a page for people",
            {
                200: Answer("The page.", {"text/html": None}, ("ETag",)),
                304: Answer("The client has it.", headers=("ETag",)),
            },
            parameters=(IF_NONE_MATCH,),
        )
    }
    cross_site_links = True
    """The policy keeps the page out of frames, and by itself it does nothing."""
