"""First stage: diffusers' AutoencoderTiny learns to keep pictures of scenes in latents an eighth as high and wide.

Three of the four latent channels are made to be the mean colour of their cell, the fourth is free for what is finer.
Left alone it finds codes for edges that are as exact and have no such order, and the denoiser learns no shapes in them.
"""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderTiny

from rbee_sd.engine.training.drawing import draw
from rbee_sd.engine.training.parts import SIDE, VAE_SCALE, build_autoencoder
from rbee_sd.engine.training.scenes import Scene, random_scene
from rbee_sd.engine.training.trainer import Place, Schedule, train

SCHEDULE = Schedule(steps=5000, batch=32, learning_rate=2e-3, warm_up=100, decay=0.998, half=True)
CROP = 64
"""Pixels; an edge is an edge in a crop too, at a quarter of the cost."""
LATENT_NOISE = 0.15
"""Added to latents before they are decoded: the denoiser will not hit them exactly either."""
LATENT_WEIGHT = 1e-3
"""Of the latents' square in the loss, which keeps them about as large as that noise asks for."""
COLOUR_WEIGHT = 1.0
"""Of the squared difference between the first three latent channels and the mean colours."""
ABSOLUTE_WEIGHT = 0.3
SOFT = 0.15
"""Share of soft colour fields instead of scenes, so that other pictures than scenes come through too."""


def train_autoencoder(place: Place, schedule: Schedule) -> AutoencoderTiny:
    """Train it, or go on with it."""
    torch.manual_seed(place.seed)
    # In this layout its convolutions are half as fast again on a CPU; the denoiser's are not.
    vae = build_autoencoder().to(memory_format=torch.channels_last)

    def loss_of(_: float, chance: random.Random) -> torch.Tensor:
        pictures = _crops(chance, schedule.batch).to(place.device)
        latents = vae.encode(pictures).latents
        noisy = latents + LATENT_NOISE * torch.randn_like(latents)
        painted = vae.decode(noisy).sample
        painted = painted.float()
        exact = functional.mse_loss(painted, pictures) + ABSOLUTE_WEIGHT * functional.l1_loss(painted, pictures)
        latents = latents.float()
        colours = functional.mse_loss(latents[:, :3], functional.avg_pool2d(pictures, VAE_SCALE))
        loss: torch.Tensor = exact + COLOUR_WEIGHT * colours + LATENT_WEIGHT * latents.square().mean()
        return loss

    train("autoencoder", vae, loss_of, schedule, place)
    return vae


def to_tensor(scene: Scene, width: int, height: int) -> torch.Tensor:
    """The drawn scene as (3, height, width) in -1..1."""
    pixels = torch.from_numpy(np.asarray(draw(scene, width, height), dtype=np.float32))
    return pixels.permute(2, 0, 1) / 127.5 - 1


def _crops(chance: random.Random, rows: int) -> torch.Tensor:
    return torch.stack([_soft() if chance.random() < SOFT else _crop(chance) for _ in range(rows)])


def _soft() -> torch.Tensor:
    cells = int(torch.randint(2, 9, ()))
    coarse = torch.rand(1, 3, cells, cells) * 2 - 1
    return functional.interpolate(coarse, size=(CROP, CROP), mode="bicubic").clamp(-1, 1)[0]


def _crop(chance: random.Random) -> torch.Tensor:
    """A part of a picture with something of a thing in it."""
    scene = random_scene(chance)
    thing = chance.choice(scene.things)
    left, top = (
        max(0, min(SIDE - CROP, round((0.5 + at + chance.uniform(-0.25, 0.25)) * SIDE - CROP / 2)))
        for at in (thing.x, thing.y)
    )
    return to_tensor(scene, SIDE, SIDE)[:, top : top + CROP, left : left + CROP]
