"""bin/contact-sheet: has a running worker draw several prompts, and puts the pictures on one sheet.

A process of its own. All jobs are sent at once, so that the worker shares their steps.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Sequence

import click
from PIL import Image, ImageDraw, ImageFont

from rbee_sd.client import AsyncClient, ClientError, JobError

PROMPTS = (
    "a yellow star on a black background",
    "a large green heart on a white background",
    "a red circle left of a green square on a yellow background",
    "a small pink ring in the top right corner, blue background",
    "a crescent moon above an orange star on a purple background",
    "blue background with a huge white cross",
    "a purple triangle at the bottom on pink",
    "two black squares on an orange background",
    "a tiny red heart in the middle of a plain white background",
    "a golden disc below a white ring on a black background",
)
COLUMNS = 5
MARGIN = 12
CAPTION_LINES = 3
FONT_SIZE = 13
INK = (60, 60, 60)


@click.command()
@click.argument("prompts", nargs=-1)
@click.option("-o", "--output", default="contact-sheet.png", show_default=True, help="Where to write the PNG.")
@click.option("--seed", default=1, show_default=True, help="Of the first picture; the next has the next.")
@click.option("--steps", default=20, show_default=True)
@click.option("--url", default="http://127.0.0.1:8600", show_default=True, help="The worker.")
@click.option("--api-key", envvar="RBEE_SD_API_KEY", default="", help="Its key; also in RBEE_SD_API_KEY.")
def main(prompts: tuple[str, ...], output: str, seed: int, steps: int, url: str, api_key: str) -> None:
    """Draw PROMPTS (default: some that the model `demo` knows) by a running worker, on one sheet."""
    prompts = prompts or PROMPTS
    try:
        pictures = asyncio.run(_pictures(url, api_key, prompts, seed, steps))
    except ClientError as error:
        click.echo(f"contact-sheet: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        sheet(prompts, pictures).save(output, format="PNG", optimize=True)
    except OSError as error:
        click.echo(f"contact-sheet: cannot write {output}: {error.strerror or error}", err=True)
        sys.exit(1)
    click.echo(f"wrote {output}")


def sheet(prompts: Sequence[str], pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in rows of COLUMNS, each with its prompt below."""
    font = ImageFont.load_default(FONT_SIZE)
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures) + MARGIN // 2 + CAPTION_LINES * (FONT_SIZE + 3)
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + rows * (height + MARGIN)), "white")
    draw = ImageDraw.Draw(whole)
    for number, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        left = MARGIN + number % columns * (width + MARGIN)
        top = MARGIN + number // columns * (height + MARGIN)
        whole.paste(picture, (left, top))
        draw.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=(200, 200, 200))
        text = "\n".join(_lines(prompt, font, width))
        draw.multiline_text((left, top + picture.height + MARGIN // 2), text, INK, font, spacing=3)
    return whole


def _lines(prompt: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The prompt in lines that fit, the last of them cut short if need be."""
    lines = [""]
    for word in prompt.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > CAPTION_LINES:
        lines[CAPTION_LINES - 1] += " …"
    return lines[:CAPTION_LINES]


async def _pictures(url: str, api_key: str, prompts: Sequence[str], seed: int, steps: int) -> list[Image.Image]:
    async with AsyncClient(url, api_key) as client:
        drawn = (_picture(client, prompt, seed + number, steps) for number, prompt in enumerate(prompts))
        return await asyncio.gather(*drawn)


async def _picture(client: AsyncClient, prompt: str, seed: int, steps: int) -> Image.Image:
    try:
        result = await client.generate(prompt, seed=seed, steps=steps)
    except JobError as error:
        raise ClientError(f'"{prompt}": {error}') from error
    return Image.open(io.BytesIO(result.image))


if __name__ == "__main__":
    main()
