"""Input images and masks: from the bytes of a file to pixels of the size that a job works at.

Called in the engine's reading thread; blocks it. The front has looked at the headers only; here is where the files
are decoded, so everything that can be wrong with them ends in `GenerationError`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from rbee_sd.engine.pipeline import GenerationError
from rbee_sd.messages import ALPHA, INPAINT, INPUT_FORMATS, MAX_INPUT_PIXELS, MIN_SIDE, MULTIPLE, Generate

ORIENTATION = 0x0112
"""The EXIF tag."""
HALF = 128
"""From here on what is grey in a mask is painted anew, as diffusers takes it."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a job starts from: RGB and, white where it is to be repainted, L; of the job's size."""

    image: Image.Image | None = None
    mask: Image.Image | None = None
    width: int | None = None
    height: int | None = None


def read(work: Generate) -> Inputs:
    """Decode a job's image, or image and mask, and bring them to the size it asks for, or to the image's own.

    Raises `GenerationError` for files that cannot be decoded or do not belong together.
    """
    width, height = work.width, work.height
    if not work.inputs:
        return Inputs(None, None, width, height)
    stored = _decode(work.inputs[0], "image")
    # Cameras store pictures lying on their side and say so.
    image = ImageOps.exif_transpose(stored)
    mask = _decode(work.inputs[1], "mask") if len(work.inputs) > 1 else None
    if mask is not None and mask.size == stored.size != image.size:
        # It was drawn on the picture as it is stored.
        mask.getexif()[ORIENTATION] = stored.getexif()[ORIENTATION]
        mask = ImageOps.exif_transpose(mask)
    if mask is not None and mask.size != image.size:
        text = f"the mask is {mask.width} x {mask.height}, the image {image.width} x {image.height}; make them alike"
        raise GenerationError("invalid_input", text)
    painted = None
    if mask is not None:
        painted = _painted(mask, work.mask_means)
    elif work.operation == INPAINT:
        painted = _clear(image)
    width = width or max(MIN_SIDE, image.width - image.width % MULTIPLE)
    height = height or max(MIN_SIDE, image.height - image.height % MULTIPLE)
    fitted = partial(_fitted, size=(width, height), fit=work.fit)
    return Inputs(
        fitted(_flat(image, "white").convert("RGB"), how=Image.Resampling.LANCZOS),
        # Not smoothed beyond its edge: what is kept stays.
        None if painted is None else fitted(painted, how=Image.Resampling.NEAREST),
        width,
        height,
    )


def seam(mask: Image.Image, blur: float) -> Image.Image:
    """A mask as what is painted is laid over what is kept: with hard edges, or with edges that are blurred."""
    hard = mask.point(lambda value: 255 if value >= HALF else 0)
    return hard.filter(ImageFilter.GaussianBlur(blur)) if blur else hard


def blank(width: int, height: int) -> Inputs:
    """Inputs for any operation: an image of nothing, all of it to be repainted."""
    size = (width, height)
    return Inputs(Image.new("RGB", size), Image.new("L", size, "white"), width, height)


def _fitted(image: Image.Image, *, size: tuple[int, int], fit: str, how: Image.Resampling) -> Image.Image:
    """An image of this size, as one of `messages.FITS` says."""
    if fit == "crop":
        return ImageOps.fit(image, size, how)
    if fit != "fill":
        return image.resize(size, how)
    whole = ImageOps.contain(image, size, how)
    right, below = size[0] - whole.width, size[1] - whole.height
    around = [(below // 2, below - below // 2), (right // 2, right - right // 2)]
    pixels = np.asarray(whole)
    return Image.fromarray(np.pad(pixels, around + [(0, 0)] * (pixels.ndim - 2), mode="edge"))


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


def _painted(mask: Image.Image, means: str) -> Image.Image:
    """L, white where it is painted anew. Raises `GenerationError` where that is said by transparency, and none is."""
    if means != ALPHA:
        # What can be seen through is kept, whatever is painted.
        kept = "black" if means == "white" else "white"
        grey = _flat(mask, kept).convert("L")
        return grey if means == "white" else ImageOps.invert(grey)
    clear = _clear(mask)
    if clear is None:
        text = "no part of the mask is transparent; transparent is what is painted anew"
        raise GenerationError("invalid_input", text)
    return clear


def _clear(image: Image.Image) -> Image.Image | None:
    """L, white where an image is transparent; None if it is so nowhere."""
    if not image.has_transparency_data:
        return None
    clear = ImageOps.invert(image.convert("RGBA").getchannel("A"))
    return clear if any(clear.histogram()[HALF:]) else None


def _flat(image: Image.Image, ground: str) -> Image.Image:
    """Without transparency, and with 8 bits a channel."""
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255 instead of scaling them.
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, ground), whole)
