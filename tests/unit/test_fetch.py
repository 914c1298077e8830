"""`engine.fetch`: what a download does with the disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from rbee_sd.engine import fetch
from rbee_sd.engine.transfer import Remote

DIGEST = "a" * 40
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """What a download has got: one file."""
    folder = tmp_path / fetch.PARTIAL / "owner--name"
    folder.mkdir(parents=True)
    (folder / DIGEST).write_bytes(b"weights")
    return folder


def no_links(_source: Path, _target: Path) -> None:
    """As on a file system that has none."""
    raise OSError(errno.EPERM, "no")


def test_a_download_ends_before_it_fills_the_disk(
    partial: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    remote = Remote("", 10, DIGEST)
    count = fetch._Progress({DIGEST: remote}, partial).of(remote)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, fetch.SPARE))
    count(8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, fetch.SPARE - 1))
    with pytest.raises(fetch.FetchError) as full:
        count(9)
    assert full.value.code == "disk_full"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_in_two_places_is_put_into_both(
    partial: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    folder = partial.parent.parent
    fetch._put_together("owner/name", "c", {"a.json": DIGEST, "unet/b.json": DIGEST}, folder)
    whole = folder / "owner--name"
    assert (whole / "a.json").read_bytes() == (whole / "unet" / "b.json").read_bytes() == b"weights"
    assert json.loads((whole / fetch.MANIFEST).read_text()) == {"repo": "owner/name", "commit": "c"}
    assert list(partial.parent.iterdir()) == []


def test_no_part_is_lost_when_the_disk_is_full_at_the_end(partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="full"):
        fetch._put_together("owner/name", "c", {"a.json": DIGEST}, partial.parent.parent)
    assert (partial / DIGEST).read_bytes() == b"weights"
