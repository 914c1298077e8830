"""Pictures in terminals that can show them: kitty's graphics protocol, and iTerm2's inline images.

Pure, but for `detect`, which looks at the environment. Formats: the pages "Terminal graphics protocol" of kitty and
"Inline images protocol" of iTerm2. Terminals that know neither ignore what they are sent.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping

SIGNATURE = b"\x89PNG"
ROWS = 16
"""Lines of the terminal that a picture takes."""
PIECE = 4096
"""Characters of base64 in one escape sequence of kitty's protocol."""

Draw = Callable[[bytes], str]


def detect(environ: Mapping[str, str]) -> Draw | None:
    """What makes an image file the text that shows it on this terminal; None where it cannot, as far as is known."""
    if "TMUX" in environ or environ.get("TERM", "").startswith(("screen", "tmux")):
        # They stand between, and pass on only what they know.
        return None
    program = environ.get("TERM_PROGRAM", "")
    if environ.get("TERM") == "xterm-kitty" or "KITTY_WINDOW_ID" in environ or program == "ghostty":
        return kitty
    if program in ("iTerm.app", "WezTerm", "mintty") or environ.get("LC_TERMINAL") == "iTerm2":
        return iterm2
    return None


def kitty(image: bytes) -> str:
    """A PNG file in kitty's protocol, which has none of the other formats: nothing for those.

    `q=2` keeps the terminal from answering into the user's next command.
    """
    if not image.startswith(SIGNATURE):
        return ""
    text = b64encode(image).decode()
    pieces = [text[place : place + PIECE] for place in range(0, len(text), PIECE)]
    keys = [f"a=T,f=100,q=2,r={ROWS}"] + [""] * (len(pieces) - 1)
    more = [1] * (len(pieces) - 1) + [0]
    sequences = (
        f"\x1b_G{key}{',' if key else ''}m={last};{piece}\x1b\\"
        for key, last, piece in zip(keys, more, pieces, strict=True)
    )
    return "".join(sequences) + "\n"


def iterm2(image: bytes) -> str:
    """An image file as iTerm2's inline image."""
    return (
        f"\x1b]1337;File=inline=1;size={len(image)};height={ROWS};preserveAspectRatio=1:{b64encode(image).decode()}\a\n"
    )
