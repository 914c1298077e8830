"""`engine.batch`: which calls may share a forward, and how they are joined, taken and split."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rbee_sd.engine.batch import Packed, content, join, pack, split, take
from rbee_sd.engine.denoiser import Seen


def call(rows: int = 2, **changes: Any) -> dict[str, Any]:
    """The arguments of a UNet's call, with numbers that say whose they are."""
    values: dict[str, Any] = {
        "sample": torch.arange(rows, dtype=torch.float32)[:, None, None, None].expand(rows, 4, 8, 8),
        "timestep": 500,
        "encoder_hidden_states": torch.zeros(rows, 7, 16),
        "cross_attention_kwargs": None,
        "added_cond_kwargs": {"text_embeds": torch.zeros(rows, 5), "time_ids": torch.zeros(rows, 6)},
        "return_dict": False,
    }
    return values | changes


def packed(rows: int = 2, **changes: Any) -> Packed:
    """A call taken apart."""
    return pack(call(rows, **changes), content)


def alike(first: Any, second: Any) -> bool:
    """Whether two sets of arguments are equal in everything."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(alike(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return type(first) is type(second) and all(map(alike, first, second))
    return bool(first == second)


@pytest.mark.parametrize(
    "change",
    [
        {"sample": torch.ones(2, 4, 8, 8)},
        {"encoder_hidden_states": torch.ones(2, 7, 16)},
        {"timestep": 3},
        {"timestep": 3.25},
        {"timestep": torch.tensor(3)},
        {"timestep": torch.tensor(3.5)},
        {"timestep": torch.tensor(3.5, dtype=torch.float64)},
        {"timestep": torch.tensor([3])},
        {"timestep": torch.tensor([3, 3])},
        {"timestep": torch.tensor([3.5, 3.5])},
        {"added_cond_kwargs": {"time_ids": torch.ones(2, 6), "text_embeds": torch.ones(2, 5)}},
    ],
)
def test_what_differs_from_row_to_row_may_share_a_forward(change: dict[str, Any]) -> None:
    assert packed(**change).kind == packed().kind


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_any_number_of_rows_may_share_a_forward(rows: int) -> None:
    assert packed(rows).kind == packed().kind


@pytest.mark.parametrize(
    "change",
    [
        {"sample": torch.zeros(2, 4, 8, 16)},
        {"sample": torch.zeros(2, 9, 8, 8)},
        {"sample": torch.zeros(2, 4, 8, 8, dtype=torch.float16)},
        {"encoder_hidden_states": torch.zeros(2, 14, 16)},
        {"encoder_hidden_states": torch.zeros(2, 7, 16, dtype=torch.bfloat16)},
        {"encoder_hidden_states": None},
        {"cross_attention_kwargs": {}},
        {"cross_attention_kwargs": {"scale": 0.5}},
        {"added_cond_kwargs": None},
        {"added_cond_kwargs": {"time_ids": torch.zeros(2, 6)}},
        {"added_cond_kwargs": {"time_ids": torch.zeros(2, 6), "text_embeds": torch.zeros(2, 4)}},
        {"return_dict": True},
        {"mid_block_additional_residual": None},
        {"down_block_additional_residuals": (torch.zeros(2, 4), torch.zeros(2, 4))},
    ],
)
def test_what_belongs_to_the_whole_forward_keeps_calls_apart(change: dict[str, Any]) -> None:
    assert packed(**change).kind != packed().kind


def test_scalars_are_compared_by_value() -> None:
    first, same, other = (packed(cross_attention_kwargs={"scale": scale}).kind for scale in (0.5, 0.5, 0.6))
    assert first == same
    assert first != other


def test_lists_of_tensors_are_joined_each() -> None:
    values = [packed(down=(torch.full((2, 3), n), [torch.full((2, 1), n)])) for n in (1.0, 2.0)]
    assert values[0].kind == values[1].kind
    whole = join(values)
    assert isinstance(whole["down"], tuple)
    assert whole["down"][0].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
    assert whole["down"][1][0].shape == (4, 1)


def ids(length: int, first: float = 0.0) -> torch.Tensor:
    """Positions as FLUX passes them."""
    return torch.arange(first, first + 3 * length).reshape(length, 3)


def flux(rows: int = 1, length: int = 6, **changes: Any) -> Packed:
    """The call of a FLUX transformer."""
    values = {
        "hidden_states": torch.zeros(rows, length, 16),
        "timestep": torch.full((rows,), 0.5),
        "guidance": torch.full((rows,), 3.5),
        "img_ids": ids(length),
        "txt_ids": torch.zeros(4, 3),
    }
    return pack(values | changes, content)


def test_positions_are_compared_by_content_not_by_length() -> None:
    assert flux().kind == flux().kind
    assert flux().kind != flux(img_ids=ids(6, first=1.0)).kind
    assert flux().kind != flux(txt_ids=torch.ones(4, 3)).kind
    assert flux().kind != flux(img_ids=ids(6).reshape(3, 6)).kind


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_positions_are_passed_once_even_if_they_are_as_many_as_rows(rows: int) -> None:
    # With as many positions as rows they could be taken for rows.
    calls = [flux(rows, 2, txt_ids=torch.zeros(rows, 3), img_ids=ids(2)) for _ in range(2)]
    whole = join(calls)
    assert whole["txt_ids"].shape == (rows, 3)
    assert torch.equal(whole["img_ids"], ids(2))
    assert whole["guidance"].shape == whole["timestep"].shape == (2 * rows,)
    assert take(calls[0], [0]).arguments["txt_ids"].shape == (rows, 3)


def test_a_scheduler_of_whole_and_one_of_broken_timesteps_keep_their_moments() -> None:
    calls = [packed(timestep=torch.tensor(981)), packed(1, timestep=torch.tensor(12.625, dtype=torch.float64))]
    assert join(calls)["timestep"].tolist() == [981.0, 981.0, 12.625]


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 2), (2, 2, 2), (3, 1, 2, 5)])
def test_what_is_joined_is_split_as_it_was(sizes: tuple[int, ...]) -> None:
    calls = []
    for number, rows in enumerate(sizes):
        values = call(rows, sample=torch.full((rows, 4, 8, 8), float(number)), timestep=number)
        calls.append(pack(values, content))
    whole = join(calls)
    assert whole["sample"].shape[0] == sum(sizes)
    parts = split((whole["sample"], whole["timestep"]), sizes)
    assert len(parts) == len(sizes)
    for number, ((sample, timestep), rows) in enumerate(zip(parts, sizes, strict=True)):
        assert torch.equal(sample, torch.full((rows, 4, 8, 8), float(number)))
        assert timestep.tolist() == [number] * rows


def test_rows_behind_the_parts_are_dropped() -> None:
    (first,), (second,) = split((torch.arange(8),), [2, 3])
    assert (first.tolist(), second.tolist()) == ([0, 1], [2, 3, 4])


@pytest.mark.parametrize("rows", range(1, 6))
def test_the_parts_of_a_call_are_the_call(rows: int) -> None:
    whole = packed(rows, encoder_hidden_states=torch.rand(rows, 7, 16))
    for cut in range(1, rows):
        parts = [take(whole, range(cut)), take(whole, range(cut, rows))]
        assert [part.rows for part in parts] == [cut, rows - cut]
        assert {part.kind for part in parts} == {whole.kind}
        assert alike(join(parts), dict(whole.arguments))


def test_rows_are_taken_in_any_order_and_number() -> None:
    taken = take(packed(3, timestep=torch.tensor([1, 2, 3])), [2, 0, 0, 1, 2])
    assert taken.rows == 5
    assert taken.arguments["timestep"].tolist() == [3, 1, 1, 2, 3]
    assert taken.arguments["sample"][:, 0, 0, 0].tolist() == [2, 0, 0, 1, 2]
    assert taken.arguments["added_cond_kwargs"]["time_ids"].shape == (5, 6)


def test_joining_is_no_matter_of_order_of_names() -> None:
    forwards, backwards = call(), dict(reversed(call().items()))
    assert pack(forwards, content).kind == pack(backwards, content).kind


def test_packing_changes_nothing_that_it_is_given() -> None:
    values = call()
    before = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    join([pack(values, content), pack(call(), content)])
    assert alike(values, before)


def test_kinds_can_be_compared_and_found_in_a_dictionary() -> None:
    kinds = [packed().kind, packed(cross_attention_kwargs={"scale": [1, 2]}).kind, flux().kind]
    for first, second in itertools.combinations(kinds, 2):
        assert first != second
    assert len(dict.fromkeys(kinds)) == 3


def test_the_content_of_a_tensor_is_what_is_hashed() -> None:
    tensor = torch.rand(4, 6)
    assert content(tensor) == content(tensor.clone()) == content(tensor.T.contiguous().T)
    assert content(tensor) != content(tensor + 1e-3)
    for dtype in (torch.bfloat16, torch.float16, torch.int64, torch.bool):
        assert content(tensor.to(dtype))


def test_a_tensor_that_comes_again_is_hashed_once() -> None:
    seen = Seen()
    tensor = torch.rand(3)
    first = seen.digest(tensor)
    tensor += 1
    assert seen.digest(tensor) is first
    # Another one never gets the name of one that is gone.
    digests = {seen.digest(torch.full((3,), float(n))) for n in range(50)}
    assert len(digests) == 50
