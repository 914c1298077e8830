"""What schemathesis cannot make up: images, and one Idempotency-Key for each body. Loaded by schemathesis.toml."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.pictures import png, text

IMAGE = text(png())
IMAGES = ("image", "input_image", "init_image", "mask", "mask_image")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Change a request on its way."""
    # The same few keys would come with ever other bodies, which is a conflict each time.
    if case.headers:
        case.headers.pop("Idempotency-Key", None)
    if isinstance(case.body, dict):
        case.body.update({name: IMAGE for name in IMAGES if isinstance(case.body.get(name), str)})
