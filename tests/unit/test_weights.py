"""`engine.weights`: how much memory a file's weights take, from its header alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbee_sd.engine.weights import weigh

HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F16", "shape": [3, 5], "data_offsets": [0, 30]},
    "b": {"dtype": "F32", "shape": [], "data_offsets": [30, 34]},
}


def write(path: Path, header: bytes, length: int | None = None) -> Path:
    """A file with this header, and as much data as the two tensors of `HEADER` have."""
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + b"\0" * 34)
    return path


@pytest.mark.parametrize("itemsize", [2, 4])
def test_numbers_count_in_the_precision_that_is_used(tmp_path: Path, itemsize: int) -> None:
    assert weigh(write(tmp_path / "file", json.dumps(HEADER).encode()), itemsize) == 16 * itemsize


@pytest.mark.parametrize(
    "header, length",
    [
        (b"{", None),
        (b"[]", None),
        (b"{}", 10**18),
        (b'{"a": 3}', None),
        (b'{"a": {"shape": ["x"]}}', None),
        (b"\xff", None),
    ],
)
def test_a_file_that_is_damaged_counts_as_it_is(tmp_path: Path, header: bytes, length: int | None) -> None:
    path = write(tmp_path / "file", header, length)
    assert weigh(path, 4) == path.stat().st_size
