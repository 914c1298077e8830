"""Server-Sent Events on the wire. Pure functions; format: the HTML standard, section 9.2.

The data of an event is JSON on one line, so no line of it can be mistaken for a field.
"""

from __future__ import annotations

from rbee_sd.jobs.event_log import Event

RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": hb\n\n"
DONE = b"data: [DONE]\n\n"


def frame(number: int, event: Event) -> bytes:
    """One whole event."""
    return b"%s%s\n\n" % (head(number, event), event.data)


def head(number: int, event: Event) -> bytes:
    """The beginning of an event, up to its data."""
    return b"id: %d\nevent: %s\ndata: " % (number, event.name.encode())


def last_event_id(header: str | None, newest: int) -> int:
    """The event a client has seen last; 0 (replay all) for none, for nonsense and for what was never sent."""
    if header is None or not header.isascii() or not header.isdigit() or len(header) > 20:
        return 0
    number = int(header)
    return number if number <= newest else 0
