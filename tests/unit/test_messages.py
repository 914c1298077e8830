"""`messages`: each message survives the pipe, and nothing else gets through."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from random import Random
from typing import Any, get_args, get_origin, get_type_hints

import orjson
import pytest

from rbee_sd import messages
from rbee_sd.messages import (
    Command,
    Event,
    Failed,
    Finished,
    Generate,
    Message,
    Narration,
    Progress,
    ProtocolError,
    decode,
    encode,
)
from tests.unit.conftest import seeded

KINDS: tuple[type[Message], ...] = (*get_args(Command), *get_args(Event))
TEXTS = ("", "a", "☃ שלום 🎉", "\0\r\n\x1b[31m\x85\u2028\u2029\ufeff", 'quote " and \\ back', "long " * 5000)
INTS = (0, 1, -1, 20, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 0.1, 7.5, 1e308, 5e-324, -1.25, 1763700000.123)
BLOBS = (b"", b"\0", b"\x89PNG\r\n", bytes(range(256)), b"{}" * 500)
# What a broken engine may put where a value belongs.
NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1.5,
    2**70,
    "x",
    "",
    [],
    [0],
    [1.0],
    [True],
    ["a"],
    [[]],
    {},
    {"a": 1},
)


def value_for(hint: Any, chance: Random) -> Any:
    """A value that a field with this annotation may hold."""
    if get_origin(hint) is tuple:
        return tuple(value_for(get_args(hint)[0], chance) for _ in range(chance.randrange(4)))
    kind = chance.choice(get_args(hint) or (hint,))
    choices: dict[Any, tuple[Any, ...]] = {
        str: TEXTS,
        int: INTS,
        float: FLOATS,
        bool: (True, False),
        bytes: BLOBS,
        type(None): (None,),
    }
    return chance.choice(choices[kind])


def sample(kind: type[Message], chance: Random) -> Message:
    """A message of this kind with random values."""
    return kind(**{name: value_for(hint, chance) for name, hint in get_type_hints(kind).items()})


def frame(header: Any, blobs: bytes = b"") -> bytes:
    """A frame made by hand; `header` is an object, or the bytes that stand in its place."""
    text = header if isinstance(header, bytes) else orjson.dumps(header)
    return struct.pack(">I", len(text)) + text + blobs


def header_of(message: Message) -> dict[str, Any]:
    """The JSON object in a message's frame."""
    whole = encode(message)
    (length,) = struct.unpack_from(">I", whole)
    header: dict[str, Any] = orjson.loads(whole[4 : 4 + length])
    return header


def well_typed(message: Message) -> bool:
    """Whether each field holds what its annotation says."""

    def fits(hint: Any, value: Any) -> bool:
        if get_origin(hint) is tuple:
            return type(value) is tuple and all(fits(get_args(hint)[0], item) for item in value)
        allowed = get_args(hint) or (hint,)
        return type(value) in allowed or (float in allowed and type(value) is int)

    hints = get_type_hints(type(message))
    return all(fits(hints[field.name], getattr(message, field.name)) for field in fields(message))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_round_trips_with_any_values(kind: type[Message]) -> None:
    chance = seeded(1)
    for _ in range(200):
        message = sample(kind, chance)
        back = decode(encode(message))
        assert type(back) is kind
        assert back == message
        assert well_typed(back)


def test_all_messages_of_the_module_are_commands_or_events() -> None:
    defined = {
        kind.__name__ for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)
    }
    assert defined - {"Message"} == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0, 0), (1, 0, 1), (5_000_000,), (1, 3_000_000, 0, 2_000_000)])
def test_blobs_of_any_size_come_back_in_their_order(sizes: tuple[int, ...]) -> None:
    images = tuple(bytes([number + 1]) * size for number, size in enumerate(sizes))
    back = decode(encode(Finished("job_1", images, images[::-1], (0,))))
    assert back == Finished("job_1", images, images[::-1], (0,))
    assert isinstance(back, Finished)
    assert all(type(image) is bytes for image in back.images)


def test_decoded_blobs_do_not_keep_the_frame_alive() -> None:
    whole = bytearray(encode(Finished("job_1", (b"abc", b"def"))))
    back = decode(bytes(whole))
    whole[:] = b""
    assert back == Finished("job_1", (b"abc", b"def"))


def test_a_message_is_frozen() -> None:
    message = Narration("hello")
    with pytest.raises(AttributeError):
        message.text = "other"  # type: ignore[misc]


def test_a_float_field_may_be_a_whole_number_on_the_wire() -> None:
    header = header_of(Progress("job_1", 1, 2, 3.0)) | {"at": 3}
    back = decode(frame(header))
    assert isinstance(back, Progress)
    assert type(back.at) is float


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncated_frame_is_refused(kind: type[Message]) -> None:
    chance = seeded(2)
    whole = min((encode(sample(kind, chance)) for _ in range(20)), key=len)
    for end in range(len(whole)):
        with pytest.raises(ProtocolError):
            decode(whole[:end])


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_a_message_are_refused(kind: type[Message]) -> None:
    whole = encode(sample(kind, seeded(3)))
    for tail in (b"\0", b" ", b"\n", whole):
        with pytest.raises(ProtocolError):
            decode(whole + tail)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_or_an_extra_field_is_refused(kind: type[Message]) -> None:
    header = header_of(sample(kind, seeded(4)))
    with pytest.raises(ProtocolError):
        decode(frame(header | {"extra": 1}))
    with pytest.raises(ProtocolError):
        decode(frame(header | {"": None}))
    for name in header:
        with pytest.raises(ProtocolError):
            decode(frame({key: value for key, value in header.items() if key != name}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_the_wrong_type_is_refused_or_still_well_typed(kind: type[Message]) -> None:
    message = sample(kind, seeded(5))
    if isinstance(message, Finished):
        message = replace(message, images=())
    header = header_of(message)
    for name in get_type_hints(kind):
        for value in NASTY:
            # JSON as Python writes it: orjson itself would refuse to write 2**70.
            text = orjson.dumps(header | {name: "HERE"}).replace(b'"HERE"', json.dumps(value).encode())
            try:
                back = decode(frame(text))
            except ProtocolError:
                continue
            assert well_typed(back), (name, value, back)


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, [], ["Shutdown"], {}, {"kind": "Shutdown"}, "", "shutdown", "Message", "ProtocolError"],
)
def test_a_kind_that_is_none_of_ours_is_refused(value: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(frame({"kind": value}))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"Shutdown"',
        b"1",
        b"{",
        b'{"kind":"Shutdown"',
        b"{'kind':'Shutdown'}",
        b'{"kind":"Shutdown"}}',
        b'{"kind":"Shutdown"}\0',
        b"\xef\xbb\xbf" + b'{"kind":"Shutdown"}',
        '{"kind":"Shutdown"}'.encode("utf-16"),
        b'{"kind":"Narration","text":"\xff","job_id":""}',
        b'{"kind":"Narration","text":"\\ud800","job_id":""}',
        b'{"kind":"Progress","job_id":"","step":1,"total":1,"at":NaN}',
        b'{"kind":"Progress","job_id":"","step":1,"total":1,"at":Infinity}',
        b'{"kind":"Progress","job_id":"","step":1,"total":1,"at":1e400}',
        b'{"kind":"Pulse","forwards":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"kind":' * 100_000,
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94",
    ],
)
def test_a_header_that_is_no_message_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame(header))


@pytest.mark.parametrize(
    ("sizes", "blobs"),
    [
        ([4], b"abc"),
        ([2], b"abc"),
        ([], b"abc"),
        ([3, 1], b"abc"),
        ([1, 1], b"abc"),
        ([-1, 4], b"abc"),
        ([-1, 1], b"abc"),
        ([-2, 2], b"abc"),
        ([4, -1], b"abc"),
        ([3.0], b"abc"),
        (["3"], b"abc"),
        ([None], b"abc"),
        ([True, 2], b"abc"),
        ([[3]], b"abc"),
        ([2**63 - 1], b"abc"),
        (3, b"abc"),
        ("3", b"abc"),
        (None, b"abc"),
        (None, b""),
        ({}, b""),
        ({"0": 3}, b"abc"),
        (False, b""),
    ],
)
def test_blob_sizes_that_do_not_fit_are_refused(sizes: Any, blobs: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame({"kind": "Finished", "job_id": "job_1", "images": sizes, "flagged": []}, blobs))


@pytest.mark.parametrize("length", [0, 1, 18, 20, 2**16, 2**31, 2**32 - 1])
def test_a_length_that_does_not_fit_is_refused(length: int) -> None:
    text = b'{"kind":"Shutdown"}'
    assert length != len(text)
    with pytest.raises(ProtocolError):
        decode(struct.pack(">I", length) + text)


def test_random_bytes_raise_protocol_error_and_nothing_else() -> None:
    chance = seeded(6)
    for _ in range(5000):
        noise = chance.randbytes(chance.randrange(60))
        with pytest.raises(ProtocolError):
            decode(noise)
        with pytest.raises(ProtocolError):
            decode(frame(noise))


def test_damaged_frames_raise_protocol_error_or_are_still_a_message() -> None:
    chance = seeded(7)
    wholes = [encode(sample(kind, chance)) for kind in KINDS for _ in range(4)]
    wholes = [whole for whole in wholes if len(whole) < 3000]
    refused = 0
    for _ in range(30_000):
        damaged = bytearray(chance.choice(wholes))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(damaged))
            match chance.randrange(4):
                case 0:
                    damaged[place] ^= 1 << chance.randrange(8)
                case 1:
                    damaged[place : place + 1] = chance.choice((b"", b"[", b"]", b"{", b'"', b"0", b",", b"null"))
                case 2:
                    damaged[place:place] = chance.randbytes(chance.randrange(1, 5))
                case _:
                    del damaged[place : place + chance.randrange(1, 9)]
            if not damaged:
                damaged += b"\0"
        try:
            back = decode(bytes(damaged))
        except ProtocolError:
            refused += 1
            continue
        assert well_typed(back), back
    assert refused > 10_000


def test_a_header_shuffled_between_kinds_raises_protocol_error_or_is_a_message() -> None:
    chance = seeded(8)
    headers = [header_of(sample(kind, chance)) for kind in KINDS]
    for _ in range(10_000):
        mixed = dict(chance.choice(headers))
        for name in tuple(mixed):
            if chance.random() < 0.3:
                mixed[name] = chance.choice([*NASTY[:6], *NASTY[7:], *chance.choice(headers).values()])
        try:
            back = decode(frame(mixed))
        except ProtocolError:
            continue
        assert well_typed(back), back


def test_a_frame_over_the_limit_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(encode(Finished("job_1", (b"x" * 1000,))))
    monkeypatch.setattr(messages, "MAX_FRAME", size)
    encode(Finished("job_1", (b"x" * 1000,)))
    with pytest.raises(ProtocolError):
        encode(Finished("job_1", (b"x" * 1001,)))
    with pytest.raises(ProtocolError):
        encode(Finished("job_1", (b"x" * 500, b"x" * 1000)))
    with pytest.raises(ProtocolError):
        encode(Narration("x" * 2000))


def test_the_largest_job_fits_a_frame() -> None:
    # Eight images of 2048 x 2048 noise, which no PNG can make smaller than its pixels.
    pixels = 2048 * 2048 * 3
    assert 8 * pixels < messages.MAX_FRAME


@pytest.mark.parametrize(
    "message",
    [
        Narration("\ud800"),
        Failed("job_1", "model_failed", "no such file: caf\udce9"),
        Progress("job_1", 1, 2, float("nan")),
        Progress("job_1", 1, 2, float("inf")),
        Generate("job_1", "a", "", 1, guidance_scale=float("nan")),
        Generate("job_1", "a", "", 2**64),
    ],
)
def test_what_would_not_come_back_the_same_is_not_written(message: Message) -> None:
    with pytest.raises(ProtocolError):
        encode(message)
