"""The text in which AUTOMATIC1111's web UI, Forge and stable-diffusion.cpp write how a picture was made, taken apart.

Pure. The prompt, then `Negative prompt: …`, both of any number of lines, then one line of settings with `Steps` among
them: `Steps: 20, Sampler: Euler a, …`. A value with a comma or colon in it is written as JSON. Prompts can look like
settings; the line of settings is the last one that does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import orjson

NEGATIVE = "Negative prompt:"
NAME = re.compile(r"\s*(\w[\w /-]{0,60}):\s*")
"""Bounded: a long text without a colon would be searched again from each of its letters."""
STRING = re.compile(r'"(?:\\.|[^\\"])*"')
MAX_LINE = 65_536
"""Characters of the line of settings."""
MAX_LIKELY = 20
"""Lines that are tried, from the last one."""
MAX_SETTINGS = 200
MAX_PARTS = 1000
"""Parts between commas of that line."""
MAX_JSON = 4096
"""Characters of a value that is written as an object or list."""
MAX_TRIES = 20
"""Such values of a line: what looks like one, and is none, has to be read as far as it looks so."""
FEWEST = 3
"""Settings that make a line one of settings and not a sentence with a colon."""
NEEDED = "Steps"


@dataclass(frozen=True, slots=True)
class Infotext:
    """The parts of the text. `settings` are words, as they stand there but for quotes; the first of each name."""

    prompt: str = ""
    negative_prompt: str = ""
    settings: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Infotext:
    """Take it apart. Of a text without settings, all is the prompt."""
    lines = text.replace("\r\n", "\n").split("\n")
    settings: dict[str, str] = {}
    likely = [number for number, line in enumerate(lines) if f"{NEEDED}:" in line and len(line) <= MAX_LINE]
    for number in reversed(likely[-MAX_LIKELY:]):
        settings = _settings(lines[number])
        if settings:
            lines = lines[:number]
            break
    start = next((number for number, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip().removeprefix(NEGATIVE)
    return Infotext("\n".join(lines[:start]).strip(), negative.strip(), settings)


def _settings(line: str) -> dict[str, str]:
    """The settings on a line; none if it is not that line."""
    found: dict[str, str] = {}
    place = tries = 0
    for _ in range(MAX_PARTS):
        if place >= len(line) or len(found) >= MAX_SETTINGS:
            break
        name = NAME.match(line, place)
        start = name.end() if name else place
        nested = line[start : start + 1] in ("{", "[") and tries < MAX_TRIES
        tries += nested
        value, place = _value(line, start, nested=nested)
        if name:
            found.setdefault(name[1].strip(), value)
    return found if NEEDED in found and len(found) >= FEWEST else {}


def _value(line: str, place: int, *, nested: bool) -> tuple[str, int]:
    """The value that begins there, and where the next setting does. `nested`: it may be an object or a list."""
    if string := STRING.match(line, place):
        end = string.end()
        value = _unquoted(string[0])
    else:
        end = _end_of_json(line, place) if nested else place
        comma = line.find(",", end)
        end = comma if comma >= 0 else len(line)
        value = line[place:end].strip()
    comma = line.find(",", end)
    return value, comma + 1 if comma >= 0 else len(line)


def _unquoted(quoted: str) -> str:
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        return quoted[1:-1]


def _end_of_json(line: str, place: int) -> int:
    """Where the object or list ends that is written as it is, as Civitai's are; where it begins if it is none."""
    try:
        return place + json.JSONDecoder().raw_decode(line[place : place + MAX_JSON])[1]
    except (ValueError, RecursionError):
        return place
