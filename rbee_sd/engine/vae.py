"""What stands in for the VAE in each job's pipeline: decoding and encoding become stages between two forwards.

Runs on the engine's main thread. The pipeline's own code around them (scaling, safety checker, masks) is unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from rbee_sd.engine.calls import Stage, park
from rbee_sd.engine.device import is_out_of_memory, release

log = logging.getLogger(__name__)


class VaeStandIn:
    """Passes for the VAE in one job's pipeline.

    Pictures above `tiling` megapixels are encoded and decoded in tiles, and those for which there is no memory else.
    """

    def __init__(self, vae: Any, scale: int, tiling: float) -> None:
        self._vae = vae
        self._scale = scale
        self._tiling = tiling
        self._can_tile = hasattr(vae, "use_tiling")

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._vae)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def to(self, *_: Any, **__: Any) -> VaeStandIn:
        """Nothing: SDXL would change the number format for all jobs; `encode` and `decode` convert instead."""
        return self

    def encode(self, image: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        """As the VAE's, as a stage."""
        return self._stage(
            image.shape[-2] * image.shape[-1],
            lambda: self._vae.encode(image.to(self._vae.dtype), *arguments, **named),
        )

    def decode(self, latents: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        """As the VAE's, as a stage."""
        return self._stage(
            latents.shape[-2] * latents.shape[-1] * self._scale**2,
            lambda: self._vae.decode(latents.to(self._vae.dtype), *arguments, **named),
        )

    def _stage(self, pixels: int, work: Callable[[], Any]) -> Any:
        tiled = self._can_tile and pixels > self._tiling * 1e6

        def run() -> Any:
            # It is shared, and the size is the job's own.
            self._vae.use_tiling = tiled
            return work()

        def run_tiled() -> Any:
            # Only here is all of it free that the first attempt held.
            release(self._vae.device)
            self._vae.use_tiling = True
            return work()

        try:
            return park(Stage(run))
        except Exception as error:
            # By then all models that could go to make room have gone: tiles change the picture a little, that does not.
            if tiled or not self._can_tile or not is_out_of_memory(error):
                raise
            log.warning(
                "out of memory in the VAE (%s, %d pixels); once more, in tiles", type(self._vae).__name__, pixels
            )
        return park(Stage(run_tiled))
