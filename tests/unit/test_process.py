"""`worker.process`: what its threads hold on to. The rest of it is tested with real processes."""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any

from rbee_sd.messages import Generate, encode
from rbee_sd.worker.process import EngineProcess
from tests.conftest import eventually


class Sink:
    """The end of a pipe that takes everything and keeps nothing."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def send_bytes(self, frame: bytes) -> None:
        """See `Connection`."""
        self.sizes.append(len(frame))


async def test_what_was_sent_is_not_kept_until_the_next_is() -> None:
    process: Any = EngineProcess.__new__(EngineProcess)
    process._pipe, process._outbox = Sink(), queue.SimpleQueue()
    writer = threading.Thread(target=process._write, daemon=True)
    writer.start()
    frame = encode(Generate("job", "a", "", 5, inputs=(b"i" * 100_000,)))
    ours = sys.getrefcount(frame)
    process._outbox.put(frame)
    await eventually(lambda: process._pipe.sizes == [len(frame)])
    await eventually(lambda: sys.getrefcount(frame) == ours)
    process._outbox.put(None)
    writer.join()
