"""From the bytes of a request to one JSON object, strictly: what could be read in two ways is refused.

Front process, IOLoop thread. Parses in place, so everybody waits for it: the size of a body is bounded before it comes
here, and the number of its values is before they are made. A body of 32 MiB, most of it images, takes some 100 ms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from rbee_sd.errors import RequestError

MAX_MARKS = 100_000
"""Commas, brackets, braces and quotes of a body: no value comes without one. Those in long strings do not count."""
MARKS = b',[{"'
LONG = 64
"""Bytes of a string above which its outline is a stand-in. No name of a field is as long."""
SHOWN = 100
"""Characters of a wrong value that are shown back."""
LEVELS = 3
"""Lists and objects within each other that are shown of one."""


class _DuplicateKeyError(ValueError):
    """Raised for a JSON object that has one key twice."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body` (UTF-8, no BOM, no NaN, no duplicate key). Raises 400 `invalid_json`."""
    outline = _outline(body)
    if len(outline) - len(outline.translate(None, MARKS)) > MAX_MARKS:
        raise _too_many()
    try:
        value = orjson.loads(body)
        # orjson keeps the last of two equal keys without a word; what was meant cannot be known.
        json.loads(outline, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        raise _invalid_json(str(error)) from error
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, orjson.JSONDecodeError) else "a number or nesting out of range"
        raise _invalid_json(f"the body is not valid JSON: {reason[:SHOWN]}") from error
    if not isinstance(value, dict):
        raise _invalid_json("the body must be one JSON object")
    return value


def digest_of(fields: Mapping[str, Any]) -> bytes:
    """A hash that is equal for equal objects, however they were written. Raises 400 `invalid_json`."""
    try:
        return hashlib.sha256(orjson.dumps(fields, default=_digest, option=orjson.OPT_SORT_KEYS)).digest()
    except TypeError as error:
        raise _invalid_json("the body is nested too deeply") from error


def shown(value: Any) -> Any:
    """A wrong value as it is shown back: shortened."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = value if isinstance(value, str) else orjson.dumps(_start_of(value, LEVELS)).decode()
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _digest(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def _start_of(value: Any, levels: int) -> Any:
    """As much of a list or an object as is going to be shown: the rest may be megabytes, or nested for ever."""
    if isinstance(value, str):
        return value[:SHOWN]
    if not isinstance(value, list | dict):
        return value
    if levels == 0:
        return "…"
    first = islice(value, SHOWN)
    if isinstance(value, list):
        return [_start_of(entry, levels - 1) for entry in first]
    return {name[:SHOWN]: _start_of(value[name], levels - 1) for name in first}


def _outline(body: bytes) -> bytes:
    """JSON with a short stand-in for each long string; equal ones for equal strings. Raises 400 `invalid_json`.

    Images are megabytes, which neither counting values nor finding names that appear twice has to look at. Of what
    is no JSON the outline is right up to the first error, which is where parsing ends as well.
    """
    parts = body.split(b'"', MAX_MARKS + 1)
    if len(parts) > MAX_MARKS + 1:
        raise _too_many()
    inside = False
    for number, part in enumerate(parts):
        # A backslash escapes the quote behind it, unless it is escaped itself: then the string goes on.
        escaped = inside and (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
        if inside and len(part) > LONG:
            stand_in = b"%d bytes, %x" % (len(part), hash(part[:4096]) & 0xFFFF_FFFF)
            parts[number] = stand_in + b"\\" * escaped
        if not escaped:
            inside = not inside
    return b'"'.join(parts)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _DuplicateKeyError(f"the key '{shown(name)}' appears twice in one object")
        found[name] = value
    return found


def _too_many() -> RequestError:
    return _invalid_json("the body holds more values than any request has")


def _invalid_json(message: str) -> RequestError:
    return RequestError(400, "invalid_json", message)
