"""`image_inpaint`: the parts of an image that a mask names painted anew. Front process."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from rbee_sd.errors import FieldError
from rbee_sd.messages import ALPHA, INPAINT, STRENGTHS
from rbee_sd.operations.input_image import EXAMPLE, InputImageRequest, Strength
from rbee_sd.operations.limits import MAX_MASK_BLUR
from rbee_sd.operations.picture import Picture, picture_in


def _mask_in(value: Any) -> Picture | None:
    # None is the default; a null that was sent does not come here.
    return None if value is None else picture_in(value)


Mask = Annotated[Picture | None, PlainValidator(_mask_in, json_schema_input_type=str), PlainSerializer(str)]


class ImageInpaint(InputImageRequest):
    """The fields of an `image_inpaint`."""

    aliases: ClassVar[dict[str, str]] = {**InputImageRequest.aliases, "mask_image": "mask"}

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["mask"]},
                {"required": ["mask_image"]},
                {"properties": {"mask_means": {"const": ALPHA}}, "required": ["mask_means"]},
            ],
            "examples": [
                {"operation": "image_inpaint", "prompt": "a green heart", "image": EXAMPLE, "mask": EXAMPLE, "seed": 42}
            ],
        }
    )

    operation: Literal["image_inpaint"]
    mask_means: Literal["white", "black", "alpha"] = Field(
        "white", description="What of the mask is painted anew: the white part, the black part or the transparent one."
    )
    mask: Mask = Field(
        None, validate_default=True, description="Of the image's size. By alpha the image may be its own mask."
    )
    mask_blur: float = Field(
        0.0, ge=0, le=MAX_MASK_BLUR, description="Pixels over which what is painted passes into what is kept."
    )
    strength: Strength = Field(STRENGTHS[INPAINT], description="How much the painted parts are changed.")

    @field_validator("mask")
    @classmethod
    def _needed(cls, value: Picture | None, info: ValidationInfo) -> Picture | None:
        if value is None and info.data.get("mask_means") != ALPHA:
            raise PydanticCustomError("missing", "this field is required")
        return value

    def crossed(self, context: Any) -> list[FieldError]:
        """Also whether the mask fits the image."""
        wrong = super().crossed(context)
        fitting = [(self.image.width, self.image.height)]
        if self.image.kind == "jpeg":
            # A photograph may lie on its side and the mask be drawn upright; the engine sees to that.
            fitting.append((self.image.height, self.image.width))
        if self.mask is not None and (self.mask.width, self.mask.height) not in fitting:
            text = (
                f"the mask is {self.mask.width} x {self.mask.height}, "
                f"the image {self.image.width} x {self.image.height}; they must be of one size"
            )
            wrong.append(FieldError("mask", "size", text, str(self.mask)))
        return wrong

    def inputs(self) -> tuple[bytes, ...]:
        """The files of the image and, unless it is its own, of the mask."""
        return (self.image.data,) if self.mask is None else (self.image.data, self.mask.data)

    def amount(self) -> float | None:
        """The strength. Left open for an image that is its own mask: with nothing transparent, all of it is changed."""
        return None if self.mask is None and "strength" not in self.model_fields_set else self.strength

    def treatment(self) -> dict[str, Any]:
        """Also how the mask is taken."""
        return super().treatment() | {"mask_means": self.mask_means, "mask_blur": self.mask_blur}
