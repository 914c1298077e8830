"""`operations.json_object` and `body`: what is JSON to us, and errors that name every wrong field."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from pydantic import Field

from rbee_sd.errors import FieldError, RequestError
from rbee_sd.operations.body import MAX_FIELDS, Request, validate
from rbee_sd.operations.json_object import LONG, MAX_MARKS, SHOWN, digest_of, parse_object
from tests.unit.conftest import seeded


class Sample(Request):
    """A request with a field of each kind."""

    name: str = Field(max_length=10)
    number: int = Field(1, ge=0, le=10)
    size: float | None = None
    flag: bool = False


class Renamed(Sample):
    """A request with two fields that had other names before."""

    aliases = {"old_name": "name", "older_name": "name", "amount": "number"}  # noqa: RUF012

    def crossed(self, context: Any) -> list[FieldError]:
        """Refuses a number that is longer than the name."""
        return [FieldError("number", "long", "too long")] if self.number > len(self.name) else []


def refused(body: bytes) -> RequestError:
    """The error that these bytes are refused with."""
    with pytest.raises(RequestError) as caught:
        parse_object(body)
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_json")
    assert len(error.message) < 300
    return error


def parsed_or_refused(body: bytes) -> bool:
    """Whether a body gave an object or the one error there is for it; any other exception passes on."""
    try:
        return isinstance(parse_object(body), dict)
    except RequestError as error:
        return (error.status, error.code) == (400, "invalid_json")


def wrong(fields: dict[str, Any], model: type[Request] = Sample) -> dict[str, str]:
    """The constraint that each wrong field broke, by field; fails when one is named twice."""
    with pytest.raises(RequestError) as caught:
        validate(model, fields, None)
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_request")
    named = [field.field for field in error.fields]
    assert len(named) == len(set(named)), named
    assert all(field.message for field in error.fields)
    assert all(f"{field.field}: {field.message}" in error.message for field in error.fields[:20])
    orjson.dumps([[field.field, field.value] for field in error.fields])
    return {field.field: field.constraint for field in error.fields}


MALFORMED = {
    "nothing": b"",
    "white space": b" \n\t",
    "a word": b"prompt",
    "half": b'{"prompt": "a"',
    "trailing comma": b'{"prompt": "a",}',
    "trailing data": b'{"prompt": "a"} {"prompt": "b"}',
    "trailing NUL": b'{"prompt": "a"}\0',
    "single quotes": b"{'prompt': 'a'}",
    "bare key": b'{prompt: "a"}',
    "comment": b'{"prompt": "a"} // please',
    "BOM": b'\xef\xbb\xbf{"prompt": "a"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "UTF-16 without a BOM": '{"prompt": "a"}'.encode("utf-16-le"),
    "UTF-32": '{"prompt": "a"}'.encode("utf-32-be"),
    "Latin-1": '{"prompt": "é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "half a character": b'{"prompt": "\xf0\x9f\x8e"}',
    "an encoded surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"prompt": "\\ud83d"}',
    "a lone low surrogate": b'{"prompt": "\\ude00 a"}',
    "surrogates the wrong way round": b'{"prompt": "\\ude00\\ud83d"}',
    "a lone surrogate in a key": b'{"\\ud800": 1}',
    "a raw NUL": b'{"prompt": "a\0b"}',
    "a raw line feed": b'{"prompt": "a\nb"}',
    "NaN": b'{"steps": NaN}',
    "Infinity": b'{"steps": Infinity}',
    "-Infinity": b'{"steps": -Infinity}',
    "1e400": b'{"steps": 1e400}',
    "-1e400": b'{"steps": -1e400}',
    "1e400 deep inside": b'{"a": [{"b": [1, 1E+400]}]}',
    "400 digits": b'{"steps": ' + b"9" * 400 + b"}",
    "5,000 digits": b'{"steps": ' + b"9" * 5000 + b"}",
    "minus 5,000 digits": b'{"steps": -' + b"1" + b"0" * 5000 + b"}",
    "5,000 digits deep inside": b'{"a": [{"b": ' + b"9" * 5000 + b"}]}",
    "hexadecimal": b'{"steps": 0x10}',
    "a leading zero": b'{"steps": 010}',
    "a leading plus": b'{"steps": +1}',
    "a bare point": b'{"steps": 1.}',
    "nesting of 500,000": b'{"a": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "objects nested 500,000 deep": b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "500,000 that are never closed": b"[" * 500_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_json_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("body", [b"[]", b'[{"prompt": "a"}]', b"1", b"null", b"true", b'"prompt"', b"1.5"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    assert "object" in refused(body).message


@pytest.mark.parametrize(
    ("body", "twice"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": 1, "a": 1}', "a"),
        (b'{"a": 1, "b": 2, "c": 3, "b": 4}', "b"),
        (b'{"prompt": "a", "\\u0070rompt": "b"}', "prompt"),
        (b'{"x": {"deep": [{"a": 1, "a": null}]}}', "a"),
        (b'{"": 1, "": 2}', ""),
        ('{"é": 1, "\\u00e9": 2}'.encode(), "é"),
    ],
)
def test_a_key_that_appears_twice_is_refused_and_named(body: bytes, twice: str) -> None:
    assert f"'{twice}'" in refused(body).message


def test_a_key_in_two_objects_is_no_duplicate() -> None:
    assert parse_object(b'{"a": {"a": [{"a": 1}, {"a": 2}]}, "A": 1}') == {"a": {"a": [{"a": 1}, {"a": 2}]}, "A": 1}


def test_a_long_key_that_appears_twice_is_shortened() -> None:
    key = b"k" * 100_000
    assert len(refused(b'{"' + key + b'": 1, "' + key + b'": 2}').message) < 2 * SHOWN + 100


def test_a_duplicate_among_very_many_keys_is_found_at_once() -> None:
    keys = [f'"k{number}":1' for number in range(15_000)]
    body = ("{" + ",".join([*keys, keys[-1]]) + "}").encode()
    began = time.process_time()
    refused(body)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [%s1]}' % (b"[]," * 11_000_000),
        b'{%s"b": 1}' % (b'"a":1,' * 5_500_000),
        b'{"a": [%s1]}' % ((b"[" * 900 + b"]" * 900 + b",") * 18_000),
        b'{"a": [%s1]}' % (b"1," * 16_000_000),
        b'{"a": "%s"}' % (rb"\"" * 16_000_000),
    ],
    ids=["lists", "names", "deep lists", "numbers", "quotes"],
)
def test_32_mib_of_very_many_values_are_refused_before_they_are_made(body: bytes) -> None:
    began = time.process_time()
    assert "more values" in refused(body).message
    assert time.process_time() - began < 0.5


def test_as_many_values_as_may_be_are_parsed() -> None:
    # Two quotes and a bracket are marks as well.
    assert len(parse_object(b'{"a":[' + b"1," * (MAX_MARKS - 4) + b"1]}")["a"]) == MAX_MARKS - 3
    refused(b'{"a":[' + b"1," * (MAX_MARKS - 3) + b"1]}")


def test_what_is_in_a_long_text_is_no_value() -> None:
    text = ",[{" * MAX_MARKS
    assert parse_object(orjson.dumps({"a": text, "b": [text]})) == {"a": text, "b": [text]}


LONG_TEXTS = [
    "x" * (LONG + 1),
    "x" * 8_000_000,
    "🎉" * 1000,
    "\\" * 1000,
    '\\"' * 1000,
    '"' * 1000,
    "x" * 1000 + "\\",
    "x" * 1000 + '"',
    '", "a": "' * 1000,
    "[{,:" * 1000,
    "\n\u2028\0" * 1000,
]


@pytest.mark.parametrize("text", LONG_TEXTS, ids=range(len(LONG_TEXTS)))
def test_long_texts_come_through_and_hide_no_key_that_appears_twice(text: str) -> None:
    for fields in ({"a": text}, {text: "a"}, {"a": [text, {"b": text}], "c": text}, {"a": text, text: {text: 1}}):
        assert parse_object(orjson.dumps(fields)) == fields
        # Written in another way: escaped, and with white space.
        assert parse_object(json.dumps(fields, separators=(" , ", " : ")).encode()) == fields
    whole = orjson.dumps({"a": text, "b": text, "c": {"d": text}})
    assert "'b'" in refused(whole[:-1] + b',"b":1}').message
    assert "'d'" in refused(whole[:-2] + b',"d":1}}').message
    name = orjson.dumps(text)
    assert "twice" in refused(b"{%s: 1, %s: 2}" % (name, name)).message


def test_an_image_of_8_mib_is_parsed_and_hashed_at_once() -> None:
    body = orjson.dumps({"prompt": "🎉", "image": "iVBORw0KGgo" * 760_000})
    began = time.process_time()
    digest_of(parse_object(body))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("depth", [1, 50, 200, 254, 255, 300, 500, 900, 990, 1000, 1020, 1024, 1100, 5000])
def test_any_depth_is_parsed_or_refused(depth: int) -> None:
    body = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    assert parsed_or_refused(body)


def test_text_in_any_script_comes_through_to_the_byte() -> None:
    text = "🎉👩‍👩‍👧‍👦 שלום עולם مرحبا 日本語 e\u0301 \u202e\u2028\ufeff\uffff 𐍈"
    assert parse_object(orjson.dumps({"prompt": text})) == {"prompt": text}
    escaped = "".join(f"\\u{unit:04x}" for unit in _utf16(text))
    assert parse_object(f'{{"prompt": "{escaped}"}}'.encode()) == {"prompt": text}


def _utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2)]


def test_damaged_bodies_are_refused_or_parsed_and_nothing_else() -> None:
    chance = seeded(1)
    whole = orjson.dumps({"prompt": "a ☃ \n", "steps": 20, "x": [1.5, None, True, {"y": "z"}], "seed": 2**63 - 1})
    for _ in range(20_000):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[place] = chance.randrange(256)
                case 1:
                    damaged[place:place] = chance.choice((b'"', b"{", b"]", b",", b"\\u", b"1e9", b"NaN", b"\xff"))
                case _:
                    del damaged[place : place + chance.randrange(1, 6)]
        assert parsed_or_refused(bytes(damaged))


def test_a_good_request_is_what_was_sent() -> None:
    request = validate(Sample, {"name": "a", "number": 3, "size": 2}, None)
    assert request == Sample(name="a", number=3, size=2.0)


def test_every_wrong_field_is_named_at_once() -> None:
    fields = {"name": 1, "number": 11, "size": "2", "flag": 1, "other": {}, "more": [1]}
    assert set(wrong(fields)) == set(fields)


def test_older_names_mean_the_same_fields() -> None:
    assert validate(Renamed, {"old_name": "abc", "amount": 2}, None) == Renamed(name="abc", number=2)
    assert validate(Renamed, {"name": "abc"}, None).model_dump(exclude_unset=True) == {"name": "abc"}


def test_a_wrong_field_is_named_as_it_was_sent() -> None:
    assert wrong({"old_name": 1, "amount": 11}, Renamed) == {"old_name": "string_type", "amount": "less_than_equal"}
    assert wrong({"amount": None}, Renamed) == {"amount": "not_null", "name": "missing"}
    assert wrong({"old_name": None}, Renamed) == {"old_name": "not_null"}


def test_a_field_under_two_names_is_refused() -> None:
    assert wrong({"old_name": "a", "name": "a"}, Renamed) == {"name": "sent_twice"}
    found = wrong({"name": "a", "old_name": "b", "older_name": None, "number": 11}, Renamed)
    assert found == {"old_name": "sent_twice", "older_name": "sent_twice", "number": "less_than_equal"}


def test_fields_that_are_wrong_together_are_told_once_each_is_right() -> None:
    assert wrong({"name": "a", "number": 2}, Renamed) == {"number": "long"}
    assert wrong({"name": "a", "number": 11}, Renamed) == {"number": "less_than_equal"}
    assert wrong({"name": "a", "number": 2, "size": None}, Renamed) == {"size": "not_null"}


def test_missing_unknown_and_null_fields_are_told_apart() -> None:
    found = wrong({"number": None, "colour": "red"})
    assert found == {"name": "missing", "number": "not_null", "colour": "extra_forbidden"}


def test_null_for_a_required_field_is_named_once() -> None:
    assert set(wrong({"name": None})) == {"name"}


def test_null_for_every_field_names_every_field_once() -> None:
    fields = dict.fromkeys(("name", "number", "size", "flag", "other"))
    assert set(wrong(fields)) == set(fields)


def test_many_wrong_fields_are_each_named_and_too_many_are_not_looked_at() -> None:
    def some(count: int) -> dict[str, Any]:
        return {f"null{number}": None for number in range(count // 2)} | {f"more{n}": 1 for n in range(count // 2)}

    assert set(wrong(some(MAX_FIELDS))) == {*some(MAX_FIELDS), "name"}
    assert wrong(some(MAX_FIELDS + 2)) == {"request": "too_many_fields"}
    began = time.process_time()
    assert wrong(some(200_000)) == {"request": "too_many_fields"}
    assert time.process_time() - began < 1


@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, "1", [], [1], {}, 1e300])
def test_only_a_whole_number_is_a_whole_number(value: Any) -> None:
    assert set(wrong({"name": "a", "number": value})) == {"number"}


@pytest.mark.parametrize("value", [0, 1, 1.0, "true", "", []])
def test_only_true_and_false_are_true_and_false(value: Any) -> None:
    assert set(wrong({"name": "a", "flag": value})) == {"flag"}


@pytest.mark.parametrize("value", [True, "1.5", [], {}, float("nan"), float("inf")])
def test_only_a_number_is_a_number(value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        validate(Sample, {"name": "a", "size": value}, None)
    assert [field.field for field in caught.value.fields] == ["size"]


@pytest.mark.parametrize("value", [1, True, ["a"], {"a": "b"}, 1.5])
def test_only_text_is_text(value: Any) -> None:
    assert set(wrong({"name": value})) == {"name"}


@pytest.mark.parametrize(
    "value", ["x" * 100_000, ["x"] * 100_000, {"x" * 100_000: 1}, "🎉" * 5000, [{"a": ["x" * 99]}]]
)
def test_a_wrong_value_is_shown_shortened(value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        validate(Sample, {"name": "a", "number": value}, None)
    (field,) = caught.value.fields
    assert len(str(field.value)) <= SHOWN + 1
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("value", [1, None], ids=["a value", "null"])
def test_a_wrong_name_is_shown_shortened(value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        validate(Sample, {"name": "a", "x" * 100_000: value}, None)
    (field,) = caught.value.fields
    assert len(field.field) <= SHOWN + 1
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("depth", [10, 250, 254, 255, 300, 900])
@pytest.mark.parametrize("name", ["name", "number", "unknown"])
def test_a_wrong_value_of_any_depth_is_a_wrong_request(name: str, depth: int) -> None:
    body = b'{"%s": ' % name.encode() + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(RequestError) as caught:
        validate(Sample, {"name": "a", **parse_object(body)}, None)
    assert caught.value.status == 400


def test_a_request_is_frozen() -> None:
    request = Sample(name="a")
    with pytest.raises(ValueError, match="frozen"):
        request.number = 2  # type: ignore[misc]
