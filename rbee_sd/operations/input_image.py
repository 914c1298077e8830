"""What the operations on an input image share: the image, how much of it is changed, and the size that follows.

Front process. Of the image only the header is read here; it is decoded in the engine.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainSerializer, PlainValidator

from rbee_sd.errors import FieldError
from rbee_sd.messages import MIN_SIDE, MULTIPLE
from rbee_sd.operations.image import ImageRequest, limits_of
from rbee_sd.operations.limits import MAX_STRENGTH, Limits
from rbee_sd.operations.picture import Picture, picture_in

# Echoed as what it is, not as its megabytes.
Input = Annotated[Picture, PlainValidator(picture_in, json_schema_input_type=str), PlainSerializer(str)]
Strength = Annotated[float, Field(gt=0, le=MAX_STRENGTH)]
EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQAAAACCEkxzAAAAFUlEQVR42mNgAIL/QMAwyhhlkM4AAPTk/wHgcfYIAAAAAElFTkSuQmCC"
"""A PNG of 64 x 64 pixels: black on the left, white on the right."""


class InputImageRequest(ImageRequest):
    """`width` and `height` left out mean the image's own, rounded down to multiples of 8; the engine settles them."""

    aliases: ClassVar[dict[str, str]] = {"input_image": "image", "init_image": "image"}

    image: Input = Field(description="PNG, JPEG or WebP, in base64 or as a data: URL.")
    strength: Strength
    fit: Literal["stretch", "crop", "fill"] = Field(
        "stretch", description="How an image of another shape is brought to width x height."
    )

    def crossed(self, context: Any) -> list[FieldError]:
        """Whether any step is left to do, and whether the image's size is one that can be made."""
        limits = limits_of(context)
        width, height, steps = self.work(limits)
        wrong = []
        if steps < 1:
            text = f"{self.strength:g} of the steps is less than one; ask for more steps or more strength"
            wrong.append(FieldError("strength", "no_step", text, self.strength))
        largest = limits.settings.max_side
        if not (MIN_SIDE <= width <= largest and MIN_SIDE <= height <= largest):
            text = (
                f"at {self.image.width} x {self.image.height} it cannot say how large the result shall be "
                f"({MIN_SIDE} to {largest}); give width and height"
            )
            wrong.append(FieldError("image", "size", text, str(self.image)))
        return wrong or super().crossed(context)

    def work(self, limits: Limits) -> tuple[int, int, int]:
        """Size and steps of each image; the part of the steps that `strength` leaves, counted as diffusers does."""
        _, _, steps = super().work(limits)
        if (self.width is None) != (self.height is None):
            # The engine may have to turn the picture, as cameras ask for, so the other side may be either.
            longest = max(self.image.width, self.image.height) // MULTIPLE * MULTIPLE
            return self.width or longest, self.height or longest, int(steps * self.strength)
        width = self.width or self.image.width // MULTIPLE * MULTIPLE
        height = self.height or self.image.height // MULTIPLE * MULTIPLE
        return width, height, int(steps * self.strength)

    def inputs(self) -> tuple[bytes, ...]:
        """The image's file."""
        return (self.image.data,)

    def amount(self) -> float | None:
        """The strength."""
        return self.strength

    def treatment(self) -> dict[str, Any]:
        """How the image is made to fit."""
        return {"fit": self.fit}
