"""Hypothesis strategies for requests as bytes: each begins with one that is good and goes wrong in some way."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from hypothesis import strategies as st

from rbee_sd.http.docs.document import described
from rbee_sd.http.routes import ROUTES
from tests.http.wire import request
from tests.pictures import picture

FIELDS = (
    "operation",
    "prompt",
    "negative_prompt",
    "steps",
    "guidance_scale",
    "seed",
    "width",
    "height",
    "scheduler",
    "count",
    "model",
    "on_disconnect",
    "preview",
    "priority",
    "timeout",
    "exclusive",
    "loras",
    "image",
    "mask",
    "strength",
    "input_image",
    "mask_image",
    "job_id",
    "hive_id",
    "worker_id",
)
PATHS = tuple(sorted({re.sub(r"\{\w+\}", "{}", each.path) for each in described(ROUTES)}))
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "get", "X")
HEADERS = (
    "Host",
    "Origin",
    "Sec-Fetch-Site",
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Transfer-Encoding",
    "Idempotency-Key",
    "Last-Event-ID",
    "Authorization",
    "X-API-Key",
    "X-Request-ID",
    "X-Forwarded-For",
    "Expect",
    "Connection",
    "Upgrade",
    "Range",
    "If-None-Match",
    "Cookie",
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([-1, 0, 1, 7, 8, 64, 2**31, 2**63, 2**64, 1e400, -0.0]))
TEXT = st.text(st.characters(), max_size=60)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
GOOD: dict[str, Any] = {"prompt": "a red circle", "steps": 1, "width": 64, "height": 64, "seed": 5}
PICTURES = (picture("PNG"), picture("JPEG"), picture("WEBP"))
ENCODED = base64.b64encode(PICTURES[0]).decode()
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/images/generations": {"prompt": "a red circle", "size": "64x64", "n": 1, "extra": {}, "stream": True},
    "/sdapi/v1/txt2img": {"prompt": "a red circle", "steps": 1, "width": 64, "height": 64, "sampler_name": "Euler"},
    "/sdapi/v1/img2img": {"prompt": "a", "steps": 2, "init_images": [ENCODED], "mask": ENCODED, "mask_blur": 4},
    "/sdapi/v1/options": {"sd_model_checkpoint": "fake", "samples_format": "png"},
    "/sdapi/v1/png-info": {"image": ENCODED},
    "/sdapi/v1/interrupt": {},
}
FORM = b"".join(
    b'--edge\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
    for part in (
        (b"image", b'; filename="a.png"', PICTURES[0]),
        (b"mask", b'; filename="b.png"', PICTURES[0]),
        (b"prompt", b"", b"a red circle"),
        (b"n", b"", b"1"),
        (b"steps", b"", b"2"),
    )
)
FORM += b"--edge--\r\n"
TYPES = ("application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data", "")
QUERIES = ("limit=-1", "state=x", "before=job_1", "images=", "limit=1&limit=2")
CHUNKED = request(
    "POST", "/v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"3\r\n{}\n\r\n0\r\n\r\n"
)


def requests() -> st.SearchStrategy[bytes]:
    """Whole requests."""
    return st.one_of(
        _bodies(), _raw_bodies(), _images(), _headers(), _paths(), _framings(), _dialects(), _picture_infos(), _forms()
    )


def _submission(body: bytes, *headers: str) -> bytes:
    return request("POST", "/v1/jobs", "Content-Type: application/json", "Connection: close", *headers, body=body)


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    """Fields that are wrong, missing, or nobody's."""
    fields = dict(GOOD)
    for name in draw(st.lists(st.one_of(st.sampled_from(FIELDS), TEXT), min_size=1, max_size=4)):
        if draw(st.booleans()):
            fields[name] = draw(JSON)
        else:
            fields.pop(name, None)
    # As Python writes it: with NaN, Infinity and lone surrogates in it.
    return _submission(json.dumps(fields).encode("utf-8", "surrogatepass"))


@st.composite
def _raw_bodies(draw: st.DrawFn) -> bytes:
    """What was JSON before somebody cut it."""
    whole = json.dumps(GOOD).encode()
    body = draw(st.one_of(st.binary(max_size=300), _mutated(whole)))
    kind = draw(st.sampled_from(TYPES))
    return request("POST", "/v1/jobs", f"Content-Type: {kind}", "Connection: close", body=body)


@st.composite
def _images(draw: st.DrawFn) -> bytes:
    """Image files that are none, as base64 that is some."""
    file = draw(_mutated(draw(st.sampled_from(PICTURES))))
    text = base64.b64encode(file).decode()
    if draw(st.booleans()):
        text = draw(st.sampled_from(["data:image/png;base64,", "data:,", "http://", "file:///"])) + text
    fields = {**GOOD, "operation": "image_transform", "image": text}
    if draw(st.booleans()):
        fields |= {"operation": "image_inpaint", "mask": base64.b64encode(draw(_mutated(PICTURES[0]))).decode()}
    return _submission(json.dumps(fields).encode())


@st.composite
def _dialects(draw: st.DrawFn) -> bytes:
    """Fields of the dialects that are wrong, missing, or nobody's."""
    path = draw(st.sampled_from(sorted(DIALECTS)))
    fields = dict(DIALECTS[path])
    for name in draw(st.lists(st.one_of(st.sampled_from([*sorted(fields), *FIELDS]), TEXT), min_size=0, max_size=3)):
        if draw(st.booleans()):
            fields[name] = draw(JSON)
        else:
            fields.pop(name, None)
    body = json.dumps(fields).encode("utf-8", "surrogatepass")
    return request("POST", path, "Content-Type: application/json", "Connection: close", body=body)


@st.composite
def _picture_infos(draw: st.DrawFn) -> bytes:
    """Pictures whose texts were damaged, or that are none."""
    file = draw(_mutated(draw(st.sampled_from(PICTURES))))
    body = json.dumps({"image": base64.b64encode(file).decode()}).encode()
    return request("POST", "/sdapi/v1/png-info", "Content-Type: application/json", "Connection: close", body=body)


@st.composite
def _forms(draw: st.DrawFn) -> bytes:
    """Forms in which something is missing, twice, or damaged."""
    path = draw(st.sampled_from(["/v1/images/edits", "/v1/images/variations"]))
    kind = draw(st.sampled_from(["edge", '"edge"', "", "other", "e" * 300]))
    body = draw(_mutated(FORM))
    return request("POST", path, f"Content-Type: multipart/form-data; boundary={kind}", "Connection: close", body=body)


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    """Headers with strange values, twice, or of strange names."""
    names = st.one_of(
        st.sampled_from(HEADERS), st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20)
    )
    values = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=80)
    lines = [f"{draw(names)}: {draw(values)}" for _ in range(draw(st.integers(1, 5)))]
    path = draw(st.sampled_from(["/v1/jobs", "/v1/jobs/job_1/stream", "/v1/capabilities"]))
    body = json.dumps(GOOD).encode() if draw(st.booleans()) else b""
    return request(draw(st.sampled_from(METHODS[:3])), path, *lines, body=body)


@st.composite
def _paths(draw: st.DrawFn) -> bytes:
    """Ids, numbers and arguments that are none."""
    raw = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=60)
    escaped = st.binary(max_size=20).map(lambda data: "".join(f"%{byte:02x}" for byte in data))
    parts = st.one_of(raw, escaped, st.sampled_from(["..", ".", "~", "%2e%2e", "job_", "0" * 300]))
    path = draw(st.sampled_from(PATHS)).format(draw(parts), draw(parts))
    query = draw(st.one_of(st.just(""), raw, st.sampled_from(QUERIES)))
    return request(draw(st.sampled_from(METHODS)), f"{path}?{query}" if query else path, "Connection: close")


@st.composite
def _framings(draw: st.DrawFn) -> bytes:
    """Good requests, one behind the other, in whose bytes something happened."""
    good = _submission(json.dumps(GOOD).encode())
    return draw(_mutated(draw(st.sampled_from([good, CHUNKED, good + good, CHUNKED + good]))))


@st.composite
def _mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes changed, put in, taken out, or said twice."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(made)))
        match draw(st.sampled_from(["change", "insert", "delete", "repeat", "cut"])):
            case "change" if place < len(made):
                made[place] = draw(st.integers(0, 255))
            case "insert":
                made[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del made[place : place + draw(st.integers(1, 8))]
            case "repeat":
                made[place:place] = made[place : place + draw(st.integers(1, 40))]
            case "cut":
                del made[place:]
    return bytes(made)
