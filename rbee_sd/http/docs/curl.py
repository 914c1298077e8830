"""An operation of the OpenAPI document as a command that can be copied. Pure functions; front process."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from rbee_sd.http.docs.description import JSON, STREAM

FORM = "multipart/form-data"


def curl_of(
    url: str,
    method: str,
    path: str,
    parameters: Sequence[Mapping[str, Any]],
    *,
    key: bool,
    answers: Sequence[str],
    media_type: str = "",
    body: Mapping[str, Any] | None = None,
) -> str:
    """The command. `answers` are the media types of what comes back, `body` is an example of what is sent.

    In a form, a value that begins with @ is a file. `key`: a key is asked for.
    """
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"]), safe=""))
    words = ["curl", "-sN" if STREAM in answers else "-s"]
    if method != ("GET" if body is None else "POST"):
        words += ["-X", method]
    command = shlex.join([*words, url + path])
    if key:
        command += ' -H "Authorization: Bearer $KEY"'
    if media_type == FORM:
        command += "".join(f" \\\n  -F {shlex.quote(f'{name}={value}')}" for name, value in (body or {}).items())
    elif body is not None:
        command += f" \\\n  -H 'Content-Type: {media_type}' \\\n  -d {shlex.quote(orjson.dumps(body).decode())}"
    if any(media.startswith("image/") and media != "image/svg+xml" for media in answers) and JSON not in answers:
        command += " -o image.png"
    return command
