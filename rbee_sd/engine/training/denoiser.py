"""Third stage: the UNet learns which latents a caption means.

The latents of all training pictures are made once; each time one is used it gets another caption, another noise and
another moment of the denoising.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderTiny, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from rbee_sd.engine.training.autoencoder import to_tensor
from rbee_sd.engine.training.captions import caption
from rbee_sd.engine.training.parts import SIDE, build_noise
from rbee_sd.engine.training.reader import tokenize
from rbee_sd.engine.training.scenes import Scene, random_scene
from rbee_sd.engine.training.trainer import Place, Schedule, keep, train

SCHEDULE = Schedule(steps=9500, batch=64, learning_rate=1e-3, warm_up=300, decay=0.999, half=True)
PICTURES = {(SIDE, SIDE): 48_000, (160, 96): 4_000, (96, 160): 4_000}
"""How many of each size (width, height): a few that are not square, so that it can make such, too."""
DROPOUT = 0.12
"""Captions left empty, for guidance (Ho and Salimans 2022, classifier-free)."""
EMPHASIS = 4.0
"""How much more things count than the background, at first: they are a tenth of a picture, and all it is about.

It falls to nothing towards the end, because it makes things a little too likely.
"""
PAIRS_AS_OFTEN = 3.0
"""How many times as often as others pictures with two things are used: whose colour is whose is learnt last."""
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Examples:
    """Pictures of one size: what they show, and their latents (rows, 4, height / 8, width / 8) in half precision."""

    scenes: list[Scene]
    latents: torch.Tensor

    @cached_property
    def weights(self) -> list[float]:
        """How often each is used, added up from the first to it."""
        return list(accumulate(PAIRS_AS_OFTEN if len(scene.things) > 1 else 1.0 for scene in self.scenes))


def amount(fraction: float) -> tuple[Schedule, dict[tuple[int, int], int]]:
    """A part or a multiple of the steps, and a part of the pictures."""
    pictures = {size: max(1, round(count * min(fraction, 1))) for size, count in PICTURES.items()}
    return SCHEDULE.part(fraction), pictures


def train_denoiser(
    place: Place,
    unet: UNet2DConditionModel,
    vae: AutoencoderTiny,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    schedule: Schedule,
    pictures: dict[tuple[int, int], int],
    name: str = "denoiser",
) -> None:
    """Train it in place, or go on; sets the autoencoder's scaling factor: its latents have a deviation of one then."""
    noising = build_noise()
    examples = [_examples(place, vae, size, count) for size, count in pictures.items()]
    factor = 1 / examples[0].latents.float().std().item()
    vae.register_to_config(scaling_factor=factor)
    weights = list(pictures.values())

    def loss_of(done: float, chance: random.Random) -> torch.Tensor:
        (known,) = chance.choices(examples, weights)
        chosen = chance.choices(range(len(known.scenes)), cum_weights=known.weights, k=schedule.batch)
        texts = ["" if chance.random() < DROPOUT else caption(known.scenes[each], chance) for each in chosen]
        with torch.no_grad():
            states = text_encoder(tokenize(tokenizer, texts).to(place.device))[0]
        latents = known.latents[chosen].to(place.device, torch.float32) * factor
        noise = torch.randn_like(latents)
        moments = _moments(schedule.batch, noising.config["num_train_timesteps"]).to(place.device)
        told = unet(noising.add_noise(latents, noise, moments), moments, states).sample
        errors = functional.mse_loss(told, noising.get_velocity(latents, noise, moments), reduction="none")
        loss: torch.Tensor = (errors * (1 + EMPHASIS * (1 - done) * _foreground(latents))).mean()
        return loss

    train(name, unet, loss_of, schedule, place)


def _moments(rows: int, count: int) -> torch.Tensor:
    """Timesteps, most of them around the middle, where shapes are decided (logit-normal, as Esser et al. 2024)."""
    return (torch.sigmoid(torch.randn(rows)) * count).long()


def _examples(place: Place, vae: AutoencoderTiny, size: tuple[int, int], count: int) -> Examples:
    width, height = size
    chance = random.Random(f"pictures {place.seed} {width} {height}")
    scenes = [random_scene(chance, width / height) for _ in range(count)]
    path = place.folder / f"latents-{width}x{height}-{_mark(vae, place.seed, count)}.pt"
    if path.exists():
        return Examples(scenes, torch.load(path, weights_only=True))
    parts = []
    for first in tqdm(range(0, count, ENCODED_AT_ONCE), f"{width} x {height}", unit="batch"):
        some = [to_tensor(scene, width, height) for scene in scenes[first : first + ENCODED_AT_ONCE]]
        with torch.no_grad():
            parts.append(vae.encode(torch.stack(some).to(place.device)).latents.half().cpu())
    latents = torch.cat(parts)
    keep(path, latents)
    return Examples(scenes, latents)


def _mark(vae: AutoencoderTiny, seed: int, count: int) -> str:
    """Differs when the latents would."""
    mark = zlib.crc32(f"{seed} {count}".encode())
    for parameter in vae.encoder.parameters():
        mark = zlib.crc32(parameter.detach().cpu().numpy().tobytes(), mark)
    return f"{mark:08x}"


def _foreground(latents: torch.Tensor) -> torch.Tensor:
    """(rows, 1, h, w): 1 where latents differ from what most of their picture is."""
    most = latents.flatten(2).median(dim=2).values[:, :, None, None]
    return ((latents - most).square().mean(dim=1, keepdim=True) > 0.1).float()
