"""`operations.picture` and the headers it reads: what is told of a file without decoding it, and what is refused."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any

import pytest
from PIL import Image

from rbee_sd.messages import INPUT_FORMATS, MAX_INPUT_PIXELS
from rbee_sd.operations import jpeg_header, png_header, webp_header
from rbee_sd.operations.limits import MAX_INPUT_SIDE
from rbee_sd.operations.picture import Picture, picture_in
from rbee_sd.operations.png_header import MAX_TEXT
from tests.pictures import animation, chunk, picture, png, text
from tests.unit.conftest import seeded

EXIF = Image.Exif()
EXIF[0x0112] = 6
REAL = {
    "png": picture("PNG"),
    "png with a palette": picture("PNG", mode="P"),
    "png in black and white": picture("PNG", mode="1"),
    "png with transparency": picture("PNG", mode="RGBA"),
    "png of 16 bits": picture("PNG", mode="I;16"),
    "png with a profile": picture("PNG", icc_profile=b"profile" * 100),
    "jpeg": picture("JPEG"),
    "jpeg in grey": picture("JPEG", mode="L"),
    "jpeg in four colours": picture("JPEG", mode="CMYK"),
    "progressive jpeg": picture("JPEG", progressive=True),
    "jpeg with exif and a profile": picture("JPEG", exif=EXIF, icc_profile=b"profile" * 30_000),
    "webp": picture("WEBP"),
    "lossless webp": picture("WEBP", lossless=True),
    "webp with transparency": picture("WEBP", mode="RGBA"),
    "webp with exif": picture("WEBP", exif=EXIF),
}
SMALL = {
    "png": picture("PNG", (16, 8), mode="P"),
    "jpeg": picture("JPEG", (16, 8), quality=20),
    "webp": picture("WEBP", (16, 8)),
    "lossless webp": picture("WEBP", (16, 8), lossless=True),
    "webp with exif": picture("WEBP", (16, 8), exif=EXIF),
}
each_real = pytest.mark.parametrize("name", REAL)
each_small = pytest.mark.parametrize("name", SMALL)


def refused(data: bytes) -> str:
    """Why a file is refused."""
    return refused_text(text(data))


def refused_text(value: Any) -> str:
    """Why the value of a field is refused."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        picture_in(value)
    # The one error class, and not one of those below it that something unexpected would raise.
    assert type(caught.value) is ValueError
    return str(caught.value)


def read(data: bytes) -> Picture | None:
    """What a file is, or None when it is refused as it should be; any other error passes on."""
    try:
        return picture_in(text(data))
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        return None


@each_real
def test_a_real_file_is_told_by_its_header(name: str) -> None:
    found = picture_in(text(REAL[name]))
    kind = next(kind for kind in INPUT_FORMATS if kind in name)
    assert (found.kind, found.width, found.height, found.data) == (kind, 96, 64, REAL[name])
    assert str(found) == f"{kind}, 96 x 64, {len(REAL[name])} bytes"


@each_real
def test_a_file_itself_is_as_good_as_its_base64(name: str) -> None:
    assert picture_in(REAL[name]) == picture_in(text(REAL[name]))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (513, 7), (4096, 2), (8192, 1)])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})])
def test_sizes_are_those_that_pillow_wrote(kind: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    found = picture_in(text(picture(kind, size, **options)))
    assert (found.width, found.height) == size


def test_base64_may_come_as_a_data_url_in_lines_and_without_padding() -> None:
    data = REAL["png"] + b"\0" * (len(REAL["png"]) % 3 == 0)
    plain = text(data)
    assert plain.endswith("=")
    lines = "\r\n".join(plain[place : place + 76] for place in range(0, len(plain), 76)) + "\n"
    urls = [f"data:image/{kind};base64,{plain}" for kind in ("png", "x-anything", "svg+xml", "png;charset=utf-8")]
    for value in (plain, plain.rstrip("="), lines, *urls, f"DATA:image/PNG;BASE64,{plain}"):
        assert picture_in(value).data == data, value[:40]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "=",
        "====",
        "A",
        "hello",
        "aGVsbG8=",
        "ümläut",
        "\0",
        "data:,",
        "data:image/png;base64,",
        "data:text/html;base64,aGVsbG8=",
        "data:image/png,%89PNG",
        "http://127.0.0.1:1/x.png",
        "https://example.org/x.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "../x.png",
        "\\\\host\\share\\x.png",
        text(REAL["png"])[:-8] + "=AAA====",
        text(REAL["png"]) + "AAAA",
        text(REAL["png"]).replace("A", "-"),
        text(REAL["png"]) + "\u00e9",
        7,
        True,
        ["aGVsbG8="],
        {"url": "http://127.0.0.1:1/x.png"},
        b"bytes",
    ],
)
def test_what_is_no_image_in_base64_is_refused_and_nothing_is_opened(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("something was opened")

    with monkeypatch.context() as patch:
        for name in ("builtins.open", "os.open", "os.stat", "socket.socket", "socket.create_connection"):
            patch.setattr(name, opened)
        refused_text(value)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + b"\0" * 100,
        picture("GIF"),
        picture("BMP"),
        picture("TIFF"),
        b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
        b'<?xml version="1.0"?><svg width="64" height="64"/>',
        b"%PDF-1.7\n",
        b"\x80\x04\x95pickle",
        b"PK\x03\x04" + b"\0" * 100,
        b"RIFF\x24\0\0\0WAVEfmt ",
        b" " + REAL["png"],
        b"\0" * 1000,
    ],
)
def test_other_formats_are_refused(data: bytes) -> None:
    assert "PNG, JPEG or WebP" in refused(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    assert "animated" in refused(animation(kind))


def test_an_animation_is_told_by_any_of_its_parts() -> None:
    for name in (b"acTL", b"fcTL", b"fdAT"):
        assert "animated" in refused(png(chunk(name, b"\0" * 8)))
    whole = bytearray(animation("WEBP"))
    whole[20] &= ~webp_header.ANIMATED
    assert "animated" in refused(bytes(whole))


@pytest.mark.parametrize(
    "size",
    [(9000, 9000), (20_000, 20_000), (MAX_INPUT_SIDE + 1, 1), (1, MAX_INPUT_SIDE + 1), (8192, 4097), (2**31, 2**31)],
)
def test_too_large_images_are_refused_however_small_their_file(size: tuple[int, int]) -> None:
    head = struct.pack(">2I5B", *size, 1, 0, 0, 0, 0)
    data = png_header.SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND")
    assert "too large" in refused(data)


def test_81_megapixels_in_a_small_real_file_are_refused_at_once() -> None:
    data = png(size=(9000, 9000), depth=1)
    assert len(data) < 300_000
    began = time.process_time()
    assert "too large" in refused(data)
    assert time.process_time() - began < 0.1


def test_the_largest_image_is_accepted() -> None:
    width, height = MAX_INPUT_SIDE, MAX_INPUT_PIXELS // MAX_INPUT_SIDE
    assert picture_in(text(png(size=(width, height), depth=1))).width == width
    assert picture_in(text(png(size=(height, width), depth=1))).height == width


def test_images_without_a_side_are_refused() -> None:
    for size in ((0, 64), (64, 0), (0, 0)):
        assert "without width or height" in refused(png(size=size))
    jpeg = bytearray(SMALL["jpeg"])
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 2] = b"\0\0"
    assert "without width or height" in refused(bytes(jpeg))


def test_a_png_of_a_kind_that_does_not_exist_is_refused() -> None:
    for depth, colour in ((3, 0), (16, 3), (4, 2), (8, 5), (8, 1), (255, 255)):
        assert "kind" in refused(png(depth=depth, colour=colour)), (depth, colour)


def test_a_png_with_an_absurd_length_is_refused() -> None:
    for length in (2**32 - 1, 2**31, 10**6):
        data = bytearray(REAL["png"])
        place = data.index(b"IDAT") - 4
        data[place : place + 4] = struct.pack(">I", length)
        assert "truncated" in refused(bytes(data))


def test_a_png_without_its_parts_is_refused() -> None:
    end = chunk(b"IEND")
    assert "pixels" in refused(REAL["png"][:33] + end)
    assert "its size" in refused(png_header.SIGNATURE + chunk(b"IDAT", b"x") + end)
    assert "pixels" in refused(png_header.SIGNATURE + end)
    assert "truncated" in refused(REAL["png"].removesuffix(end))


BOMB = zlib.compress(b"\0" * 100_000_000, 9)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"zTXt", b"x\0\0" + BOMB)],
        [chunk(b"iTXt", b"x\0\1\0\0\0" + BOMB)],
        [chunk(b"iCCP", b"x\0\0" + BOMB)],
        [chunk(b"tEXt", b"x\0" + b"A" * MAX_TEXT)],
        [chunk(b"iTXt", b"x\0\0\0\0\0" + b"A" * MAX_TEXT)],
        [chunk(b"tEXt", b"x\0" + b"A" * 2000)] * 600,
        [chunk(b"zTXt", b"x\0\0" + zlib.compress(b"A" * 100_000))] * 11,
    ],
    ids=["zTXt", "iTXt", "iCCP", "long", "long iTXt", "many", "many packed"],
)
def test_a_bomb_of_texts_is_refused_at_once(chunks: list[bytes]) -> None:
    data = text(png(*chunks))
    began = time.process_time()
    assert "texts" in refused_text(data)
    assert time.process_time() - began < 0.1


def test_packed_texts_that_break_in_their_midst_are_not_unpacked_again_and_again() -> None:
    broken = chunk(b"zTXt", b"x\0\0" + BOMB[:900] + b"\xff" * 100)
    data = text(png(*[broken] * 5000))
    began = time.process_time()
    refused_text(data)
    assert time.process_time() - began < 0.1


def test_a_usual_amount_of_text_is_no_bomb() -> None:
    packed = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a red circle " * 1000))
    other = chunk(b"iTXt", b"workflow\0\1\0en\0w\0" + zlib.compress(b'{"nodes": []}' * 1000))
    assert picture_in(text(png(packed, other, chunk(b"tEXt", b"Software\0x")))).width == 64


@pytest.mark.parametrize(
    "data",
    [
        png(*[chunk(b"tEXt")] * png_header.MAX_CHUNKS),
        b"\xff\xd8" + b"\xff\x01" * jpeg_header.MAX_MARKERS + SMALL["jpeg"][2:],
        b"\xff\xd8" + b"\xff" * 10_000_000,
        b"RIFF\xff\xff\x0f\0WEBP" + b"EXIF\0\0\0\0" * 200_000,
    ],
    ids=["png", "jpeg", "filling", "webp"],
)
def test_a_file_of_very_many_parts_is_refused_at_once(data: bytes) -> None:
    value = text(data)
    began = time.process_time()
    assert "parts" in refused_text(value)
    assert time.process_time() - began < 0.2


def test_a_jpeg_is_refused_for_nonsense_between_its_markers() -> None:
    start = SMALL["jpeg"][:2]
    assert "nonsense" in refused(SMALL["jpeg"][:20] + b"\0" * 100)
    assert "no length" in refused(start + b"\xff\xe0\0\0" + SMALL["jpeg"][2:])
    assert "without a size" in refused(start + b"\xff\xda\0\2\xff\xd9")
    frame = b"\xff\xc0\0\x0b\x08\0\x08\0\x10"
    assert "kind" in refused(start + frame + b"\x09" + b"\0" * 100)
    assert "kind" in refused(start + (frame + b"\x01\0\0\0") * 2 + b"\xff\xda\0\2\xff\xd9")


def test_a_webp_that_names_two_sizes_is_refused() -> None:
    whole = bytearray(REAL["webp with exif"])
    place = whole.index(b"VP8X") + 12
    whole[place] += 1
    assert "two different sizes" in refused(bytes(whole))


def test_a_webp_longer_than_its_file_is_refused() -> None:
    whole = bytearray(SMALL["webp"])
    whole[4:8] = struct.pack("<I", len(whole))
    assert "truncated" in refused(bytes(whole))


@each_small
def test_every_truncation_is_refused(name: str) -> None:
    whole = SMALL[name]
    for length in range(len(whole)):
        assert read(whole[:length]) is None, length
    assert read(whole) is not None


@each_small
def test_every_flipped_byte_gives_a_result_or_the_one_error(name: str) -> None:
    whole = SMALL[name]
    for place in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            found = read(bytes(damaged))
            assert found is None or found.width * found.height <= MAX_INPUT_PIXELS


def test_damaged_files_give_a_result_or_the_one_error_quickly() -> None:
    chance = seeded(2)
    began = time.process_time()
    for number in range(20_000):
        data = bytearray(chance.choice(list(SMALL.values())))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(min(len(data), chance.choice((12, 40, 200, 10_000))))
            match chance.randrange(4):
                case 0:
                    data[place] = chance.randrange(256)
                case 1:
                    data[place : place + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"acTL", b"\xff\xda"))
                case 2:
                    data[place:place] = chance.randbytes(chance.randrange(1, 20))
                case _:
                    del data[place : place + chance.randrange(1, 20)]
        read(bytes(data))
        read(chance.choice((b"", png_header.SIGNATURE, jpeg_header.SIGNATURE)) + chance.randbytes(number % 200))
    assert time.process_time() - began < 10
