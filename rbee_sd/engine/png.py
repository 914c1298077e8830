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

from rbee_sd import __version__

PREVIEW_SIDE = 256
"""Pixels of a preview's longer side, or the picture's own if that is less."""
PREVIEW_QUALITY = 80

# What AUTOMATIC1111 calls a sampler, and its schedule where that is not the ordinary one.
SAMPLERS = {
    "ddim": "DDIM",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M, Schedule type: Karras",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "lms": "LMS",
    "pndm": "PLMS",
    "unipc": "UniPC",
}


def png(pixels: npt.NDArray[np.uint8], recipe: dict[str, Any], keep: tuple[Image.Image, Image.Image] | None) -> bytes:
    """The PNG file of (height, width, 3) pixels. `keep`: an image, and the mask that is white where it is replaced."""
    image = Image.fromarray(pixels)
    if keep is not None:
        original, mask = keep
        # The model has repainted all of it, from its own idea of what was to stay.
        image = Image.composite(image, original, mask.point(lambda value: 255 if value >= 128 else 0))
    info = PngInfo()
    info.add_text("parameters", parameters(recipe))
    info.add_text("rbee-sd", json.dumps(recipe, ensure_ascii=False))
    file = io.BytesIO()
    # Level 1 is about half the time of the default for a few percent of size.
    image.save(file, "PNG", compress_level=1, pnginfo=info)
    return file.getvalue()


def parameters(recipe: dict[str, Any]) -> str:
    """The recipe as AUTOMATIC1111's web UI writes it: prompt, negative prompt, and a line that begins with Steps."""
    fields = {
        "Steps": recipe["steps"],
        "Sampler": SAMPLERS.get(recipe["scheduler"], recipe["scheduler"]),
        "CFG scale": recipe["guidance_scale"],
        "Seed": recipe["seed"],
        "Size": f"{recipe['width']}x{recipe['height']}",
        "Model": _quoted(recipe["model"]),
        "Denoising strength": recipe.get("strength"),
        "Version": f"rbee-sd {__version__}",
    }
    prompt = recipe["prompt"] + "".join(f" <lora:{each['name']}:{each['scale']:g}>" for each in recipe["loras"])
    lines = [prompt]
    if recipe["negative_prompt"]:
        lines.append(f"Negative prompt: {recipe['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None))
    return "\n".join(lines)


def preview_jpeg(pixels: npt.NDArray[np.uint8], width: int, height: int) -> bytes:
    """The JPEG file of a preview of a picture that will have this size."""
    share = min(1.0, PREVIEW_SIDE / max(width, height))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=PREVIEW_QUALITY)
    return file.getvalue()


def _quoted(value: str) -> str:
    """Values with the characters that separate fields are written as JSON strings."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',:\n"') else value
