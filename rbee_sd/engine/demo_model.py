"""Builds the embedded model `demo`: a very small Stable Diffusion pipeline in the ordinary diffusers layout.

Owns the sizes, the vocabulary and the weights of the folder `demo/` beside this module. A developer runs it
through `bin/make-demo-model`; the worker never imports it, it loads the folder like any other model.

The weights are random, drawn from a fixed seed: the pictures are coloured noise that depends on seed, prompt,
steps and guidance as a real model's do. A later release trains them.
"""

import argparse
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

DEMO_FOLDER = Path(__file__).parent / "demo"

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
PROMPT_TOKENS = 77
TEXT_WIDTH = 64

# Words of simple captions; each becomes one token. Every other text is spelt out in smaller pieces.
CAPTION_VOCABULARY = """
a an the and or of on in at to with by is no not one two three
red orange yellow green blue purple violet pink brown black white grey gray cyan magenta turquoise gold
colour color coloured colored dark light bright
circle disc disk dot ball square box rectangle triangle star ring cross plus heart crescent moon diamond
ellipse oval hexagon pentagon arrow line shape shapes
circles squares triangles stars rings crosses hearts crescents diamonds
small little tiny large big huge medium size sized
left right top bottom centre center middle corner side upper lower above below under over beside next near
between behind front inside
background backdrop picture image drawing photo painting plain simple solid
"""
CAPTION_WORDS = tuple(CAPTION_VOCABULARY.split())


def build(folder: Path, seed: int = 0) -> None:
    """Write the model into `folder`; the same seed and library versions give the same bytes.

    UNet and VAE are stored in half precision, which halves the files; reading them as float32 is exact.
    The text encoder is not: transformers reads weights as they were stored, diffusers as float32, and the two
    would not fit together for somebody who loads the folder without naming a dtype.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=build_vae().half(),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=build_unet().half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer over a small vocabulary that covers every byte, so that no text is unknown."""
    # In code point order the byte symbols stand exactly as in CLIP's published vocabulary.
    symbols = sorted(ByteLevel.alphabet())
    merges = learn_merges(CAPTION_WORDS)
    pieces = [
        *symbols,
        *(symbol + WORD_END for symbol in symbols),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        model_max_length=PROMPT_TOKENS,
    )


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) until each word is one piece; ties go alphabetically."""
    spellings = [[*word[:-1], word[-1] + WORD_END] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for pieces in spellings for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = [merge(pieces, best) for pieces in spellings]
    return merges


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """`pieces` with each neighbouring `pair` joined, from left to right."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Token ids (rows, 77) to hidden states (rows, 77, 64)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Latents (rows, 4, 16, 16) for the native picture of 128 x 128 pixels."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,  # diffusers takes it as the number of heads
        cross_attention_dim=TEXT_WIDTH,
    )


def build_vae() -> AutoencoderKL:
    """Pictures (rows, 3, height, width) in -1..1 to latents an eighth as high and wide, and back."""
    return AutoencoderKL(
        sample_size=128,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
    )


def build_scheduler() -> EulerDiscreteScheduler:
    """Euler over the noise levels of Stable Diffusion 1.x."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="leading",
        steps_offset=1,
    )


def main() -> None:
    """Entry of bin/make-demo-model."""
    parser = argparse.ArgumentParser(prog="make-demo-model", description="Build the embedded model `demo` afresh.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=DEMO_FOLDER, help="where to (default: the package's own)"
    )
    folder: Path = parser.parse_args().folder
    build(folder)
    for component in sorted(path for path in folder.iterdir() if path.is_dir()):
        size = sum(path.stat().st_size for path in component.iterdir())
        print(f"{component.name:13} {size / 1024:7.1f} KiB")


if __name__ == "__main__":
    main()
