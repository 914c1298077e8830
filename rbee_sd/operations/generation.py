"""`image_generation`: images from a prompt. Front process."""

from __future__ import annotations

from typing import Literal

from rbee_sd.operations.image import ImageRequest


class ImageGeneration(ImageRequest):
    """The fields of an `image_generation`: those that all image operations have."""

    operation: Literal["image_generation"] = "image_generation"
