"""Input images and masks: from the bytes of a file to pixels of the size that a job works at.

Called in the engine's encoding thread; blocks it. The front has looked at the headers only; here is where the files
are decoded, so everything that can be wrong with them ends in `GenerationError`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from rbee_sd.engine.pipeline import GenerationError
from rbee_sd.messages import INPUT_FORMATS, MAX_INPUT_PIXELS, MIN_SIDE, MULTIPLE

ORIENTATION = 0x0112
"""The EXIF tag."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a job starts from: RGB and, white where it is to be repainted, L; of the job's size."""

    image: Image.Image | None = None
    mask: Image.Image | None = None
    width: int | None = None
    height: int | None = None


def read(files: tuple[bytes, ...], width: int | None, height: int | None) -> Inputs:
    """Decode an image, or an image and its mask, and bring them to this size, or to the image's own.

    Raises `GenerationError` for files that cannot be decoded or do not belong together.
    """
    if not files:
        return Inputs(None, None, width, height)
    stored = _decode(files[0], "image")
    # Cameras store pictures lying on their side and say so.
    image = ImageOps.exif_transpose(stored)
    mask = _decode(files[1], "mask") if len(files) > 1 else None
    if mask is not None and mask.size == stored.size != image.size:
        # It was drawn on the picture as it is stored.
        mask.getexif()[ORIENTATION] = stored.getexif()[ORIENTATION]
        mask = ImageOps.exif_transpose(mask)
    if mask is not None and mask.size != image.size:
        text = f"the mask is {mask.width} x {mask.height}, the image {image.width} x {image.height}; make them alike"
        raise GenerationError("invalid_input", text)
    width = width or max(MIN_SIDE, image.width - image.width % MULTIPLE)
    height = height or max(MIN_SIDE, image.height - image.height % MULTIPLE)
    return Inputs(
        _flat(image, "white").convert("RGB").resize((width, height), Image.Resampling.LANCZOS),
        # Not smoothed beyond its edge: what is black stays.
        None if mask is None else _flat(mask, "black").convert("L").resize((width, height), Image.Resampling.NEAREST),
        width,
        height,
    )


def blank(width: int, height: int) -> Inputs:
    """Inputs for any operation: an image of nothing, all of it to be repainted."""
    size = (width, height)
    return Inputs(Image.new("RGB", size), Image.new("L", size, "white"), width, height)


def _decode(file: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(file), formats=INPUT_FORMATS) as image:
            # A second wall behind the front's: the decoder may read a header in another way.
            if image.width * image.height > MAX_INPUT_PIXELS:
                raise GenerationError("invalid_input", f"the {name} is too large")
            image.load()
            return image.copy()
    except GenerationError:
        raise
    except Exception as error:
        # Pillow raises many kinds, from OSError to struct.error, for files that are damaged.
        raise GenerationError("invalid_input", f"the {name} cannot be decoded; it may be damaged") from error


def _flat(image: Image.Image, ground: str) -> Image.Image:
    """Without transparency, and with 8 bits a channel."""
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255 instead of scaling them.
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, ground), whole)
