"""`engine.turns`: whose turn it is, with calls that are nothing but a signature and a number of rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from rbee_sd.engine.calls import Call
from rbee_sd.engine.turns import Turns


class Rows:
    """A denoiser with so many rows a forward, and nothing else."""

    def __init__(self, cap: int) -> None:
        self._cap = cap

    def cap(self, call: Call) -> int:
        return self._cap

    def forward(self, calls: Sequence[Call]) -> list[Any]:
        raise NotImplementedError

    def is_too_large(self, error: Exception) -> bool:
        raise NotImplementedError

    def shrink(self, call: Call, rows: int) -> None:
        raise NotImplementedError

    def halve(self, call: Call) -> tuple[Call, Call]:
        raise NotImplementedError

    def join(self, first: Any, second: Any) -> Any:
        raise NotImplementedError


@dataclass(eq=False)
class Job:
    """One image that waits."""

    call: Call
    place: int = 0
    priority: int = 0
    owner: str = ""
    begun: bool = True
    left: int = 1


def job(
    place: int,
    *,
    signature: Hashable = "a",
    rows: int = 2,
    cap: int = 4,
    priority: int = 0,
    owner: str = "",
    begun: bool = True,
    left: int = 1,
) -> Job:
    """Someone who waits; by default, two of them fit a forward."""
    call = Call(Rows(cap), signature, signature, signature, rows, None, (64, 64))
    return Job(call, place, priority, owner, begun, left)


def places(chosen: list[Job]) -> list[int]:
    """Who was chosen."""
    return [each.place for each in chosen]


def test_who_came_first_goes_first() -> None:
    assert places(Turns().choose([job(3), job(1), job(2)])) == [1, 2]


def test_all_share_a_forward_that_has_rows_for_them() -> None:
    assert places(Turns().choose([job(n, cap=100) for n in range(30)])) == list(range(30))


@pytest.mark.parametrize("cap", [0, 1])
def test_one_goes_even_if_there_are_too_few_rows_for_it(cap: int) -> None:
    assert places(Turns().choose([job(1, cap=cap), job(2, cap=cap)])) == [1]


def test_one_who_is_too_wide_lets_a_narrower_one_pass() -> None:
    waiting = [job(1, rows=2, cap=3), job(2, rows=2, cap=3), job(3, rows=1, cap=3), job(4, rows=1, cap=3)]
    assert places(Turns().choose(waiting)) == [1, 3]


def test_a_higher_priority_goes_first_even_if_others_wait_longer() -> None:
    turns = Turns()
    waiting = [job(1, begun=False), job(2, owner="b"), job(3, priority=1), job(4, signature="b", priority=2)]
    assert places(turns.choose(waiting)) == [4]
    assert places(turns.choose(waiting)) == [4]
    # The owner of the first job has just had two forwards.
    assert places(turns.choose(waiting[:3])) == [3, 2]
    assert places(turns.choose(waiting[:2])) == [1, 2]


def test_a_lower_priority_fills_the_rows_that_are_left() -> None:
    assert places(Turns().choose([job(1, cap=6), job(2, cap=6), job(3, cap=6), job(4, priority=5, cap=6)])) == [4, 1, 2]


def test_two_signatures_take_turns() -> None:
    turns = Turns()
    waiting = [job(1), job(2, signature="b"), job(3), job(4, signature="b")]
    assert [places(turns.choose(waiting)) for _ in range(4)] == [[1, 3], [2, 4], [1, 3], [2, 4]]


def test_a_new_signature_goes_before_the_one_that_had_the_last_forward_and_behind_those_that_wait() -> None:
    turns = Turns()
    old = [job(1), job(2, signature="b")]
    for _ in range(5):
        turns.choose(old)
    waiting = [*old, job(3, signature="c", begun=False)]
    assert [places(turns.choose(waiting)) for _ in range(4)] == [[2], [3], [1], [2]]


def test_signatures_that_are_always_new_take_no_more_than_every_other_forward_from_an_old_one() -> None:
    turns, old = Turns(), job(0)
    turns.choose([old])
    had = sum(places(turns.choose([old, job(n, signature=n, begun=False)])) == [0] for n in range(1, 101))
    assert had == 50


def test_a_newcomers_first_step_goes_before_later_steps_of_others() -> None:
    turns = Turns()
    newcomer = job(9, begun=False)
    waiting = [job(1), job(2), newcomer]
    assert places(turns.choose(waiting)) == [9, 1]
    newcomer.begun = True
    assert places(turns.choose(waiting)) == [1, 2]


def test_newcomers_of_an_owner_go_first_in_every_other_forward_only() -> None:
    turns, running = Turns(), job(1, cap=2)
    had = [places(turns.choose([running, job(n, cap=2, begun=False)])) for n in range(2, 8)]
    assert had == [[2], [1], [4], [1], [6], [1]]


@pytest.mark.parametrize("cap", [2, 8, 16])
@pytest.mark.parametrize("images", [1, 4])
def test_endless_newcomers_of_one_owner_leave_another_at_least_every_other_forward(cap: int, images: int) -> None:
    turns, place, had = Turns(), 1, 0
    modest = job(0, owner="modest", cap=cap)
    for _ in range(200):
        # Seven jobs of one step each: whoever had it is gone, and another has come.
        crowd = [job(place + n, owner="greedy", cap=cap, begun=False) for n in range(7) for _ in range(images)]
        place += 7
        had += 0 in places(turns.choose([modest, *crowd]))
    assert had >= 100


@pytest.mark.parametrize("begun", [True, False])
def test_an_owner_with_many_signatures_has_no_more_turns_than_one_with_one(begun: bool) -> None:
    turns = Turns()
    crowd = [job(n, signature=n, owner="greedy", begun=begun) for n in range(7)]
    modest = job(9, owner="modest")
    assert sum(places(turns.choose([*crowd, modest])) == [9] for _ in range(100)) == 50


@pytest.mark.parametrize("cap, others", [(2, 1), (2, 2), (4, 2), (4, 3)])
def test_an_owner_who_shares_a_signature_with_another_has_its_turns_in_all_of_its_own(cap: int, others: int) -> None:
    turns = Turns()
    waiting = [job(0, owner="a", signature="x", cap=cap), job(1, owner="a", signature="y", cap=cap)]
    waiting += [job(2 + n, owner="b", signature="y", cap=cap) for n in range(others)]
    had = Counter(place for _ in range(200) for place in places(turns.choose(waiting)))
    assert had[0] >= 50
    assert had[1] >= 50
    assert had[2] >= 50


def test_an_owner_who_leaves_and_comes_back_does_not_get_ahead() -> None:
    turns, modest = Turns(), job(1, owner="modest", cap=2)
    had = 0
    for n in range(100):
        had += places(turns.choose([modest, job(2 + n, owner="greedy", cap=2, begun=False)])) == [1]
        # While the greedy one's picture is decoded, it waits for nothing.
        had += places(turns.choose([modest])) == [1]
    assert had >= 100


def test_owners_take_turns_whoever_has_more_jobs() -> None:
    waiting = [job(1, owner="a"), job(2, owner="a"), job(3, owner="a"), job(4, owner="b"), job(5, owner="b")]
    assert places(Turns().choose(waiting)) == [1, 4]
    assert places(Turns().choose([each for each in waiting if each.place != 4])) == [1, 5]


def test_images_of_one_job_count_as_one_for_its_owner() -> None:
    waiting = [job(1, owner="a", cap=8), job(1, owner="a", cap=8), job(2, owner="a", cap=8), job(3, owner="b", cap=8)]
    assert places(Turns().choose(waiting)) == [1, 1, 3, 2]


def test_choosing_leaves_the_line_as_it_was() -> None:
    waiting = [job(3), job(1), job(2)]
    Turns().choose(waiting)
    assert places(waiting) == [3, 1, 2]


def test_signatures_that_nobody_waits_for_are_forgotten() -> None:
    turns = Turns()
    for n in range(1000):
        turns.choose([job(n, signature=n)])
    assert len(turns._lanes) == 1


@pytest.mark.parametrize("seed", range(20))
def test_under_any_load_everyone_of_one_priority_comes_to_an_end(seed: int) -> None:
    chance = random.Random(seed)
    turns, waiting, place = Turns(), list[Job](), 0
    waited: Counter[int] = Counter()
    longest_first_wait = 0
    for _ in range(600):
        # As much comes in as the forwards can do, and sometimes far more at once.
        for _ in range(chance.choice([0, 0, 0, 1, 1, 4 if place < 100 else 0])):
            place += 1
            waiting.append(
                job(
                    place,
                    signature=chance.choice("abc"),
                    rows=chance.choice([1, 2, 2, 5]),
                    owner=chance.choice(["greedy"] * 5 + ["modest"]),
                    begun=False,
                    left=chance.randint(1, 4),
                )
            )
        if not waiting:
            continue
        chosen = turns.choose(waiting)
        assert len({each.call.signature for each in chosen}) == 1
        assert len(chosen) == 1 or sum(each.call.rows for each in chosen) <= 4
        assert len({id(each) for each in chosen}) == len(chosen)
        for each in chosen:
            each.begun = True
            each.left -= 1
        waiting = [each for each in waiting if each.left]
        for each in waiting:
            if not each.begun:
                waited[each.place] += 1
                longest_first_wait = max(longest_first_wait, waited[each.place])
    before = len(waiting)
    for _ in range(4 * before + 1):
        if waiting:
            for each in turns.choose(waiting):
                each.left -= 1
                each.begun = True
            waiting = [each for each in waiting if each.left]
    assert waiting == []


def test_a_crowd_of_one_owner_does_not_keep_another_from_stepping() -> None:
    turns, place = Turns(), 100
    crowd = [job(n, owner="greedy") for n in range(50)]
    other = job(99, owner="modest")
    for _ in range(50):
        # The greedy one asks for more and more.
        place += 1
        crowd.append(job(place, owner="greedy"))
        assert 99 in places(turns.choose([*crowd, other]))


def test_owners_alternate_where_only_one_job_fits() -> None:
    turns = Turns()
    waiting = [
        job(1, owner="a", cap=2),
        job(2, owner="a", cap=2),
        job(3, owner="b", cap=2),
        job(4, owner="c", cap=2),
        job(5, owner="b", cap=2),
    ]
    assert [places(turns.choose(waiting)) for _ in range(6)] == [[1], [3], [4], [1], [3], [4]]
    # The first job of `a` is done; its next has to wait for its owner's turn.
    assert [places(turns.choose(waiting[1:])) for _ in range(4)] == [[2], [3], [4], [2]]


def test_jobs_of_one_owner_come_to_an_end_one_after_the_other() -> None:
    turns = Turns()
    waiting = [job(n, owner="a", cap=2) for n in range(3)]
    assert [places(turns.choose(waiting)) for _ in range(3)] == [[0], [0], [0]]
