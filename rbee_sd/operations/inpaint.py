"""`image_inpaint`: the white parts of a mask painted anew. Front process."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from rbee_sd.errors import FieldError
from rbee_sd.operations.input_image import EXAMPLE, Input, InputImageRequest, Strength

STRENGTH = 1.0


class ImageInpaint(InputImageRequest):
    """The fields of an `image_inpaint`."""

    aliases: ClassVar[dict[str, str]] = {**InputImageRequest.aliases, "mask_image": "mask"}

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"operation": "image_inpaint", "prompt": "a green heart", "image": EXAMPLE, "mask": EXAMPLE, "seed": 42}
            ]
        }
    )

    operation: Literal["image_inpaint"]
    mask: Input = Field(description="Of the image's size; white is painted anew, black is kept.")
    strength: Strength = Field(STRENGTH, description="How much the white parts are changed.")

    def crossed(self, context: Any) -> list[FieldError]:
        """Also whether the mask fits the image."""
        wrong = super().crossed(context)
        fitting = [(self.image.width, self.image.height)]
        if self.image.kind == "jpeg":
            # A photograph may lie on its side and the mask be drawn upright; the engine sees to that.
            fitting.append((self.image.height, self.image.width))
        if (self.mask.width, self.mask.height) not in fitting:
            text = (
                f"the mask is {self.mask.width} x {self.mask.height}, "
                f"the image {self.image.width} x {self.image.height}; they must be of one size"
            )
            wrong.append(FieldError("mask", "size", text, str(self.mask)))
        return wrong

    def inputs(self) -> tuple[bytes, ...]:
        """The files of image and mask."""
        return (self.image.data, self.mask.data)
