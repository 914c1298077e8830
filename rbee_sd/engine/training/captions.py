"""Says scenes in words, as people do: synonyms, another order, things left out, words that mean nothing here.

No torch. `WORDS` are all that a caption is made of but for the noise; the tokenizer makes one token of each.
"""

from __future__ import annotations

import random
import string

from rbee_sd.engine.training.scenes import Scene, Thing

SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "disk", "dot", "ball"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle", "triangle", "pyramid"),
    "star": ("star",),
    "ring": ("ring", "ring", "hoop", "donut"),
    "cross": ("cross", "cross", "plus", "plus sign"),
    "heart": ("heart",),
    "crescent": ("crescent", "crescent", "moon", "crescent moon", "half moon"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "red", "scarlet", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "yellow", "yellow", "golden", "gold"),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "pink", "rose"),
    "black": ("black",),
    "white": ("white",),
}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "big", "huge")}
PLACE_WORDS = {
    "centre": ("in the centre", "in the center", "in the middle", "at the center", "centered", "centred"),
    "left": ("on the left", "at the left", "on the left side", "to the left", "left"),
    "right": ("on the right", "at the right", "on the right side", "to the right", "right"),
    "top": ("at the top", "on top", "at the top edge", "in the upper part", "top"),
    "bottom": ("at the bottom", "at the bottom edge", "in the lower part", "bottom"),
    "top left": ("in the top left corner", "in the upper left corner", "at the top left", "top left"),
    "top right": ("in the top right corner", "in the upper right corner", "at the top right", "top right"),
    "bottom left": ("in the bottom left corner", "in the lower left corner", "at the bottom left", "bottom left"),
    "bottom right": ("in the bottom right corner", "in the lower right corner", "at the bottom right", "bottom right"),
}
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
}
SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
BEHIND = (
    "on {a} background",
    "on {a} background",
    "on {a} background",
    "with {a} background",
    "against {a} background",
    "on {a} backdrop",
    "in front of {a} background",
    "on {colour}",
)
BEFORE = ("on {a} background, {things}", "{a} background with {things}", "{colour} background, {things}")
AFTER = ("{things}, {colour} background", "{things}, the background is {colour}", "{things} and {a} background")
OPENINGS = ("a picture of", "a drawing of", "an image of", "a photo of", "a painting of", "draw", "picture of")
ENDINGS = ("high quality", "simple", "please", "flat design", "minimalist", "sharp", "8k", "best quality", "beautiful")
PARTICLES = "a an the one two and or at in is of on to with by no not beside next shape shapes that coloured colored"

LEAVE_OUT = 0.06
"""How often a colour, a shape or the background is not mentioned."""
TAGS = 0.06
"""How often a lone thing is described by a list of words instead of a sentence."""
ADORN = 0.12
"""How often an opening, an ending or a word without meaning is added."""


def caption(scene: Scene, chance: random.Random, *, complete: bool = False) -> str:
    """One of very many ways to say what a scene shows. Unless it is to be `complete`, some say less than all of it."""
    return _Speaker(chance, complete).say(scene)


class _Speaker:
    def __init__(self, chance: random.Random, complete: bool) -> None:
        self._chance = chance
        self._complete = complete
        self._any = chance.choice

    def say(self, scene: Scene) -> str:
        if self._omits(LEAVE_OUT / 2):
            # For negative prompts above all.
            text = f"a {self._any(COLOUR_WORDS[scene.background])} background"
        elif len(scene.things) == 1:
            text = self._single(scene)
        else:
            text = self._pair(scene)
        if self._chance.random() < ADORN:
            text = f"{self._any(OPENINGS)} {text}"
        if self._chance.random() < ADORN:
            text = f"{text}, {self._any(ENDINGS)}"
        if self._chance.random() < ADORN:
            text = self._with_noise(text)
        return text + "." if self._chance.random() < ADORN else text

    def _omits(self, share: float = LEAVE_OUT) -> bool:
        return self._chance.random() < share and not self._complete

    def _single(self, scene: Scene) -> str:
        (thing,) = scene.things
        if self._chance.random() < TAGS:
            return self._tags(scene)
        named = self._thing(thing)
        if scene.position is None or self._omits():
            return self._with_background(named, scene)
        place = self._any(PLACE_WORDS[scene.position])
        kind = self._chance.random()
        if kind < 0.5:
            return self._with_background(f"{named} {place}", scene)
        if kind < 0.8:
            return f"{self._with_background(named, scene)} {place}"
        if kind < 0.9:
            return f"{place}, {self._with_background(named, scene)}"
        return f"{self._with_background(named, scene)}, {place}"

    def _tags(self, scene: Scene) -> str:
        """As those write who are used to it: "white background, heart, green, large"."""
        (thing,) = scene.things
        colour, shape = self._any(COLOUR_WORDS[thing.colour]), self._any(SHAPE_WORDS[thing.shape])
        tags = [f"{self._any(COLOUR_WORDS[scene.background])} background"]
        tags += self._any(([f"{colour} {shape}"], [shape, colour]))
        if thing.size is not None:
            tags.append(self._any(SIZE_WORDS[thing.size]))
        if scene.position is not None:
            tags.append(self._any(PLACE_WORDS[scene.position]))
        self._chance.shuffle(tags)
        return ", ".join(tags)

    def _pair(self, scene: Scene) -> str:
        first, second = scene.things
        relation = str(scene.relation)
        if (first.shape, first.colour) == (second.shape, second.colour) and self._omits(0.5):
            colour, shape = self._any(COLOUR_WORDS[first.colour]), self._any(SHAPE_WORDS[first.shape])
            return self._with_background(f"two {colour} {_plural(shape)}", scene)
        one, other = self._thing(first), self._thing(second)
        kind = self._chance.random()
        if kind < 0.55:
            things = f"{one} {self._any(RELATION_WORDS[relation])} {other}"
        elif kind < 0.75:
            things = f"{other} {self._any(RELATION_WORDS[OPPOSITE[relation]])} {one}"
        elif kind < 0.9 or self._complete:
            here, there = SIDES[relation]
            things = f"{one} {here} and {other} {there}"
        else:
            pair = [one, other]
            self._chance.shuffle(pair)
            things = f"{pair[0]} {self._any(('and', 'and', 'with', 'beside', 'next to'))} {pair[1]}"
        return self._with_background(things, scene)

    def _thing(self, thing: Thing) -> str:
        colour = "" if self._omits() else self._any(COLOUR_WORDS[thing.colour])
        shape = "shape" if colour and self._omits(LEAVE_OUT / 2) else self._any(SHAPE_WORDS[thing.shape])
        size = "" if thing.size is None or self._omits() else self._any(SIZE_WORDS[thing.size])
        kind = self._chance.random()
        if not colour or kind < 0.85:
            return self._with_article(f"{size} {colour} {shape}")
        if kind < 0.9:
            return f"{self._with_article(f'{size} {shape}')} in {colour}"
        if kind < 0.95:
            return f"{self._with_article(f'{size} {shape}')} that is {colour}"
        return self._with_article(f"{size} {colour} {self._any(('coloured', 'colored'))} {shape}")

    def _with_article(self, words: str) -> str:
        words = " ".join(words.split())
        kind = self._chance.random()
        if kind < 0.15:
            return words
        if kind < 0.25:
            return f"{self._any(('the', 'one'))} {words}"
        return f"{_article(words)} {words}"

    def _with_background(self, things: str, scene: Scene) -> str:
        if self._omits():
            return things
        colour = self._any(COLOUR_WORDS[scene.background])
        named = self._any(("", "", "", "", "plain ", "solid ")) + colour
        kind = self._chance.random()
        form = f"{{things}} {self._any(BEHIND)}" if kind < 0.7 else self._any(BEFORE if kind < 0.85 else AFTER)
        return form.format(things=things, colour=colour, a=f"{_article(named)} {named}")

    def _with_noise(self, text: str) -> str:
        """Words that nobody knows, so that others do no harm."""
        words = text.split()
        for _ in range(self._chance.randint(1, 3)):
            # Also long ones, which are many tokens: else what is long is taken for two things.
            letters = self._chance.choices(string.ascii_lowercase + string.digits, k=self._chance.randint(2, 13))
            words.insert(self._any((0, len(words), self._chance.randint(0, len(words)))), "".join(letters))
        return " ".join(words)


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _plural(shape: str) -> str:
    if shape.endswith("sign"):
        return "plus signs"
    return shape + ("es" if shape.endswith(("s", "x")) else "s")


def _words() -> tuple[str, ...]:
    tables = (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, PLACE_WORDS, RELATION_WORDS)
    texts = [text for table in tables for words in table.values() for text in words]
    texts += [_plural(shape) for shapes in SHAPE_WORDS.values() for shape in shapes]
    texts += [form.format(a="plain solid", colour="", things="") for form in (*BEHIND, *BEFORE, *AFTER)]
    texts += [*OPENINGS, *ENDINGS, PARTICLES]
    return tuple(sorted({word for text in texts for word in text.replace(",", " ").split() if word.isalpha()}))


WORDS = _words()
