"""Second stage: the text encoder learns to read, by answering questions on captions. No pictures yet.

Published models begin with a text encoder that was trained before (CLIP); so does this one, on the only subject it
needs. A linear map has the answers from any position behind the end of a caption, so that the denoiser finds them.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as functional
from transformers import CLIPTextModel, CLIPTokenizer

from rbee_sd.engine.training.captions import caption
from rbee_sd.engine.training.parts import PROMPT_TOKENS, TEXT_WIDTH, build_text_encoder
from rbee_sd.engine.training.scenes import COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES, Scene, random_scene
from rbee_sd.engine.training.trainer import Place, Schedule, train

SCHEDULE = Schedule(steps=2500, batch=64, learning_rate=1e-3, warm_up=100, decay=0.995)
ANSWERS: dict[str, tuple[str | None, ...]] = {
    "background": tuple(COLOURS),
    "place": (*POSITIONS, None, "across", "down"),
    **{f"colour {number}": tuple(COLOURS) for number in range(2)},
    **{f"shape {number}": SHAPES for number in range(2)},
    **{f"size {number}": (*SIZES, None) for number in range(2)},
}
"""Questions on a scene, and what may be said. Of two things, the first is the left or upper one."""
NO_ANSWER = -100
"""What cross entropy leaves out."""


def train_reader(place: Place, tokenizer: CLIPTokenizer, schedule: Schedule) -> CLIPTextModel:
    """Train the text encoder, or go on with it."""
    torch.manual_seed(place.seed)
    text_encoder = build_text_encoder(tokenizer)
    heads = torch.nn.ModuleDict({question: torch.nn.Linear(TEXT_WIDTH, len(ANSWERS[question])) for question in ANSWERS})
    module = torch.nn.ModuleDict({"text_encoder": text_encoder, "heads": heads})

    def loss_of(_: float, chance: random.Random) -> torch.Tensor:
        scenes = [random_scene(chance) for _ in range(schedule.batch)]
        ids = tokenize(tokenizer, [caption(scene, chance) for scene in scenes]).to(place.device)
        states = text_encoder(ids)[0]
        # One of the positions that hold the end token: they fill up what a caption leaves free.
        ends = (ids[:, 1:] == tokenizer.eos_token_id).float()
        state = states[torch.arange(len(ids), device=place.device), 1 + torch.multinomial(ends, 1)[:, 0]]
        asked = [answers(scene) for scene in scenes]
        losses = [
            functional.cross_entropy(
                heads[question](state),
                torch.tensor([answer[question] for answer in asked], device=place.device),
                ignore_index=NO_ANSWER,
            )
            for question in ANSWERS
        ]
        return torch.stack(losses).sum()

    train("text encoder", module, loss_of, schedule, place)
    return text_encoder


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids (rows, 77), as the pipeline makes them."""
    told = tokenizer(texts, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = told.input_ids
    return ids


def answers(scene: Scene) -> dict[str, int]:
    """The number of the right answer to each question; NO_ANSWER where there is none."""
    things = sorted(scene.things, key=lambda thing: thing.x + thing.y)
    place = scene.position
    if scene.relation is not None:
        place = "across" if RELATIONS[scene.relation][0] else "down"
    right = {"background": scene.background, "place": place}
    for number, thing in enumerate(things):
        right |= {f"colour {number}": thing.colour, f"shape {number}": thing.shape, f"size {number}": thing.size}
    return {
        question: known.index(right[question]) if question in right else NO_ANSWER
        for question, known in ANSWERS.items()
    }
