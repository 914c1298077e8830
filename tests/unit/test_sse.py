"""`http.sse`: frames that parse back, and ids that clients made up."""

from __future__ import annotations

import pytest

from rbee_sd.http import sse
from rbee_sd.jobs.event_log import Event, EventLog
from rbee_sd.jobs.job import Job
from tests.unit.conftest import order


def parse(stream: bytes) -> list[dict[str, str]]:
    """The blocks of a stream by the HTML standard: lines end with CR, LF or both, a blank one ends a block."""
    text = stream.decode().replace("\r\n", "\n").replace("\r", "\n")
    blocks: list[dict[str, str]] = []
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            if line.startswith(":") or not line:
                continue
            name, _, value = line.partition(":")
            assert name not in fields, f"{name} twice in one block"
            fields[name] = value.removeprefix(" ")
        if fields:
            blocks.append(fields)
    return blocks


def test_a_frame_is_what_the_contract_shows() -> None:
    event = Event("progress", b'{"event":"progress","step":5}')
    assert sse.frame(7, event) == b'id: 7\nevent: progress\ndata: {"event":"progress","step":5}\n\n'


def test_a_frame_can_be_sent_in_two_parts() -> None:
    event = Event("complete", b'{"a":1}')
    assert sse.head(23, event) + event.data + b"\n\n" == sse.frame(23, event)


def test_only_events_carry_an_id() -> None:
    stream = sse.RETRY + sse.HEARTBEAT + sse.frame(1, Event("queued", b"{}")) + sse.HEARTBEAT + sse.DONE
    assert parse(stream) == [
        {"retry": "1000"},
        {"id": "1", "event": "queued", "data": "{}"},
        {"data": "[DONE]"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a\n\ndata: [DONE]\n\n",
        "a\r\rdata: [DONE]\r\r",
        "a\r\n\r\nid: 99\r\nevent: complete\r\ndata: {}\r\n\r\n",
        "\u2028\u2029\x85\x0b\x0c",
        "\0\x1b[2J",
        "🎉 שלום",
        "data: x",
        ": hb",
    ],
)
def test_what_a_client_sent_cannot_break_out_of_its_frame(text: str) -> None:
    job = Job(order(), EventLog())
    job.emit("narration", text=text)
    ((number, event),) = job.log.after(0)
    (block,) = parse(sse.frame(number, event))
    assert set(block) == {"id", "event", "data"}
    assert (block["id"], block["event"]) == ("1", "narration")


@pytest.mark.parametrize(("header", "seen"), [("0", 0), ("1", 1), ("9", 9), ("10", 10), ("0007", 7)])
def test_an_id_that_was_sent_is_resumed_after(header: str, seen: int) -> None:
    assert sse.last_event_id(header, 10) == seen


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "11",
        "-1",
        "+1",
        "1.0",
        "1e1",
        "0x1",
        "1_0",
        "1 ",
        "1,2",
        "١",
        "²",
        "Ⅷ",
        "NaN",
        "null",
        "undefined",
        "[DONE]",
        "9" * 20,
        "9" * 5000,
        "0" * 5000,
        "\0",
        "\ud800",
        "1\n2",
    ],
)
def test_nonsense_replays_all(header: str | None) -> None:
    assert sse.last_event_id(header, 10) == 0


def test_ids_of_the_feed_are_large_and_still_ids() -> None:
    newest = 1_795_000_000_000 + 5
    assert sse.last_event_id(str(newest), newest) == newest
    assert sse.last_event_id(str(newest + 1), newest) == 0


def test_nothing_has_been_sent_yet() -> None:
    assert sse.last_event_id("0", 0) == 0
    assert sse.last_event_id("1", 0) == 0
