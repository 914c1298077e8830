"""`image_transform`: an image changed towards a prompt. Front process."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from rbee_sd.messages import STRENGTHS, TRANSFORM
from rbee_sd.operations.image import Prompt
from rbee_sd.operations.input_image import EXAMPLE, InputImageRequest, Strength


class ImageTransform(InputImageRequest):
    """The fields of an `image_transform`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"operation": "image_transform", "prompt": "a blue star", "image": EXAMPLE, "strength": 0.6, "seed": 42}
            ]
        }
    )

    operation: Literal["image_transform"]
    prompt: Prompt = Field("", description="What the image shows; nothing leaves it to the image.")
    strength: Strength = Field(
        STRENGTHS[TRANSFORM], description="How much is changed: the part of the steps that is done."
    )
