"""The routes of AUTOMATIC1111's dialect. Front process."""

from __future__ import annotations

from rbee_sd.http.sdapi import catalogue
from rbee_sd.http.sdapi.base import SdapiHandler
from rbee_sd.http.sdapi.images import Img2ImgHandler, Txt2ImgHandler
from rbee_sd.http.sdapi.options import FlagsHandler, MemoryHandler, OptionsHandler, RefreshHandler
from rbee_sd.http.sdapi.png_info import PngInfoHandler
from rbee_sd.http.sdapi.progress import InterruptHandler, ProgressHandler

SDAPI: tuple[tuple[str, type[SdapiHandler]], ...] = (
    (r"/sdapi/v1/txt2img", Txt2ImgHandler),
    (r"/sdapi/v1/img2img", Img2ImgHandler),
    (r"/sdapi/v1/progress", ProgressHandler),
    (r"/sdapi/v1/interrupt", InterruptHandler),
    (r"/sdapi/v1/skip", InterruptHandler),
    (r"/sdapi/v1/png-info", PngInfoHandler),
    (r"/sdapi/v1/options", OptionsHandler),
    (r"/sdapi/v1/cmd-flags", FlagsHandler),
    (r"/sdapi/v1/memory", MemoryHandler),
    (r"/sdapi/v1/refresh-checkpoints", RefreshHandler),
    (r"/sdapi/v1/refresh-loras", RefreshHandler),
    (r"/sdapi/v1/sd-models", catalogue.ModelsHandler),
    (r"/sdapi/v1/samplers", catalogue.SamplersHandler),
    (r"/sdapi/v1/schedulers", catalogue.SchedulersHandler),
    (r"/sdapi/v1/loras", catalogue.LorasHandler),
    (r"/sdapi/v1/upscalers", catalogue.UpscalersHandler),
    (r"/sdapi/v1/latent-upscale-modes", catalogue.EmptyListHandler),
    (r"/sdapi/v1/sd-vae", catalogue.EmptyListHandler),
    (r"/sdapi/v1/hypernetworks", catalogue.EmptyListHandler),
    (r"/sdapi/v1/face-restorers", catalogue.EmptyListHandler),
    (r"/sdapi/v1/realesrgan-models", catalogue.EmptyListHandler),
    (r"/sdapi/v1/prompt-styles", catalogue.EmptyListHandler),
    (r"/sdapi/v1/script-info", catalogue.EmptyListHandler),
    (r"/sdapi/v1/scripts", catalogue.ScriptsHandler),
    (r"/sdapi/v1/embeddings", catalogue.EmbeddingsHandler),
)
