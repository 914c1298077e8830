"""`multipart/form-data`: the body of a request with files, taken apart. Pure.

Tornado would do it before a handler is asked, for every route; so that is switched off (`http/routes`), and done here
where a form is wanted. What a part says of its file's type is not looked at.
"""

from __future__ import annotations

from email.message import Message
from typing import Any

from tornado.httputil import HTTPFile, HTTPInputError, ParseMultipartConfig, parse_multipart_form_data

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.operations.body import invalid
from rbee_sd.operations.json_object import shown

BOUNDS = ParseMultipartConfig(enabled=True, max_parts=64, max_part_header_size=4096)
FILES = ("image", "mask")
LIST = "[]"
"""Behind the name of a file that is one of several."""


def boundary_of(content_type: str) -> bytes:
    """What separates the parts. Raises 415 for what is no form."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary("")
    if header.get_content_type() != "multipart/form-data" or not 0 < len(boundary) <= 200 or not boundary.isascii():
        raise RequestError(415, "not_a_form", "send multipart/form-data with a boundary")
    return boundary.encode()


def fields_of(body: bytes, boundary: bytes) -> dict[str, Any]:
    """Texts and files by name; each once. Raises 400."""
    arguments: dict[str, list[bytes]] = {}
    files: dict[str, list[HTTPFile]] = {}
    try:
        parse_multipart_form_data(boundary, body, arguments, files, config=BOUNDS)
    except (HTTPInputError, ValueError) as error:
        raise RequestError(400, "invalid_form", "the body is not a form that can be read: check its parts") from error
    sent: dict[str, list[Any]] = {}
    for name, each in files.items():
        sent.setdefault(_named(name), []).extend(file.body for file in each)
    for name, values in arguments.items():
        # A file may come without a name, and is none then to the parser.
        sent.setdefault(_named(name), []).extend(
            value if _named(name) in FILES else _text(name, value) for value in values
        )
    wrong = [FieldError(shown(name), "sent_twice", _once(name)) for name, values in sent.items() if len(values) > 1]
    if wrong:
        raise invalid(wrong)
    return {name: value for name, (value,) in sent.items()}


def _named(name: str) -> str:
    return name.removesuffix(LIST) if name.removesuffix(LIST) in FILES else name


def _once(name: str) -> str:
    if name == "image":
        return "this worker changes one image at a time; send one"
    return "send it once"


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise invalid([FieldError(shown(name), "utf-8", "must be text in UTF-8")]) from error
