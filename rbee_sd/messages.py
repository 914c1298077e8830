"""The seam: everything the front and the engine process say to each other, and how it is framed.

Imported by both processes; it may import nothing but the standard library and orjson. A frame is
4 bytes (big-endian length of the JSON), the JSON object, then the raw bytes of the `bytes` fields in order.
Never pickle: a broken engine can send nonsense, but nothing it sends is executed. Strings cross, exceptions
do not. `encode` and `decode` do not block and touch no pipe.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

import orjson

MAX_FRAME = 256 * 1024 * 1024
"""Bytes. Eight PNGs of 2048 x 2048 noise are about 130 MB."""

TEXT, TRANSFORM, INPAINT = OPERATIONS = ("image_generation", "image_transform", "image_inpaint")
"""What an engine makes images from: a prompt; also an image; also an image and a mask."""
MAX_GUIDANCE_SCALE = 50.0
MIN_SIDE = 64
MULTIPLE = 8
"""Of the sides of what is made, in pixels. `Ready` says whether the model wants a larger multiple."""
INPUT_FORMATS = ("png", "jpeg", "webp")
PNG, JPEG, *_ = FORMATS = ("png", "jpeg", "webp")
"""What images are made into."""
ALPHA, *_ = MASK_MEANS = ("alpha", "white", "black")
"""Which part of a mask is painted anew: the transparent one, the white one or the black one."""
STRETCH, *_ = FITS = ("stretch", "crop", "fill")
"""How an input image is brought to another shape: drawn out of its own, cut, or with its edges drawn out."""
STRENGTHS = {TRANSFORM: 0.8, INPAINT: 1.0}
"""How much of an input image is changed where a job leaves it open: the part of the steps that is done."""
MAX_INPUT_PIXELS = 8192 * 4096
"""Of an input image: what it takes to decode it, whatever becomes of it then."""
SCHEDULERS = (
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_sde",
    "euler",
    "euler_a",
    "heun",
    "lcm",
    "lms",
    "pndm",
    "unipc",
)
"""Names a client may ask for; the engine maps each to a diffusers class. `Ready` says which a model takes."""

_LENGTH = struct.Struct(">I")


class ProtocolError(Exception):
    """Raised by `decode` when a frame is not one of the messages below, exactly."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages; the class name is the `kind` on the wire."""


# Commands, front -> engine.


@dataclass(frozen=True, slots=True)
class Generate(Message):
    """Make `count` images; None leaves a value to what the loaded model wants, or to the input image.

    `inputs` are image files: none, an image, or an image and a mask, as `operation` says. By `mask_means` an image may
    be its own mask; `mask_blur` is in pixels. `quality` is that of `messages.FORMATS` which lose something, 1 to 100.
    `lora_scales` belong to `loras`, in order. Of equal `priority`, jobs that have different words as `owner` take
    turns. `exclusive`: its forwards are shared with nothing else. `preview`: previews are wanted while the job is
    watched. `model` is what clients call the model, empty for the one that the engine was started with; `source` is
    where it lies, for the others.
    """

    job_id: str
    prompt: str
    negative_prompt: str
    seed: int
    operation: str = TEXT
    model: str = ""
    source: str = ""
    count: int = 1
    steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    strength: float | None = None
    fit: str = STRETCH
    mask_means: str = "white"
    mask_blur: float = 0.0
    format: str = PNG
    quality: int | None = None
    loras: tuple[str, ...] = ()
    lora_scales: tuple[float, ...] = ()
    priority: int = 0
    owner: str = ""
    exclusive: bool = False
    preview: bool = False
    inputs: tuple[bytes, ...] = ()

    @property
    def pixels(self) -> int:
        """Of one image; 0 where that is left to the model, or to the input image."""
        return (self.width or 0) * (self.height or 0)


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """Stop a job at its next denoise step. Answered by the job's terminal message, whichever it is."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Watch(Message):
    """Somebody listens to the job now, or nobody any more. Previews are made for those who listen."""

    job_id: str
    watched: bool


@dataclass(frozen=True, slots=True)
class LoadModel(Message):
    """Have a model ready, as for a job that names it. Answered as a Generate is, by a Finished without images."""

    job_id: str
    model: str
    source: str


@dataclass(frozen=True, slots=True)
class UnloadModel(Message):
    """Let go of a model that no job works with. Answered like LoadModel."""

    job_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Shutdown(Message):
    """Leave as soon as the step in hand is done."""


# Events, engine -> front. Each command with a job_id but Cancel and Watch is answered by exactly one of Finished,
# Failed or Cancelled.


@dataclass(frozen=True, slots=True)
class Loading(Message):
    """A model is being loaded: nothing else is done or heard until its Ready or Unloaded."""

    model: str


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """A model is loaded; the first is the one that the engine was started with.

    `width`, `height`, `steps` and `guidance_scale` are what it wants by default.
    It takes `capacity` jobs at once, of these `operations`, with these `schedulers`; sides are multiples of `multiple`.
    `negative`: a negative prompt counts.
    """

    model: str
    family: str
    device: str
    dtype: str
    capacity: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    operations: tuple[str, ...] = OPERATIONS
    schedulers: tuple[str, ...] = SCHEDULERS
    multiple: int = MULTIPLE
    negative: bool = True


@dataclass(frozen=True, slots=True)
class Unloaded(Message):
    """A model is not there any more, or could not be loaded."""

    model: str


@dataclass(frozen=True, slots=True)
class Curve(Message):
    """What a forward of so many `rows` takes (`ms`) for images of this size, and the `cap` that follows from it."""

    width: int
    height: int
    rows: tuple[int, ...]
    ms: tuple[float, ...]
    cap: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Started(Message):
    """A job has begun, with every open value settled. `total` is the number of denoise steps."""

    job_id: str
    total: int
    width: int
    height: int
    guidance_scale: float
    scheduler: str


@dataclass(frozen=True, slots=True)
class Progress(Message):
    """`step` of `total` denoise steps are done; `at` is the engine's wall clock in Unix seconds."""

    job_id: str
    step: int
    total: int
    at: float


@dataclass(frozen=True, slots=True)
class Preview(Message):
    """What image `index` of the job looks like after `step` steps: a small JPEG file."""

    job_id: str
    index: int
    step: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Finished(Message):
    """Files in the job's format, one for each image. `flagged` names those the model's safety checker blacked out.

    `thumbnails` are small JPEG files, one for each image or none at all; empty for an image that is small itself.
    """

    job_id: str
    images: tuple[bytes, ...]
    thumbnails: tuple[bytes, ...] = ()
    flagged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """The job could not be done; the engine lives on. `code` is an error code of the contract."""

    job_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancelled(Message):
    """The job was stopped after `step` denoise steps."""

    job_id: str
    step: int


@dataclass(frozen=True, slots=True)
class Narration(Message):
    """A sentence for people, about one job, or about the engine when `job_id` is empty."""

    text: str
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Pulse(Message):
    """What this engine has done since it started; sent while that grows, and once after.

    `forwards` of the denoiser, over `rows` in all; of `elapsed` seconds in which it had jobs, `worked` were spent in
    the model and in its pipelines' own code (the rest is what the loop itself costs). `memory`: bytes of the device
    that it holds, 0 on a CPU.
    """

    forwards: int
    rows: int = 0
    worked: float = 0.0
    elapsed: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Fatal(Message):
    """The engine cannot do any job, and another start would end the same way. It exits after this."""

    code: str
    message: str


Command = Generate | Cancel | Watch | LoadModel | UnloadModel | Shutdown
Event = (
    Loading
    | Ready
    | Unloaded
    | Curve
    | Started
    | Progress
    | Preview
    | Finished
    | Failed
    | Cancelled
    | Narration
    | Pulse
    | Fatal
)

_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (*get_args(Command), *get_args(Event))}
_HINTS = {kind: get_type_hints(kind) for kind in _KINDS.values()}


def encode(message: Message) -> bytes:
    """Return one frame. Raises `ProtocolError` when it would be too large, or would not come back the same."""
    # Not `asdict`, which copies: this is done for each step of each job.
    body: dict[str, Any] = {name: getattr(message, name) for name in _HINTS[type(message)]}
    body["kind"] = type(message).__name__
    blobs: list[bytes] = []
    for name, hint in _HINTS[type(message)].items():
        if hint == tuple[bytes, ...]:
            blobs += body[name]
            body[name] = [len(blob) for blob in body[name]]
        elif hint is bytes:
            blobs.append(body[name])
            body[name] = len(body[name])
    if not all(math.isfinite(value) for value in _floats(body.values())):
        raise ProtocolError(f"{body['kind']} with a number that JSON has no word for")
    try:
        header = orjson.dumps(body)
    except TypeError as error:
        raise ProtocolError(f"{body['kind']} with a value that JSON cannot hold") from error
    frame = b"".join((_LENGTH.pack(len(header)), header, *blobs))
    if len(frame) > MAX_FRAME:
        raise ProtocolError(f"a frame of {len(frame)} bytes is over the limit of {MAX_FRAME}")
    return frame


def decode(frame: bytes) -> Message:
    """Return the message in `frame`. Raises `ProtocolError` for anything that `encode` would not have written."""
    if len(frame) < _LENGTH.size:
        raise ProtocolError("frame shorter than its length field")
    (length,) = _LENGTH.unpack_from(frame)
    start = _LENGTH.size + length
    if start > len(frame):
        raise ProtocolError("frame shorter than its header")
    try:
        body = orjson.loads(frame[_LENGTH.size : start])
    except orjson.JSONDecodeError as error:
        raise ProtocolError("header is not JSON") from error
    name = body.pop("kind", None) if isinstance(body, dict) else None
    if not isinstance(name, str) or name not in _KINDS:
        raise ProtocolError("unknown kind of message")
    kind = _KINDS[name]
    if set(body) != {field.name for field in fields(kind)}:
        raise ProtocolError(f"{kind.__name__} with the wrong fields")
    rest = memoryview(frame)[start:]
    for name, hint in _HINTS[kind].items():
        if hint == tuple[bytes, ...]:
            body[name], rest = _cut(body[name], rest)
        elif hint is bytes:
            (body[name],), rest = _cut([body[name]], rest)
        else:
            body[name] = _typed(kind, name, hint, body[name])
    if rest:
        raise ProtocolError("bytes left over behind the message")
    return kind(**body)


def _cut(sizes: Any, rest: memoryview) -> tuple[tuple[bytes, ...], memoryview]:
    blobs = []
    for size in sizes if isinstance(sizes, list) else [None]:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise ProtocolError("sizes that do not fit the frame")
        blobs.append(bytes(rest[:size]))
        rest = rest[size:]
    return tuple(blobs), rest


def _floats(values: Iterable[Any]) -> Iterator[float]:
    for value in values:
        if isinstance(value, float):
            yield value
        elif isinstance(value, tuple):
            yield from _floats(value)


def _typed(kind: type[Message], name: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ProtocolError(f"{kind.__name__}.{name} is no list")
        return tuple(_typed(kind, name, get_args(hint)[0], item) for item in value)
    allowed = get_args(hint) or (hint,)
    if type(value) in allowed:
        return value
    if float in allowed and type(value) is int:
        return float(value)
    raise ProtocolError(f"{kind.__name__}.{name} has the wrong type")
