"""What the tests over sockets share: a server with the settings and faults that a test's marks name, and raw sockets.

`@pytest.mark.settings(heartbeat=0.1)` changes settings of the fixture `server`; `@pytest.mark.faults({"slow": "0.05"})`
switches faults on before it starts. Whatever a test makes a server answer must be in the OpenAPI document.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest
from tornado.ioloop import IOLoop

from rbee_sd.server import Server
from tests.conftest import Faults, MakeServer
from tests.documented import statuses
from tests.http.wire import Wire


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of this folder."""
    config.addinivalue_line("markers", "settings(**changes): settings of this test's server")
    config.addinivalue_line("markers", "faults(texts): faults that are on when this test's server starts")


@pytest.fixture
def server(request: pytest.FixtureRequest, make_server: MakeServer, faults: Faults) -> Server:
    """A worker with short times, changed by the test's marks."""
    settings = {"disconnect_grace": 0.3, "heartbeat": 0.5}
    mark = request.node.get_closest_marker("faults")
    for fault, text in mark.args[0].items() if mark else ():
        faults.on(fault, text)
    mark = request.node.get_closest_marker("settings")
    return make_server(**{**settings, **(mark.kwargs if mark else {})})


Dial = Callable[..., Awaitable[Wire]]


@pytest.fixture
def dial(io_loop: IOLoop) -> Iterator[Dial]:
    """Open raw connections, `await dial(server)`; closed with the test."""
    wires: list[Wire] = []

    async def connect(server: Server, receive_buffer: int | None = None) -> Wire:
        wire = await Wire.to(server, receive_buffer)
        wires.append(wire)
        return wire

    yield connect
    for wire in wires:
        wire.close()


class Undocumented(logging.Handler):
    """Reads the access log and keeps the answers that the OpenAPI document does not know."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.answers: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """One request has ended."""
        assert isinstance(record.args, tuple)
        _, method, uri, status, *_ = record.args
        # Defects, which some tests make, are in no document.
        if status != 500 and status not in statuses(str(method), str(uri).partition("?")[0]):
            self.answers.add(f"{method} {uri}: {status}")


@pytest.fixture(autouse=True)
def undocumented(request: pytest.FixtureRequest) -> Iterator[Undocumented]:
    """Fails a test in which a server answers what the document does not say it may.

    A module that has routes of its own names them in `OWN_ROUTES`.
    """
    own = getattr(request.module, "OWN_ROUTES", ())
    log = logging.getLogger("rbee_sd.access")
    found = Undocumented()
    level = log.level
    log.addHandler(found)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(found)
    log.setLevel(level)
    assert {answer for answer in found.answers if answer.split()[1].rstrip(":") not in own} == set()
