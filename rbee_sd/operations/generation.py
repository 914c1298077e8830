"""`image_generation`: images from a prompt. Front process."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from rbee_sd.operations.image import ImageRequest


class ImageGeneration(ImageRequest):
    """The fields of an `image_generation`: those that all image operations have."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a red circle on a blue background", "steps": 20, "seed": 42}]}
    )

    operation: Literal["image_generation"] = "image_generation"
