"""Downloading images: bytes, ETags, and what is answered when there is none."""

from __future__ import annotations

import base64
import io
import logging
import struct
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Client, Faults
from tests.http.views import error_of, events, raw_stream

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the PNG's header."""
    assert png.startswith(SIGNATURE)
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def delete_images(folder: Path) -> None:
    """What a careless tidy-up does."""
    for file in [*folder.rglob("*.png"), *folder.rglob("*.jpeg")]:
        file.unlink()


async def test_an_image_is_a_png_of_the_size_asked_for_and_the_one_in_the_stream(client: Client) -> None:
    job_id = await client.submit(steps=1, width=136, height=64)
    complete = events(await raw_stream(client, job_id))[-1].data
    answer = await client.http.get(complete["images"][0]["url"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert size(answer.content) == (136, 64)
    assert base64.b64decode(complete["image_base64"], validate=True) == answer.content
    assert (await client.http.get(f"/v1/jobs/{job_id}/image")).content == answer.content


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_an_image_can_be_of_another_format_everywhere(client: Client, kind: str) -> None:
    job_id = await client.submit(steps=1, format=kind, quality=50, count=2)
    complete = events(await raw_stream(client, job_id))[-1].data
    assert complete["format"] == kind
    answers = [await client.http.get(image["url"]) for image in complete["images"]]
    assert {answer.headers["content-type"] for answer in answers} == {f"image/{kind}"}
    with Image.open(io.BytesIO(answers[1].content)) as image:
        assert image.format == kind.upper()
    assert base64.b64decode(complete["image_base64"], validate=True) == answers[0].content
    assert (await client.job(job_id))["request"]["format"] == kind


async def test_every_image_of_a_job_can_be_fetched_and_no_other(client: Client) -> None:
    job_id = await client.submit(steps=1, count=3, seed=10)
    view = await client.ended(job_id)
    pictures = [await client.http.get(image["url"]) for image in view["images"]]
    assert [picture.status_code for picture in pictures] == [200, 200, 200]
    assert len({picture.content for picture in pictures}) == 3
    assert len({picture.headers["etag"] for picture in pictures}) == 3
    for number in ("3", "99", "00000000", "1" * 5000, "-1", "x", "0.png", "0/", "..%2f0"):
        error_of(await client.http.get(f"/v1/jobs/{job_id}/images/{number}"), 404)


async def test_a_thumbnail_is_a_small_jpeg_of_the_image(client: Client) -> None:
    job_id = await client.submit(steps=1, width=512, height=256)
    url = (await client.ended(job_id))["images"][0]["url"]
    image, small = [await client.http.get(url, params={"thumbnail": word}) for word in ("false", "true")]
    assert (await client.http.get(url)).content == image.content
    assert size(image.content) == (512, 256)
    assert (small.status_code, small.headers["content-type"]) == (200, "image/jpeg")
    assert int(small.headers["content-length"]) == len(small.content)
    with Image.open(io.BytesIO(small.content)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (256, 128))
    etag = small.headers["etag"]
    assert etag != image.headers["etag"]
    headers = {"If-None-Match": etag}
    assert (await client.http.get(url, params={"thumbnail": "true"}, headers=headers)).status_code == 304
    assert (await client.http.get(url, headers=headers)).status_code == 200


async def test_an_image_that_is_small_itself_is_its_own_thumbnail(client: Client) -> None:
    job_id = await client.submit(steps=1, width=256, height=64)
    await client.ended(job_id)
    answers = [await client.http.get(f"/v1/jobs/{job_id}/image{query}") for query in ("", "?thumbnail=true")]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["content-type"] == "image/png"
    error = error_of(await client.http.get(f"/v1/jobs/{job_id}/image?thumbnail=1"), 400)
    assert error["errors"][0]["field"] == "thumbnail"


async def test_a_client_that_has_the_image_is_not_sent_it_again(client: Client) -> None:
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    path = f"/v1/jobs/{job_id}/images/0"
    etag = (await client.http.get(path)).headers["etag"]
    assert etag.startswith('"')
    assert etag.endswith('"')
    for sent in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await client.http.get(path, headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content) == (304, b""), sent
        assert answer.headers["etag"] == etag
    answer = await client.http.get(path, headers={"If-None-Match": '"other"'})
    assert answer.status_code == 200
    assert answer.content.startswith(SIGNATURE)


async def test_an_image_is_409_until_its_job_has_ended(client: Client, faults: Faults) -> None:
    faults.on("hang")
    runs, waits = await client.submit(steps=1), await client.submit(steps=1)
    for job_id in (runs, waits):
        for path in ("image", "images/0"):
            error_of(await client.http.get(f"/v1/jobs/{job_id}/{path}"), 409)
    faults.off("hang")
    await client.ended(waits)
    assert (await client.http.get(f"/v1/jobs/{waits}/image")).status_code == 200


async def test_a_job_that_made_no_image_has_none(client: Client, faults: Faults) -> None:
    faults.on("fail", "once")
    failed = await client.submit(steps=1)
    await client.ended(failed)
    answer = await client.http.post("/v1/jobs", json={"operation": "status"})
    quick = answer.json()["job_id"]
    await client.ended(quick)
    for job_id in (failed, quick):
        error_of(await client.http.get(f"/v1/jobs/{job_id}/image"), 404)


async def test_an_image_that_somebody_deleted_is_410(client: Client, tmp_path: Path) -> None:
    job_id = await client.submit(steps=1)
    await client.ended(job_id)
    delete_images(tmp_path)
    answer = await client.http.get(f"/v1/jobs/{job_id}/image")
    error_of(answer, 410)
    assert str(tmp_path) not in answer.text


async def test_a_stream_whose_image_somebody_deleted_still_ends_as_it_should(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await client.submit(steps=1)
    whole = events(await raw_stream(client, job_id))
    delete_images(tmp_path)
    raw = await raw_stream(client, job_id)
    assert raw.endswith(b"data: [DONE]\n\n")
    # All but the image itself.
    assert events(raw)[:-1] == whole[:-1]
    assert events(raw)[-1].name == "complete"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
