"""`jobs.images`: all of a job's images or none, and nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rbee_sd.jobs.images import ImageFile, ImageFiles
from rbee_sd.messages import FORMATS
from tests.conftest import eventually

PICTURES = (b"one", b"", b"three" * 50_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where `images` keeps its files."""
    return tmp_path / "images"


def contents(folder: Path) -> list[str]:
    """Everything below the folder, by relative name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def open_files() -> list[str]:
    """What this process has open, by path."""
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        # The descriptor of this very listing is gone by now.
        with suppress(FileNotFoundError):
            opened.append(str(descriptor.readlink()))
    return opened


async def whole(images: ImageFiles, image: ImageFile) -> bytes:
    """All of an image."""
    async with await images.open(image) as file:
        return await file.read(1_000_000)


async def test_saved_images_are_read_back_in_order(images: ImageFiles, folder: Path) -> None:
    kept = await images.save("job_1", PICTURES)
    assert [await whole(images, image) for image in kept] == list(PICTURES)
    assert [image.size for image in kept] == [len(picture) for picture in PICTURES]
    assert contents(folder) == ["job_1", "job_1/0.png", "job_1/1.png", "job_1/2.png"]


async def test_thumbnails_lie_beside_their_images_and_go_with_them(images: ImageFiles, folder: Path) -> None:
    first, second = await images.save("job_1", (b"one", b"two"), "webp", (b"", b"small"))
    assert first.thumbnail is None
    assert second.thumbnail is not None
    assert (second.thumbnail.size, second.thumbnail.format) == (5, "jpeg")
    assert second.thumbnail.etag != second.etag
    assert await whole(images, second.thumbnail) == b"small"
    assert second == images.file("job_1", 1, second.etag, second.size, "webp", 5)
    assert contents(folder) == ["job_1", "job_1/0.webp", "job_1/1.thumbnail.jpeg", "job_1/1.webp"]
    images.remove("job_1")
    await eventually(lambda: not contents(folder))


async def test_thumbnails_that_are_not_one_for_each_image_are_not_stored(images: ImageFiles, folder: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        await images.save("job_1", (b"one", b"two"), thumbnails=(b"small",))
    assert contents(folder) == []


async def test_a_file_is_named_after_its_format(images: ImageFiles, folder: Path) -> None:
    for kind in FORMATS:
        (kept,) = await images.save(f"job_{kind}", (b"one",), kind)
        assert (kept.format, kept.path) == (kind, folder / f"job_{kind}" / f"0.{kind}")
        assert kept == images.file(f"job_{kind}", 0, kept.etag, kept.size, kind)
        assert await whole(images, kept) == b"one"


async def test_an_image_is_read_in_parts(images: ImageFiles) -> None:
    (image,) = await images.save("job_1", (bytes(range(100)),))
    parts: list[bytes] = []
    async with await images.open(image) as file:
        while part := await file.read(7):
            parts.append(part)
    assert b"".join(parts) == bytes(range(100))
    assert [len(part) for part in parts] == [7] * 14 + [2]


async def test_equal_images_have_equal_tags_and_others_do_not(images: ImageFiles) -> None:
    tags = [image.etag for image in await images.save("job_1", (b"one", b"two", b"one"))]
    assert tags[0] == tags[2] != tags[1]
    assert all(tag.startswith('"') and tag.endswith('"') and len(tag) > 20 for tag in tags)


async def test_a_job_without_images_has_none(images: ImageFiles) -> None:
    assert await images.save("job_1", ()) == []


async def test_no_image_has_its_name_before_all_are_on_disk(
    images: ImageFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        a_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        seen.append((a_file, (folder / "job_1").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    await images.save("job_1", PICTURES)
    # Each file and their folder are synced before the name appears, and the name is synced after.
    assert seen == [(True, False)] * 3 + [(False, False), (False, True)]


def failing_fsync(at: int) -> Callable[[int], None]:
    """An `os.fsync` whose call number `at` finds the disk full."""
    calls = iter(range(1, 1000))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    return fsync


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_write_error_leaves_nothing_and_the_next_save_works(
    images: ImageFiles, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_fsync(at))
        with pytest.raises(OSError, match="No space left"):
            await images.save("job_1", PICTURES)
    assert contents(folder) == []
    assert len(await images.save("job_1", PICTURES)) == 3


async def test_a_folder_that_is_gone_is_an_os_error(images: ImageFiles, folder: Path) -> None:
    os.rmdir(folder)
    with pytest.raises(OSError, match="No such file"):
        await images.save("job_1", PICTURES)
    os.mkdir(folder)
    assert len(await images.save("job_1", PICTURES)) == 3


async def test_a_second_save_of_a_job_does_not_harm_the_first(images: ImageFiles, folder: Path) -> None:
    (image,) = await images.save("job_1", (b"first",))
    with pytest.raises(OSError, match=r"not empty|exists"):
        await images.save("job_1", (b"second",))
    assert await whole(images, image) == b"first"
    assert contents(folder) == ["job_1", "job_1/0.png"]


async def test_many_jobs_saved_at_once_do_not_mix(images: ImageFiles) -> None:
    ids = [f"job_{number}" for number in range(30)]
    saved = await asyncio.gather(*(images.save(job_id, (job_id.encode(), b"second")) for job_id in ids))
    for job_id, (first, _) in zip(ids, saved, strict=True):
        assert await whole(images, first) == job_id.encode()


async def test_removed_images_are_gone_soon_and_the_others_stay(images: ImageFiles, folder: Path) -> None:
    image, *_ = await images.save("job_1", PICTURES)
    others = await images.save("job_2", PICTURES)
    images.remove("job_1")
    images.remove("job_1")
    await eventually(lambda: not (folder / "job_1").exists())
    with pytest.raises(FileNotFoundError):
        await images.open(image)
    assert [await whole(images, other) for other in others] == list(PICTURES)


def test_removing_what_never_was_does_nothing(images: ImageFiles, folder: Path) -> None:
    beside = folder.parent / "beside"
    beside.mkdir()
    for name in ("job_1", "..", "", ".", "../beside", "job_1/..", str(beside)):
        images.remove(name)
    images.close()
    images.remove("..")
    assert folder.exists()
    assert beside.exists()


def test_preparing_makes_a_private_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "images"
    images = ImageFiles(folder)
    images.prepare()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    images.close()


def test_preparing_where_a_file_is_in_the_way_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file")
    images = ImageFiles(tmp_path / "images")
    with pytest.raises(OSError, match="exists"):
        images.prepare()
    images.close()


async def test_closing_finishes_what_was_begun(images: ImageFiles, folder: Path) -> None:
    save = asyncio.create_task(images.save("job_1", PICTURES))
    await asyncio.sleep(0)
    images.close()
    images.close()
    await save
    assert contents(folder) == ["job_1", "job_1/0.png", "job_1/1.png", "job_1/2.png"]


async def test_images_saved_as_the_folder_closes_can_still_be_removed(images: ImageFiles, folder: Path) -> None:
    # A job cancelled while its images were written, in a worker that is stopping.
    save = asyncio.create_task(images.save("job_1", PICTURES))
    await asyncio.sleep(0)
    images.close()
    await save
    images.remove("job_1")
    assert contents(folder) == []


async def test_an_image_that_is_removed_while_it_is_read_is_read_to_its_end(images: ImageFiles, folder: Path) -> None:
    (image,) = await images.save("job_1", (bytes(range(100)),))
    async with await images.open(image) as file:
        first = await file.read(50)
        images.remove("job_1")
        await eventually(lambda: not (folder / "job_1").exists())
        assert first + await file.read(100) == bytes(range(100))


@pytest.mark.parametrize("given_up", [True, False])
async def test_closing_closes_what_was_opened_for_a_reader_that_never_came(
    images: ImageFiles, folder: Path, given_up: bool
) -> None:
    (image,) = await images.save("job_1", (b"read by nobody",))
    path = image.path
    opening = asyncio.ensure_future(images.open(image))
    await eventually(lambda: str(path) in open_files())
    if given_up:
        opening.cancel()
    images.close()
    assert str(path) not in open_files()
    await asyncio.gather(opening, return_exceptions=True)


def test_what_is_half_written_is_dropped_at_the_start_and_the_rest_is_named(images: ImageFiles, folder: Path) -> None:
    ours = folder / "job_2f6c0000-0000-4000-8000-00000000abcd"
    for left in (ours, ours.with_suffix(".part"), folder / "job_photos", folder / "photos.part"):
        left.mkdir()
        (left / "0.png").touch()
    (folder / "job_notes.txt").touch()
    assert images.prepare() == [ours.name]
    assert contents(folder) == [
        "job_2f6c0000-0000-4000-8000-00000000abcd",
        "job_2f6c0000-0000-4000-8000-00000000abcd/0.png",
        "job_notes.txt",
        "job_photos",
        "job_photos/0.png",
        "photos.part",
        "photos.part/0.png",
    ]
