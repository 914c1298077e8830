"""`png-info`: how a picture was made, read back out of its file. Front process, IOLoop thread; some milliseconds."""

from __future__ import annotations

from typing import ClassVar

import orjson

from rbee_sd.errors import FieldError
from rbee_sd.http.docs.description import JSON, Answer, Doc, Docs
from rbee_sd.http.sdapi import answers
from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.requests import PngInfo
from rbee_sd.operations.body import invalid
from rbee_sd.operations.picture import picture_in
from rbee_sd.parameters import infotext
from rbee_sd.parameters.picture import RECIPE, Parameters, parameters_in


class PngInfoHandler(SdapiHandler):
    """`/sdapi/v1/png-info`."""

    takes = PngInfo
    docs: ClassVar[Docs] = {
        "POST": Doc(
            "How a picture was made, read out of its file",
            {200: Answer("What is in it.", {JSON: answers.PngParameters})},
            errors=(415,),
            body={JSON: PngInfo},
        )
    }

    def post(self) -> None:
        """The text in the picture, taken apart too; empty for one without."""
        try:
            found = parameters_in(picture_in(self.read(PngInfo).image).data)
        except ValueError as error:
            raise invalid([FieldError("image", "value_error", str(error))]) from error
        items = {RECIPE: orjson.dumps(found.fields).decode()} if found.fields else {}
        self.answer({"info": found.text, "items": items, "parameters": _parameters(found)})


def _parameters(found: Parameters) -> dict[str, str]:
    """The text's parts under the names of the original, which splits the size in two."""
    if not found.text:
        return {}
    info = infotext.parse(found.text)
    parts = {"Prompt": info.prompt, "Negative prompt": info.negative_prompt, **info.settings}
    width, x, height = parts.get("Size", "").partition("x")
    return parts | ({"Size-1": width, "Size-2": height} if x else {})
