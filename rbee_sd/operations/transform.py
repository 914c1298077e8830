"""`image_transform`: an image changed towards a prompt. Front process."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rbee_sd.operations.input_image import InputImageRequest, Strength

STRENGTH = 0.8


class ImageTransform(InputImageRequest):
    """The fields of an `image_transform`."""

    operation: Literal["image_transform"]
    strength: Strength = Field(STRENGTH, description="How much is changed: the part of the steps that is done.")
