"""A finished picture as a PNG file that says how it was made, and a preview as a small JPEG.

Called in the engine's encoding thread; blocks it (Pillow works without the GIL). Two text chunks: `parameters` in the
form that AUTOMATIC1111's web UI writes and other tools read, and `rbee-sd` with the same as exact JSON.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rbee_sd.engine.recipe import parameters

PREVIEW_SIDE = 256
"""Pixels of a preview's longer side, or the picture's own if that is less."""
PREVIEW_QUALITY = 80


def png(pixels: npt.NDArray[np.uint8], made_by: dict[str, Any], keep: tuple[Image.Image, Image.Image] | None) -> bytes:
    """The PNG file of (height, width, 3) pixels. `keep`: an image, and the mask that is white where it is replaced."""
    image = Image.fromarray(pixels)
    if keep is not None:
        original, mask = keep
        # The model has repainted all of it, from its own idea of what was to stay.
        image = Image.composite(image, original, mask.point(lambda value: 255 if value >= 128 else 0))
    info = PngInfo()
    info.add_text("parameters", parameters(made_by))
    info.add_text("rbee-sd", json.dumps(made_by, ensure_ascii=False))
    file = io.BytesIO()
    # Level 1 is about half the time of the default for a few percent of size.
    image.save(file, "PNG", compress_level=1, pnginfo=info)
    return file.getvalue()


def preview_jpeg(pixels: npt.NDArray[np.uint8], width: int, height: int) -> bytes:
    """The JPEG file of a preview of a picture that will have this size."""
    share = min(1.0, PREVIEW_SIDE / max(width, height))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=PREVIEW_QUALITY)
    return file.getvalue()
