"""`jobs.event_log`: numbers, cursors, and waiting without losing or repeating an event."""

from __future__ import annotations

import asyncio
import gc

import pytest

from rbee_sd.jobs.event_log import Cursor, Event, EventLog
from tests.conftest import eventually
from tests.unit.conftest import seeded


def event(number: int) -> Event:
    """An event that tells its number."""
    return Event("progress", b"%d" % number)


def filled(count: int, first: int = 1, limit: int | None = None) -> EventLog:
    """A log with `count` events, each telling the number it should have."""
    log = EventLog(first, limit)
    for number in range(first, first + count):
        log.append(event(number))
    return log


def numbers(taken: list[tuple[int, Event]]) -> list[int]:
    """The numbers of what was taken, after a look that each is the event's own."""
    assert all(entry.data == b"%d" % number for number, entry in taken)
    return [number for number, _ in taken]


def test_events_are_numbered_from_one() -> None:
    log = filled(3)
    assert (log.first, log.last) == (1, 3)
    assert numbers(log.after(0)) == [1, 2, 3]


def test_an_empty_log_has_no_event_and_its_last_is_before_its_first() -> None:
    log = EventLog()
    assert (log.first, log.last) == (1, 0)
    assert log.after(0) == []
    assert log.open().take() == []


def test_numbering_can_begin_anywhere() -> None:
    log = filled(3, first=1000)
    assert (log.first, log.last) == (1000, 1002)
    assert numbers(log.after(0)) == [1000, 1001, 1002]
    assert numbers(log.after(1001)) == [1002]


@pytest.mark.parametrize("number", range(-2, 12))
def test_resuming_after_any_id_gives_each_later_event_once_and_in_order(number: int) -> None:
    log = filled(8)
    expected = [n for n in range(1, 9) if n > number]
    assert numbers(log.after(number)) == expected
    assert numbers(log.open(after=number).take()) == expected


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_limit_keeps_only_the_newest_and_their_numbers(limit: int) -> None:
    log = filled(20, limit=limit)
    assert (log.first, log.last) == (21 - limit, 20)
    assert numbers(log.after(0)) == list(range(21 - limit, 21))
    assert numbers(log.after(19)) == [20]


def test_a_log_below_its_limit_drops_nothing() -> None:
    log = filled(5, limit=5)
    assert numbers(log.after(0)) == [1, 2, 3, 4, 5]
    log.append(event(6))
    assert numbers(log.after(0)) == [2, 3, 4, 5, 6]


def test_a_late_cursor_reads_everything_and_an_early_one_each_event_once() -> None:
    log = EventLog()
    early = log.open()
    log.append(event(1))
    assert numbers(early.take()) == [1]
    assert early.take() == []
    log.append(event(2))
    log.append(event(3))
    late = log.open()
    assert numbers(late.take()) == [1, 2, 3]
    assert numbers(early.take()) == [2, 3]


def test_a_slow_cursor_on_a_limited_log_skips_what_is_gone_and_repeats_nothing() -> None:
    log = filled(2, limit=3)
    cursor = log.open()
    assert numbers(cursor.take()) == [1, 2]
    for number in range(3, 10):
        log.append(event(number))
    assert numbers(cursor.take()) == [7, 8, 9]
    assert cursor.take() == []


def test_a_cursor_opened_at_the_end_reads_only_what_comes() -> None:
    log = filled(4)
    cursor = log.open(after=log.last)
    assert cursor.take() == []
    log.append(event(5))
    assert numbers(cursor.take()) == [5]


@pytest.mark.parametrize("limit", [None, 4])
def test_any_number_of_cursors_at_random_moments_see_every_event_once(limit: int | None) -> None:
    chance = seeded(1)
    for _ in range(200):
        log = EventLog(limit=limit)
        readers: list[tuple[Cursor, int, list[int]]] = []
        for _ in range(chance.randrange(5, 40)):
            match chance.randrange(3):
                case 0:
                    log.append(event(log.last + 1))
                case 1:
                    after = chance.choice((None, chance.randrange(0, log.last + 1)))
                    readers.append((log.open(after), log.first - 1 if after is None else after, []))
                case _:
                    for cursor, _, seen in readers:
                        seen += numbers(cursor.take())
        log.close()
        for cursor, after, seen in readers:
            seen += numbers(cursor.take())
            assert cursor.exhausted
            assert seen == sorted(set(seen))
            if limit is None:
                assert seen == list(range(after + 1, log.last + 1))


def test_appending_to_a_closed_log_is_a_mistake() -> None:
    log = filled(2)
    log.close()
    log.close()
    with pytest.raises(RuntimeError):
        log.append(event(3))
    assert numbers(log.after(0)) == [1, 2]


def test_a_cursor_is_exhausted_only_when_the_log_is_closed_and_all_was_taken() -> None:
    log = filled(2)
    cursor = log.open()
    states = [cursor.exhausted]
    cursor.take()
    states.append(cursor.exhausted)
    log.close()
    states.append(cursor.exhausted)
    late = log.open()
    states.append(late.exhausted)
    late.take()
    states.append(late.exhausted)
    assert states == [False, False, True, False, True]


async def test_waiting_returns_at_once_when_there_is_something_to_take() -> None:
    cursor = filled(1).open()
    assert await cursor.wait(0) is True
    assert await cursor.wait(0) is True
    cursor.take()
    assert await cursor.wait(0) is False


async def test_waiting_returns_at_once_on_a_closed_log_or_cursor() -> None:
    log = EventLog()
    cursor = log.open()
    cursor.close()
    assert await cursor.wait(0) is True
    other = log.open()
    log.close()
    assert await other.wait(0) is True


async def test_an_event_wakes_every_waiting_cursor() -> None:
    log = EventLog()
    cursors = [log.open() for _ in range(50)]
    waits = [asyncio.create_task(cursor.wait(30)) for cursor in cursors]
    await asyncio.sleep(0)
    log.append(event(1))
    assert await asyncio.gather(*waits) == [True] * 50
    assert all(numbers(cursor.take()) == [1] for cursor in cursors)


async def test_closing_the_log_wakes_every_waiting_cursor() -> None:
    log = EventLog()
    cursors = [log.open() for _ in range(5)]
    waits = [asyncio.create_task(cursor.wait(30)) for cursor in cursors]
    await asyncio.sleep(0)
    log.close()
    assert await asyncio.gather(*waits) == [True] * 5
    assert all(cursor.exhausted for cursor in cursors)


async def test_closing_a_cursor_ends_its_own_wait_and_no_other() -> None:
    log = EventLog()
    leaving, staying = log.open(), log.open()
    waits = [asyncio.create_task(cursor.wait(30)) for cursor in (leaving, staying)]
    await asyncio.sleep(0)
    leaving.close()
    leaving.close()
    assert await waits[0] is True
    assert leaving.closed
    assert not waits[1].done()
    log.append(event(1))
    assert await waits[1] is True


async def test_a_wait_that_times_out_loses_nothing_that_comes_after() -> None:
    log = EventLog()
    cursor = log.open()
    assert await cursor.wait(0.01) is False
    log.append(event(1))
    assert await cursor.wait(30) is True
    assert numbers(cursor.take()) == [1]


async def test_the_timeout_of_an_earlier_wait_does_not_end_a_later_one() -> None:
    log, loop = EventLog(), asyncio.get_running_loop()
    cursor = log.open()
    over = loop.time() + 0.03
    earlier = asyncio.create_task(cursor.wait(0.02))
    await asyncio.sleep(0)
    log.append(event(1))
    assert await earlier is True
    cursor.take()
    later = asyncio.create_task(cursor.wait(30))
    await eventually(lambda: loop.time() > over)
    assert not later.done()
    cursor.close()
    assert await later is True


async def test_events_in_the_tick_of_a_timeout_are_not_lost() -> None:
    for _ in range(50):
        log = EventLog()
        cursor = log.open()
        wait = asyncio.create_task(cursor.wait(0))
        asyncio.get_running_loop().call_later(0, log.append, event(1))
        await wait
        await eventually(lambda log=log: log.last == 1)  # type: ignore[misc]
        assert await cursor.wait(0) is True
        assert numbers(cursor.take()) == [1]


async def test_several_events_before_the_waiter_runs_are_taken_together() -> None:
    log = EventLog()
    cursor = log.open()
    wait = asyncio.create_task(cursor.wait(30))
    await asyncio.sleep(0)
    for number in (1, 2, 3):
        log.append(event(number))
    log.close()
    assert await wait is True
    assert numbers(cursor.take()) == [1, 2, 3]
    assert cursor.exhausted


async def test_a_cancelled_wait_leaves_the_cursor_and_the_log_usable() -> None:
    log = EventLog()
    cursor = log.open()
    wait = asyncio.create_task(cursor.wait(30))
    await asyncio.sleep(0)
    wait.cancel()
    # In the same tick: the waiter is cancelled but its task has not run yet.
    log.append(event(1))
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert numbers(cursor.take()) == [1]
    again = asyncio.create_task(cursor.wait(30))
    await asyncio.sleep(0)
    log.append(event(2))
    assert await again is True
    assert numbers(cursor.take()) == [2]


async def test_a_follower_gets_every_event_however_it_is_interleaved() -> None:
    chance = seeded(2)
    log = EventLog()
    seen: list[list[int]] = [[] for _ in range(10)]

    async def follow(into: list[int]) -> None:
        cursor = log.open()
        while not cursor.exhausted:
            into += numbers(cursor.take())
            if not cursor.exhausted:
                await cursor.wait(chance.choice((0, 0.0001, 30)))
        cursor.close()

    followers = [asyncio.create_task(follow(into)) for into in seen]
    for number in range(1, 201):
        log.append(event(number))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    log.close()
    await asyncio.gather(*followers)
    assert seen == [list(range(1, 201))] * 10


def test_a_log_holds_no_cursor_that_was_closed() -> None:
    log = filled(3)

    def held() -> int:
        gc.collect()
        return sum(type(thing) is Cursor and thing._log is log for thing in gc.get_objects())

    cursors = [log.open() for _ in range(100)]
    assert held() == 100
    for cursor in cursors:
        cursor.close()
    del cursor, cursors
    assert held() == 0


def test_a_dropped_event_is_gone_and_the_others_keep_their_numbers() -> None:
    log = filled(5)
    log.drop(3)
    assert (log.first, log.last) == (1, 5)
    assert numbers(log.after(0)) == [1, 2, 4, 5]
    assert [number in log for number in range(7)] == [False, True, True, False, True, True, False]
    assert log.append(event(6)) == 6
    assert numbers(log.after(2)) == [4, 5, 6]


@pytest.mark.parametrize("number", range(-1, 12))
def test_resuming_after_any_id_gives_each_later_event_that_is_kept(number: int) -> None:
    log = filled(10)
    for gone in (1, 4, 5, 10):
        log.drop(gone)
    expected = [n for n in (2, 3, 6, 7, 8, 9) if n > number]
    assert numbers(log.after(number)) == expected
    assert numbers(log.open(after=number).take()) == expected


def test_dropping_what_is_not_kept_changes_nothing() -> None:
    log = filled(6, limit=3)
    for number in (-1, 0, 1, 3, 7):
        log.drop(number)
    log.drop(5)
    log.drop(5)
    assert numbers(log.after(0)) == [4, 6]
    log.append(event(7))
    log.append(event(8))
    # Three are kept, whatever was dropped between them.
    assert numbers(log.after(0)) == [6, 7, 8]


def test_an_event_dropped_before_it_was_taken_is_skipped_and_one_taken_is_known_as_stale() -> None:
    log = filled(3)
    early, late = log.open(), log.open()
    assert numbers(early.take()) == [1, 2, 3]
    log.drop(2)
    assert [early.kept(number) for number in (1, 2, 3)] == [True, False, True]
    assert numbers(late.take()) == [1, 3]
    assert early.take() == []


def test_a_log_whose_newest_event_was_dropped_can_be_exhausted() -> None:
    log = filled(2)
    cursor, ahead = log.open(), log.open()
    ahead.take()
    log.drop(2)
    log.close()
    states = [cursor.exhausted, ahead.exhausted, log.open(after=2).exhausted]
    assert numbers(cursor.take()) == [1]
    states.append(cursor.exhausted)
    assert states == [False, True, True, True]
    assert log.last == 2


def test_a_log_whose_every_event_was_dropped_is_empty_and_goes_on() -> None:
    log = filled(2)
    cursor = log.open()
    log.drop(1)
    log.drop(2)
    assert (log.first, log.last) == (3, 2)
    assert cursor.take() == []
    log.append(event(3))
    assert numbers(cursor.take()) == [3]


async def test_waiting_for_events_that_were_dropped_is_waiting() -> None:
    log = filled(1)
    cursor = log.open()
    log.drop(1)
    assert await cursor.wait(0) is False
    wait = asyncio.create_task(cursor.wait(30))
    await asyncio.sleep(0)
    log.append(event(2))
    assert await wait is True
    log.drop(2)
    assert cursor.take() == []
    assert await cursor.wait(0) is False


def test_ten_thousand_events_each_dropped_for_the_next_keep_one() -> None:
    log = filled(3)
    for _ in range(10_000):
        number = log.append(event(log.last + 1))
        log.drop(number - 1 if number > 4 else 0)
    assert numbers(log.after(0)) == [1, 2, 3, 10_003]
    assert len(log._numbers) == len(log._events) == 4


@pytest.mark.parametrize("limit", [None, 4])
def test_cursors_at_random_moments_see_what_is_kept_once_and_in_order(limit: int | None) -> None:
    chance = seeded(5)
    for _ in range(200):
        log = EventLog(limit=limit)
        kept: list[int] = []
        readers: list[tuple[Cursor, list[int]]] = []
        for _ in range(chance.randrange(5, 60)):
            match chance.randrange(4):
                case 0:
                    kept.append(log.append(event(log.last + 1)))
                    del kept[: 0 if limit is None else max(0, len(kept) - limit)]
                case 1 if log.last:
                    gone = chance.randrange(1, log.last + 1)
                    log.drop(gone)
                    kept = [number for number in kept if number != gone]
                case 2:
                    readers.append((log.open(), []))
                case _:
                    for cursor, seen in readers:
                        place = cursor._place
                        taken = numbers(cursor.take())
                        assert taken == [number for number in kept if number > place]
                        seen += taken
            assert numbers(log.after(0)) == kept
        log.close()
        for cursor, seen in readers:
            assert cursor.exhausted == (not [number for number in kept if number > cursor._place])
            seen += numbers(cursor.take())
            assert cursor.exhausted
            assert seen == sorted(set(seen))
