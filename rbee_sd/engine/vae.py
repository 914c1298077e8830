"""What stands in for the VAE in each job's pipeline: decoding and encoding become stages between two forwards.

Runs on the engine's main thread. The pipeline's own code around them (scaling, safety checker, masks) is unchanged.
"""

from __future__ import annotations

from typing import Any

import torch

from rbee_sd.engine.calls import Stage, park


class VaeStandIn:
    """Passes for the VAE in one job's pipeline. Pictures above `tiling` megapixels are encoded and decoded in tiles."""

    def __init__(self, vae: Any, scale: int, tiling: float) -> None:
        self._vae = vae
        self._scale = scale
        self._tiling = tiling

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

        def run() -> Any:
            self._tile(image.shape[-2] * image.shape[-1])
            return self._vae.encode(image.to(self._vae.dtype), *arguments, **named)

        return park(Stage(run))

    def decode(self, latents: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        """As the VAE's, as a stage."""

        def run() -> Any:
            self._tile(latents.shape[-2] * latents.shape[-1] * self._scale**2)
            return self._vae.decode(latents.to(self._vae.dtype), *arguments, **named)

        return park(Stage(run))

    def _tile(self, pixels: int) -> None:
        # It is shared, and the size is the job's own.
        self._vae.use_tiling = pixels > self._tiling * 1e6
