"""A finished picture as a file that says how it was made; previews and thumbnails as small JPEGs.

Called in the engine's encoding thread; blocks it (Pillow works without the GIL). A PNG has two text chunks:
`parameters` in the form that AUTOMATIC1111's web UI writes and other tools read, and `rbee-sd` with the same as exact
JSON. JPEG and WebP have the first in the EXIF tag UserComment, as those tools write it there.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rbee_sd.engine.inputs import seam
from rbee_sd.engine.recipe import parameters
from rbee_sd.messages import PNG

QUALITY = 90
"""Of JPEG and WebP, 1 to 100, where a job leaves it open."""
SMALL_SIDE = 256
"""Pixels of the longer side of a preview or a thumbnail, or the picture's own if that is less."""
SMALL_QUALITY = 80
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
MAX_EXIF = 65_533
"""Bytes that a JPEG has room for."""


def composed(pixels: npt.NDArray[np.uint8], keep: tuple[Image.Image, Image.Image, float] | None = None) -> Image.Image:
    """The picture of (height, width, 3) pixels. `keep`: an image, the mask that is white where it is replaced, and over
    how many pixels the one passes into the other.
    """
    image = Image.fromarray(pixels)
    if keep is None:
        return image
    original, mask, blur = keep
    # The model has repainted all of it, from its own idea of what was to stay.
    return Image.composite(image, original, seam(mask, blur))


def picture_file(image: Image.Image, made_by: dict[str, Any], kind: str = PNG, quality: int | None = None) -> bytes:
    """The file of a picture. `kind` is one of `messages.FORMATS`; `quality` is for those that lose something."""
    file = io.BytesIO()
    if kind == PNG:
        info = PngInfo()
        info.add_text("parameters", parameters(made_by))
        info.add_text("rbee-sd", json.dumps(made_by, ensure_ascii=False))
        # Level 1 is about half the time of the default for a few percent of size.
        image.save(file, "PNG", compress_level=1, pnginfo=info)
    else:
        image.save(file, kind, quality=quality or QUALITY, exif=_exif(parameters(made_by)))
    return file.getvalue()


def preview_jpeg(pixels: npt.NDArray[np.uint8], width: int, height: int) -> bytes:
    """The JPEG file of a preview of a picture that will have this size."""
    return _small(Image.fromarray(pixels), width, height)


def thumbnail_jpeg(image: Image.Image) -> bytes:
    """The JPEG file of a small picture of this one; empty for one that is small itself."""
    return _small(image, *image.size) if max(image.size) > SMALL_SIDE else b""


def _small(image: Image.Image, width: int, height: int) -> bytes:
    share = min(1.0, SMALL_SIDE / max(width, height))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    file = io.BytesIO()
    # Of a large picture whole pixels are put together first: a third of the time, and nobody sees it.
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    small.save(file, "JPEG", quality=SMALL_QUALITY)
    return file.getvalue()


def _exif(text: str) -> bytes:
    """EXIF with a comment; none when it is too long (ten thousand characters beyond the first 65,536 of Unicode)."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    data = exif.tobytes()
    return data if len(data) <= MAX_EXIF else b""
