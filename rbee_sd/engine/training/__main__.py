"""bin/train-demo-model: trains the model `demo`, or measures what it draws. A process of its own; blocks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import torch

from rbee_sd.engine.config import DEMO
from rbee_sd.engine.training import autoencoder, denoiser, evaluation, reader
from rbee_sd.engine.training.parts import build_tokenizer, build_unet, save
from rbee_sd.engine.training.trainer import CheckpointError, Place

RUN = Path("build") / "demo-model"
"""Where checkpoints are kept, unless told otherwise; not in the repository."""
IMPROVEMENT = "improvement"


@click.command()
@click.argument("what", type=click.Choice(["train", "improve", "evaluate"]), default="train")
@click.option("--model", type=click.Path(path_type=Path), default=DEMO, help="Its folder. [default: the package's own]")
@click.option("--device", default="", help="cpu, cuda, mps ... [default: cuda where there is one]")
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, help="Of the CPU. [default: all]")
@click.option("--seed", default=0, show_default=True, help="Another one gives another model, or other captions.")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    default=RUN,
    show_default=True,
    help="Where checkpoints are kept. A training goes on from what is there.",
)
@click.option(
    "--fraction",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.0,
    show_default=True,
    help="Of the steps: less for a try, more to improve.",
)
@click.option("--captions", type=click.IntRange(1), default=500, show_default=True, help="How many to evaluate with.")
def main(
    what: str, model: Path, device: str, threads: int, seed: int, run: Path, fraction: float, captions: int
) -> None:
    """Train the embedded model `demo`.

    \b
    train     from nothing
    improve   goes on with the denoiser of the model as it is
    evaluate  draws captions that training never saw, and scores the pictures
    """
    torch.set_num_threads(threads)
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if what == "evaluate":
        _evaluate(model, on, captions, seed)
        return
    place = Place(run, on, seed)
    place.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        (_train if what == "train" else _improve)(place, model, fraction)
    except CheckpointError as error:
        raise click.ClickException(str(error)) from error
    minutes = (time.monotonic() - began) / 60
    click.echo(f"{model} is trained, in {minutes:.1f} min; bin/train-demo-model evaluate says how good it is")


def _train(place: Place, model: Path, fraction: float) -> None:
    tokenizer = build_tokenizer()
    vae = autoencoder.train_autoencoder(place, autoencoder.SCHEDULE.part(fraction))
    text_encoder = reader.train_reader(place, tokenizer, reader.SCHEDULE.part(fraction))
    torch.manual_seed(place.seed)
    unet = build_unet()
    denoiser.train_denoiser(place, unet, vae, tokenizer, text_encoder, *denoiser.amount(fraction))
    save(model, vae, text_encoder, unet)


def _improve(place: Place, model: Path, fraction: float) -> None:
    pipeline = evaluation.load(model, place.device)
    parts = (pipeline.unet, pipeline.vae, pipeline.tokenizer, pipeline.text_encoder)
    denoiser.train_denoiser(place, *parts, *denoiser.amount(fraction), name=IMPROVEMENT)
    save(model, pipeline.vae, pipeline.text_encoder, pipeline.unet)
    # The next improvement begins where this one ended.
    (place.folder / f"{IMPROVEMENT}.pt").unlink()


def _evaluate(model: Path, device: torch.device, count: int, seed: int) -> None:
    pipeline = evaluation.load(model, device)
    captions = evaluation.held_out_captions(count, seed)
    lines = [evaluation.heading()]
    for guidance, steps in evaluation.WAYS:
        counts = evaluation.evaluate(pipeline, captions, guidance, steps, seed)
        lines.append(evaluation.line(guidance, steps, counts))
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
