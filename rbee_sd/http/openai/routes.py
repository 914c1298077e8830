"""The routes of the OpenAI Images API. Front process."""

from __future__ import annotations

from rbee_sd.http.openai.handlers import (
    DialectHandler,
    EditsHandler,
    GenerationsHandler,
    ModelHandler,
    ModelsHandler,
    VariationsHandler,
)

OPENAI: tuple[tuple[str, type[DialectHandler]], ...] = (
    (r"/v1/images/generations", GenerationsHandler),
    (r"/v1/images/edits", EditsHandler),
    (r"/v1/images/variations", VariationsHandler),
    (r"/v1/models", ModelsHandler),
    (r"/v1/models/([^/]+)", ModelHandler),
)
