"""`worker.worker`: what it tells an engine and makes of what that says; the test plays the engine's process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rbee_sd.messages import (
    Cancel,
    Cancelled,
    Curve,
    Event,
    Failed,
    Fatal,
    Finished,
    Generate,
    Loading,
    LoadModel,
    Message,
    Pulse,
    Ready,
    Unloaded,
    UnloadModel,
    Watch,
)
from rbee_sd.worker import worker as module
from rbee_sd.worker.room import Place, has_room, weight
from rbee_sd.worker.worker import MAX_CURVES, Health, Worker
from tests.conftest import eventually


class ScriptedProcess:
    """Stands in for an engine's process: keeps what is sent, and says what the test wants."""

    pid = 4711

    def __init__(
        self, _target: Any, _config: Any, say: Callable[[Message], None], leave: Callable[[int | None], None]
    ) -> None:
        self.say, self.leave = say, leave
        self.sent: list[Message] = []
        self.killed = False
        self.listening: bool | None = None

    def send(self, message: Message) -> None:
        """See `EngineProcess`."""
        self.sent.append(message)

    async def stop(self, listening: bool) -> None:
        """See `EngineProcess`."""
        self.listening = listening

    def kill(self) -> None:
        """See `EngineProcess`; the test says when it is dead."""
        self.killed = True


class Notes:
    """A `Listener` that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.lost_jobs: list[str] = []
        self.codes: list[str] = []

    def said(self, message: Event) -> None:
        """See `Listener`."""
        self.heard.append(message)

    def narrate(self, text: str) -> None:
        """See `Listener`."""

    def ready(self) -> None:
        """See `Listener`."""

    def lost(self, job_ids: Iterable[str], code: str) -> None:
        """See `Listener`."""
        self.lost_jobs += job_ids
        self.codes.append(code)

    def refuse(self, code: str, message: str) -> None:
        """See `Listener`."""


class Bench:
    """A worker, its listener and the engines it has started."""

    def __init__(self, cancel_timeout: float, step_timeout: float = 60.0, load_timeout: float = 60.0) -> None:
        self.notes = Notes()
        self.worker = Worker(lambda *_: None, None, self.notes, cancel_timeout, step_timeout, load_timeout, max_jobs=8)

    @property
    def engine(self) -> ScriptedProcess:
        """The engine that lives."""
        process: Any = self.worker._process
        assert isinstance(process, ScriptedProcess)
        return process

    def start(self, capacity: int) -> None:
        """Start an engine that is ready for so many jobs."""
        self.worker.start()
        self.engine.say(Ready("demo", "sd", "cpu", "float32", capacity, 64, 64, 20, 7.5))

    def submit(self, job_id: str, priority: int = 0, owner: str = "", **size: Any) -> None:
        """Begin a job."""
        self.worker.submit(Generate(job_id, "a", "", 5, priority=priority, owner=owner, **size))

    def takes(self, *priorities: int, owner: str = "") -> list[bool]:
        """Whether it takes a job of each of these priorities."""
        return [self.worker.takes(priority, owner) for priority in priorities]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A worker whose engine takes three jobs at once."""
    monkeypatch.setattr(module, "EngineProcess", ScriptedProcess)
    bench = Bench(cancel_timeout=0.05)
    bench.start(3)
    return bench


def curve(side: int, cap: int = 8) -> Curve:
    """A measurement for square images."""
    return Curve(side, side, (2, 4), (10.0, 14.5), cap)


async def test_the_first_of_another_owner_is_taken_when_all_places_are(bench: Bench) -> None:
    for number in range(3):
        bench.submit(f"job {number}")
    assert bench.takes(0) == [False]
    assert bench.takes(0, -5, owner="another") == [True, True]
    bench.submit("of another", -5, "another")
    assert bench.takes(0, owner="another") == [True]
    assert bench.takes(-5, owner="another") == [False]


async def test_an_engine_takes_as_many_jobs_as_it_says(bench: Bench) -> None:
    for number in range(3):
        assert bench.takes(0, -5) == [True, True]
        bench.submit(f"job {number}")
    assert bench.takes(0, -5) == [False, False]
    with pytest.raises(RuntimeError):
        bench.submit("one more")
    bench.engine.say(Finished("job 1", (b"png",)))
    assert bench.takes(0, -5) == [True, True]
    assert bench.worker.in_flight == 2


async def test_small_pictures_come_in_where_one_of_the_models_own_size_has_room(bench: Bench) -> None:
    # The model's own is 64 x 64, and there is room for three.
    bench.submit("own size")
    bench.submit("larger", width=128, height=128)
    for number in range(4):
        assert bench.worker.takes(0, "", "", 32 * 32)
        bench.submit(f"small {number}", width=32, height=32)
    assert not bench.worker.takes(0, "", "", 8 * 8)
    # A large one does not wait for small ones, but for those of its size.
    assert bench.takes(0) == [True]
    bench.submit("own size again")
    assert bench.takes(0) == [False]
    bench.engine.say(Finished("own size", (b"png",)))
    assert not bench.worker.takes(0, "", "", 32 * 32)
    bench.engine.say(Finished("small 0", (b"png",)))
    assert bench.worker.takes(0, "", "", 32 * 32)


@pytest.mark.parametrize("priority", [0, 5])
def test_small_pictures_do_not_keep_a_large_one_out_however_many_come(priority: int) -> None:
    small = [Place(0, f"owner {number}", weight=0.25) for number in range(8)]
    assert has_room(small, Place(priority, "another", weight=1.0), 1, 8)
    # Of an owner who has others there: as soon as one of them ends, since it is first in line.
    large = Place(0, "owner 0", weight=1.0)
    assert not has_room(small, large, 1, 8)
    assert has_room(small[1:], large, 1, 8)
    assert has_room(small[:7], large, 1, 8)
    # Nor do large ones add up to more than there is room for.
    assert not has_room([*small[:3], large], Place(0, "owner 0", weight=1.0), 1, 8)
    assert not has_room([*small[:3], large, large], Place(priority, "another", weight=1.0), 1, 8)
    assert not has_room([*small[:3], large], small[0], 1, 8)


async def test_however_small_they_are_no_more_jobs_come_in_than_the_setting_says(bench: Bench) -> None:
    for number in range(8):
        bench.submit(f"small {number}", width=8, height=8)
    assert not bench.worker.takes(0, "", "", 8 * 8)
    assert bench.worker.takes(1, "", "", 8 * 8)


@pytest.mark.parametrize("side", [8, 24, 40, 56])
def test_what_pictures_count_adds_up_without_losing_the_last_place(side: int) -> None:
    places = [Place(0, weight=weight(side * side, 3 * side * side)) for _ in range(2)]
    assert has_room(places, places[0], 1, 8)
    assert not has_room([*places, places[0]], places[0], 1, 8)


async def test_a_higher_priority_is_taken_when_all_places_are_and_twice_as_many_at_most(bench: Bench) -> None:
    for number in range(3):
        bench.submit(f"low {number}")
    for number in range(3):
        assert bench.takes(0, 1) == [False, True]
        bench.submit(f"high {number}", 1)
    assert bench.takes(0, 1, 2, 100) == [False] * 4
    # A low one that ends makes room for a third rank, not for its own.
    bench.engine.say(Cancelled("low 0", 0))
    assert bench.takes(0, 1, 2) == [False, False, True]
    for number in range(3):
        bench.engine.say(Finished(f"high {number}", ()))
    assert bench.takes(0) == [True]


async def test_nothing_is_taken_by_an_engine_that_is_not_ready(bench: Bench) -> None:
    bench.engine.leave(1)
    assert bench.takes(0, 100) == [False, False]
    with pytest.raises(RuntimeError):
        bench.submit("early")
    bench.worker.start()
    assert bench.takes(0) == [False]
    await bench_stops(bench)


async def test_an_engine_that_dies_loses_every_job_it_had(bench: Bench) -> None:
    bench.submit("a")
    bench.submit("b", 1)
    bench.worker.cancel("b")
    bench.engine.leave(-9)
    assert bench.notes.lost_jobs == ["a", "b"]
    assert bench.worker.in_flight == 0
    bench.start(3)
    # The time that was left for the cancelled one is not held against the next engine.
    bench.submit("c")
    over = asyncio.get_running_loop().time() + 0.1
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert not bench.engine.killed
    await bench_stops(bench)


async def test_an_engine_that_is_silent_at_work_is_replaced_and_its_jobs_are_told_why(bench: Bench) -> None:
    silent = Bench(cancel_timeout=60, step_timeout=0.08)
    silent.start(3)
    over = asyncio.get_running_loop().time() + 0.2
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert not silent.engine.killed
    silent.submit("a")
    await eventually(lambda: silent.engine.killed)
    assert str(silent.worker.health) == "engine stalled"
    assert silent.takes(0) == [False]
    silent.engine.leave(-9)
    assert (silent.notes.lost_jobs, silent.notes.codes) == (["a"], ["engine_stalled"])
    assert str(silent.worker.health) == "engine restarting"
    assert "did not finish a step within 0.08 s" in silent.worker.detail
    await bench_stops(silent)


async def test_an_engine_is_replaced_no_more_once_its_jobs_have_ended(bench: Bench) -> None:
    quiet = Bench(cancel_timeout=60, step_timeout=0.08)
    quiet.start(3)
    quiet.submit("a")
    quiet.engine.say(Finished("a", ()))
    over = asyncio.get_running_loop().time() + 0.2
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert not quiet.engine.killed


async def test_a_job_is_cancelled_once_and_only_while_it_is_in_the_engine(bench: Bench) -> None:
    bench.submit("a")
    bench.submit("b")
    for job_id in ("a", "a", "unknown"):
        bench.worker.cancel(job_id)
    assert bench.engine.sent[2:] == [Cancel("a")]
    # Its place is taken until the engine has let it go.
    bench.submit("c")
    assert bench.takes(0) == [False]
    bench.engine.say(Cancelled("a", 3))
    assert bench.takes(0) == [True]
    bench.worker.cancel("a")
    assert len(bench.engine.sent) == 4


async def test_an_engine_that_holds_on_to_one_of_several_cancelled_jobs_is_replaced(bench: Bench) -> None:
    for job_id in ("a", "b", "c"):
        bench.submit(job_id)
    bench.worker.cancel("a")
    bench.worker.cancel("b")
    bench.engine.say(Cancelled("a", 0))
    engine = bench.engine
    await eventually(lambda: engine.killed)
    engine.leave(-9)
    assert bench.notes.lost_jobs == ["b", "c"]
    assert bench.worker.health is Health.RESTARTING
    await bench_stops(bench)


async def test_an_engine_that_lets_all_cancelled_jobs_go_lives(bench: Bench) -> None:
    for job_id in ("a", "b", "c"):
        bench.submit(job_id)
        bench.worker.cancel(job_id)
    for job_id in ("b", "c", "a"):
        bench.engine.say(Cancelled(job_id, 0))
    over = asyncio.get_running_loop().time() + 0.1
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert not bench.engine.killed


async def test_who_watches_is_told_to_the_engine_that_has_the_job(bench: Bench) -> None:
    bench.submit("a")
    bench.worker.watch("a", True)
    bench.worker.watch("unknown", True)
    bench.worker.watch("a", False)
    bench.engine.say(Finished("a", ()))
    bench.worker.watch("a", True)
    assert bench.engine.sent[1:] == [Watch("a", True), Watch("a", False)]
    bench.engine.leave(0)
    bench.worker.watch("a", True)
    await bench_stops(bench)


async def test_curves_are_kept_for_each_size_and_end_with_their_engine(bench: Bench) -> None:
    states = [bench.worker.curves]
    for each in (curve(64), curve(512), curve(64, cap=16)):
        bench.engine.say(each)
    states.append(bench.worker.curves)
    assert bench.notes.heard == []
    bench.engine.leave(1)
    states.append(bench.worker.curves)
    assert states == [(), (curve(512), curve(64, cap=16)), ()]
    await bench_stops(bench)


async def test_no_more_curves_are_kept_than_there_is_room_for(bench: Bench) -> None:
    for side in range(1, 3 * MAX_CURVES + 1):
        bench.engine.say(curve(side))
        bench.engine.say(curve(1))
    kept = bench.worker.curves
    assert len(kept) == MAX_CURVES
    # The one that was measured again and again is among them, though its size was the first.
    assert [each.width for each in kept][-2:] == [3 * MAX_CURVES, 1]


async def test_the_pulse_is_the_engines_latest_and_ends_with_it(bench: Bench) -> None:
    bench.engine.say(Pulse(3, 6, 0.5, 1.0))
    bench.engine.say(Pulse(5, 12, 0.75, 1.0))
    assert bench.worker.pulse == Pulse(5, 12, 0.75, 1.0)
    assert bench.notes.heard == []
    bench.engine.leave(1)
    assert bench.worker.pulse == Pulse(0)
    await bench_stops(bench)


def ready(model: str, capacity: int = 1) -> Ready:
    """A model that was loaded."""
    return Ready(model, "sd", "cpu", "float32", capacity, 64, 64, 20, 7.5)


async def test_each_model_has_places_of_its_own_once_it_is_loaded(bench: Bench) -> None:
    for number in range(3):
        bench.submit(f"job {number}")
    assert [bench.worker.takes(0, "", model) for model in ("", "demo", "xl")] == [False, False, True]
    bench.worker.submit(Generate("xl", "a", "", 5, model="xl"))
    # Until it is known how many pay, it takes one; and one such model at a time, unless the other is more urgent.
    assert [bench.worker.takes(0, "", model) for model in ("xl", "flux")] == [False, False]
    assert bench.worker.takes(1, "", "flux")
    bench.engine.say(ready("xl", 2))
    assert [bench.worker.takes(0, "", model) for model in ("xl", "flux")] == [True, True]
    assert bench.worker.loaded == {"demo", "xl"}
    assert bench.worker.model is not None
    assert bench.worker.model.model == "demo"


async def test_what_is_known_of_a_model_outlives_its_loading_but_not_its_removal(bench: Bench) -> None:
    bench.engine.say(ready("xl", 4))
    bench.engine.say(Unloaded("xl"))
    assert (bench.worker.loaded, bench.worker.known["xl"].capacity) == ({"demo"}, 4)
    bench.engine.leave(1)
    assert (bench.worker.loaded, set(bench.worker.known)) == (set(), {"demo", "xl"})
    bench.worker.forget("xl")
    assert set(bench.worker.known) == {"demo"}
    await bench_stops(bench)


async def test_what_is_known_of_a_loaded_model_stays_until_it_goes(bench: Bench) -> None:
    bench.worker.forget("demo")
    assert bench.worker.known["demo"].capacity == 3


async def test_an_engine_that_loads_is_not_replaced_however_long_it_is_silent_and_holds_on(bench: Bench) -> None:
    loading = Bench(cancel_timeout=0.05, step_timeout=0.08)
    loading.start(3)
    loading.submit("a")
    loading.engine.say(Loading("xl"))
    loading.worker.cancel("a")
    assert loading.takes(0, 100) == [False, False]
    over = asyncio.get_running_loop().time() + 0.3
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert not loading.engine.killed
    loading.engine.say(ready("xl"))
    # Now it has the time that it always has.
    assert not loading.engine.killed
    await eventually(lambda: loading.engine.killed)
    loading.engine.leave(-9)
    await bench_stops(loading)


async def test_a_model_that_could_not_be_loaded_ends_the_loading(bench: Bench) -> None:
    bench.engine.say(Loading("xl"))
    assert bench.takes(0) == [False]
    bench.engine.say(Unloaded("xl"))
    assert bench.takes(0) == [True]


async def test_an_order_is_answered_by_the_engine_or_by_its_death(bench: Bench) -> None:
    async def asked(job_id: str) -> asyncio.Task[Failed | None]:
        task = asyncio.create_task(bench.worker.order(LoadModel(job_id, "xl", "/xl")))
        await eventually(lambda: bench.engine.sent and bench.engine.sent[-1] == LoadModel(job_id, "xl", "/xl"))
        return task

    done = await asked("done")
    bench.engine.say(Finished("done", ()))
    assert await done is None
    failed = await asked("failed")
    bench.engine.say(Failed("failed", "model_failed", "broken"))
    assert await failed == Failed("failed", "model_failed", "broken")
    gone = await asked("gone")
    gone.cancel()
    await eventually(lambda: bench.engine.sent[-1] == Cancel("gone"))
    lost = await asked("lost")
    bench.engine.leave(-9)
    answer = await lost
    assert answer is not None
    assert answer.code == "engine_crashed"
    # Nothing is loaded now, so there is nothing to let go of; but to load waits for the next engine.
    assert await bench.worker.order(UnloadModel("unload", "xl")) is None
    waiting = asyncio.create_task(bench.worker.order(LoadModel("waiting", "xl", "/xl")))
    bench.start(3)
    await eventually(lambda: bench.engine.sent == [LoadModel("waiting", "xl", "/xl")])
    bench.engine.say(Finished("waiting", ()))
    assert await waiting is None
    assert bench.notes.heard == []
    await bench_stops(bench)


async def test_an_engine_whose_load_never_ends_is_replaced_and_its_jobs_begin_again(bench: Bench) -> None:
    hung = Bench(cancel_timeout=60, load_timeout=0.08)
    hung.start(3)
    hung.submit("a")
    hung.engine.say(Loading("xl"))
    ordered = asyncio.create_task(hung.worker.order(LoadModel("order", "xl", "/xl")))
    # Whatever it says meanwhile.
    hung.engine.say(Pulse(1, 1, 0.5, 1.0))
    await eventually(lambda: hung.engine.killed)
    assert str(hung.worker.health) == "engine stalled"
    assert "did not load a model within 0.08 s" in hung.worker.detail
    hung.engine.leave(-9)
    assert (hung.notes.lost_jobs, hung.notes.codes) == (["a"], ["engine_stalled"])
    answer = await ordered
    assert answer is not None
    assert answer.code == "engine_stalled"
    await bench_stops(hung)


async def test_a_load_that_ends_in_time_kills_nobody(bench: Bench) -> None:
    quick = Bench(cancel_timeout=60, load_timeout=0.08)
    quick.start(3)
    for end in (ready("xl"), Unloaded("xl")):
        quick.engine.say(Loading("xl"))
        quick.engine.say(end)
    over = asyncio.get_running_loop().time() + 0.2
    await eventually(lambda: asyncio.get_running_loop().time() > over)
    assert not quick.engine.killed


async def test_what_an_engine_says_that_is_being_replaced_makes_it_no_other_ones_state(bench: Bench) -> None:
    bench.submit("a")
    bench.worker.cancel("a")
    await eventually(lambda: bench.engine.killed)
    dying = bench.engine
    for late in (Loading("xl"), ready("xl"), Fatal("model_failed", "broken")):
        dying.say(late)
    assert (bench.worker.health, bench.worker.loading) == (Health.RESTARTING, "")
    assert bench.worker.model is not None
    assert bench.worker.model.model == "demo"
    dying.leave(-9)
    await bench_stops(bench)
    assert bench.worker.deaths["stuck"] == 1
    bench.start(3)
    assert bench.takes(0) == [True]


async def test_an_order_waits_for_the_engine_after_one_that_is_being_replaced(bench: Bench) -> None:
    bench.submit("a")
    bench.worker.cancel("a")
    await eventually(lambda: bench.engine.killed)
    dying = bench.engine
    sent = len(dying.sent)
    ordered = asyncio.create_task(bench.worker.order(LoadModel("order", "xl", "/xl")))
    await asyncio.sleep(0)
    dying.leave(-9)
    await bench_stops(bench)
    bench.worker.start()
    brief = bench.engine
    # Ready and dead in one turn of the loop: the order is not for that one either.
    brief.say(ready("demo"))
    brief.leave(-9)
    await bench_stops(bench)
    bench.start(3)
    await eventually(lambda: bench.engine.sent == [LoadModel("order", "xl", "/xl")])
    assert (len(dying.sent), brief.sent) == (sent, [])
    bench.engine.say(Finished("order", ()))
    assert await ordered is None


async def test_an_order_fails_when_the_default_model_does(bench: Bench) -> None:
    bench.engine.leave(1)
    await bench_stops(bench)
    bench.worker.start()
    ordered = asyncio.create_task(bench.worker.order(LoadModel("order", "xl", "/xl")))
    await asyncio.sleep(0)
    bench.engine.say(Fatal("model_failed", "broken"))
    assert await ordered == Failed("order", "model_failed", "broken")


async def test_the_answer_to_an_order_that_was_taken_back_is_told_to_nobody(bench: Bench) -> None:
    ordered = asyncio.create_task(bench.worker.order(LoadModel("order", "xl", "/xl")))
    await eventually(lambda: bench.engine.sent)
    ordered.cancel()
    await eventually(ordered.done)
    bench.engine.say(Finished("order", ()))
    assert bench.notes.heard == []


async def test_an_engine_that_loads_is_spared_the_message_to_stop(bench: Bench) -> None:
    bench.engine.say(Loading("xl"))
    await bench.worker.stop()
    assert bench.engine.listening is False


async def bench_stops(bench: Bench) -> None:
    """No engine is started any more."""
    restart = bench.worker._restart
    if restart is not None:
        restart.cancel()
