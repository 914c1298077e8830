"""`engine.loop.serve` on a real pipe: the test is the front, a thread is the engine's main thread."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

import pytest
import torch

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.loop import Engine, FrontGoneError, send, serve
from rbee_sd.engine.models import only
from rbee_sd.messages import (
    Cancel,
    Cancelled,
    Finished,
    Message,
    Progress,
    ProtocolError,
    Pulse,
    Ready,
    Shutdown,
    Started,
    decode,
    encode,
)
from tests.engine.bench import TOLERANCE, config, difference, picture, pixels, work

DEADLINE = 30.0

M = TypeVar("M", bound=Message)


class Front:
    """The other end of the pipe. `said` holds everything heard so far."""

    def __init__(self) -> None:
        self.pipe, self._engines_end = multiprocessing.Pipe()
        self.said: list[Message] = []
        self.ended_with: BaseException | None = None
        self.gradients: bool | None = None
        self.model: Diffusion | None = None
        self._thread = threading.Thread(target=self._be_engine, args=(self._engines_end,))

    def start(self) -> None:
        """Let the engine begin. What was sent before lies in the pipe."""
        self._thread.start()

    def tell(self, *commands: Message) -> None:
        """Send commands, in one go."""
        for command in commands:
            self.pipe.send_bytes(encode(command))

    def hear(self, kind: type[M], job_id: str | None = None) -> M:
        """Listen until the engine says something of this kind."""
        deadline = time.monotonic() + DEADLINE
        while True:
            assert self.pipe.poll(deadline - time.monotonic()), f"no {kind.__name__} in {self.said}"
            message = decode(self.pipe.recv_bytes())
            self.said.append(message)
            if isinstance(message, kind) and job_id in (None, getattr(message, "job_id", None)):
                return message

    def shut_down(self) -> None:
        """Say Shutdown, and hear the engine out until it has left."""
        self.tell(Shutdown())
        while True:
            assert self.pipe.poll(DEADLINE)
            try:
                self.said.append(decode(self.pipe.recv_bytes()))
            except EOFError:
                break
        self.join()
        assert self.ended_with is None

    def join(self) -> None:
        """Wait until the engine has left its loop."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """Hang up, whatever the engine is doing."""
        self.pipe.close()
        if self._thread.ident is not None:
            self.join()

    @property
    def forwards(self) -> int:
        """The denoiser's calls, as last told."""
        return [said.forwards for said in self.said if isinstance(said, Pulse)][-1]

    def steps(self, job_id: str) -> list[int]:
        """The steps that were told of a job."""
        return [said.step for said in self.said if isinstance(said, Progress) and said.job_id == job_id]

    def _be_engine(self, pipe: Connection) -> None:
        try:
            # As in the engine process: the model is loaded by the thread that runs it.
            self.model = load(config("demo"))
            emit = partial(send, pipe)
            serve(pipe, Engine(only(self.model, emit), emit))
        except (FrontGoneError, ProtocolError) as error:
            self.ended_with = error
        finally:
            self.gradients = torch.is_grad_enabled()
            pipe.close()


@pytest.fixture
def front() -> Iterator[Front]:
    """A front whose engine waits to be started."""
    front = Front()
    yield front
    front.close()


def test_a_job_goes_in_and_its_steps_and_picture_come_out(front: Front, model: Diffusion) -> None:
    front.start()
    front.tell(work("a", steps=5))
    finished = front.hear(Finished)
    assert front.steps("a") == [1, 2, 3, 4, 5]
    assert difference(pixels(finished.images[0]), picture(model, steps=5)) <= TOLERANCE
    front.shut_down()
    assert front.forwards == 5
    assert front.gradients is False


def test_two_jobs_are_stepped_together_and_one_that_is_cancelled_leaves_the_other(
    front: Front, model: Diffusion
) -> None:
    front.tell(work("a", steps=8), work("b", steps=150, seed=2), Cancel("never known"))
    front.start()
    front.hear(Progress, "b")
    front.tell(Cancel("b"))
    cancelled = front.hear(Cancelled)
    assert cancelled.job_id == "b"
    finished = front.hear(Finished)
    assert finished.job_id == "a"
    assert difference(pixels(finished.images[0]), picture(model, steps=8)) <= TOLERANCE
    assert front.steps("a") == list(range(1, 9))
    assert front.steps("b") == list(range(1, cancelled.step + 1))
    turns = [said.job_id for said in front.said if isinstance(said, Progress)]
    assert turns[: 2 * cancelled.step] == ["a", "b"] * cancelled.step
    front.shut_down()
    assert front.forwards == max(8, cancelled.step)


def test_a_cancelled_job_stops_the_denoiser_long_before_its_end(front: Front) -> None:
    front.start()
    front.tell(work("gone", steps=150))
    front.hear(Progress)
    front.tell(Cancel("gone"), Cancel("gone"))
    cancelled = front.hear(Cancelled)
    assert cancelled.step < 150
    front.tell(work("next", steps=2))
    front.hear(Finished, "next")
    front.shut_down()
    assert front.forwards == cancelled.step + 2


def test_a_job_cancelled_in_the_same_breath_never_starts(front: Front) -> None:
    front.tell(work("gone"), Cancel("gone"), work("next"))
    front.start()
    assert front.hear(Cancelled) == Cancelled("gone", 0)
    front.hear(Finished, "next")
    assert [said.job_id for said in front.said if isinstance(said, Started)] == ["next"]


def test_shutdown_does_not_wait_for_the_jobs_in_hand(front: Front) -> None:
    front.start()
    front.tell(work("left", steps=150))
    front.hear(Progress)
    front.shut_down()
    assert front.model is not None
    assert front.model.forwards == len(front.steps("left")) < 150


@pytest.mark.parametrize("busy", [False, True])
def test_a_front_that_hangs_up_ends_the_loop(front: Front, caplog: pytest.LogCaptureFixture, busy: bool) -> None:
    front.start()
    front.tell(work("a", steps=150 if busy else 1))
    front.hear(Progress if busy else Finished)
    front.close()
    assert isinstance(front.ended_with, FrontGoneError)
    assert front.model is not None
    assert front.model.forwards < 150
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_what_only_an_engine_says_is_logged_and_ignored(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    front.tell(Ready("m", "f", "cpu", "float32", 1, 8, 8, 1, 1.0), work("a"))
    front.start()
    front.hear(Finished)
    assert "unexpected Ready" in caplog.text


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe garbage", b"\x00\x00\x00\x02{}"])
def test_garbage_from_the_front_ends_the_loop(front: Front, garbage: bytes) -> None:
    front.pipe.send_bytes(garbage)
    front.start()
    front.join()
    assert isinstance(front.ended_with, ProtocolError)
