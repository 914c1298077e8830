"""A finished picture as a file that says how it was made, and a preview as a small JPEG.

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
PREVIEW_SIDE = 256
"""Pixels of a preview's longer side, or the picture's own if that is less."""
PREVIEW_QUALITY = 80
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
MAX_EXIF = 65_533
"""Bytes that a JPEG has room for."""


def picture_file(
    pixels: npt.NDArray[np.uint8],
    made_by: dict[str, Any],
    keep: tuple[Image.Image, Image.Image, float] | None,
    kind: str = PNG,
    quality: int | None = None,
) -> bytes:
    """The file of (height, width, 3) pixels. `keep`: an image, the mask that is white where it is replaced, and over
    how many pixels the one passes into the other.

    `kind` is one of `messages.FORMATS`; `quality` is for those that lose something.
    """
    image = Image.fromarray(pixels)
    if keep is not None:
        original, mask, blur = keep
        # The model has repainted all of it, from its own idea of what was to stay.
        image = Image.composite(image, original, seam(mask, blur))
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
    share = min(1.0, PREVIEW_SIDE / max(width, height))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=PREVIEW_QUALITY)
    return file.getvalue()


def _exif(text: str) -> bytes:
    """EXIF with a comment; none when it is too long (ten thousand characters beyond the first 65,536 of Unicode)."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    data = exif.tobytes()
    return data if len(data) <= MAX_EXIF else b""
