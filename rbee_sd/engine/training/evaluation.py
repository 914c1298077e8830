"""Has a model draw captions of combinations it has never seen, and counts what is right in the pictures.

It draws with diffusers' own pipeline, many pictures at a time, on the device it is told.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from rbee_sd.engine.training.captions import caption
from rbee_sd.engine.training.parts import GUIDANCE
from rbee_sd.engine.training.scenes import Scene, random_scene
from rbee_sd.engine.training.scoring import look, score

WAYS = ((GUIDANCE, 20), (GUIDANCE, 8), (1.0, 20), (1.0, 8))
"""Guidance and steps; a guidance of 1 is none."""
COLUMNS = ("background", "colour", "shape", "size", "position", "all")
DRAWN_AT_ONCE = 20


def held_out_captions(count: int, seed: int) -> list[tuple[str, Scene]]:
    """Captions that say all that is scored, and what they mean; each with a combination that training never saw."""
    chance = random.Random(f"evaluation {seed}")
    scenes = [random_scene(chance, unseen=True) for _ in range(count)]
    return [(caption(scene, chance, complete=True), scene) for scene in scenes]


def load(folder: Path, device: torch.device) -> Any:
    """The model in a folder, in single precision."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def evaluate(pipeline: Any, captions: list[tuple[str, Scene]], guidance: float, steps: int, seed: int) -> Counter[str]:
    """The scores of all captions, added up; see `score`."""
    counts: Counter[str] = Counter()
    told = f"guidance {guidance:g}, {steps} steps"
    for scene, picture in _drawn(pipeline, captions, guidance, steps, seed, told):
        counts += score(scene, look(picture))
    return counts


def _drawn(
    pipeline: Any, captions: list[tuple[str, Scene]], guidance: float, steps: int, seed: int, told: str
) -> Iterator[tuple[Scene, Any]]:
    for first in tqdm(range(0, len(captions), DRAWN_AT_ONCE), told, unit="batch"):
        some = captions[first : first + DRAWN_AT_ONCE]
        seeds = [torch.Generator().manual_seed(seed + first + index) for index in range(len(some))]
        with torch.inference_mode():
            result = pipeline(
                [text for text, _ in some], generator=seeds, guidance_scale=guidance, num_inference_steps=steps
            )
        yield from zip((scene for _, scene in some), result.images, strict=True)


def heading() -> str:
    """The first two lines of the table, Markdown."""
    return f"| guidance | steps | {' | '.join(COLUMNS)} |\n|{'---:|' * (2 + len(COLUMNS))}"


def line(guidance: float, steps: int, counts: Counter[str]) -> str:
    """One line of the table: what share is right of what was asked for."""
    shares = (f"{100 * counts[what] / counts[f'{what} of']:.1f} %" for what in COLUMNS)
    return f"| {'none' if guidance == 1 else f'{guidance:g}'} | {steps} | {' | '.join(shares)} |"
