"""Tokens coloured by a value, for terminals; without colour the strong ones carry their value.

Orange is above zero and blue below, on one scale: people of all kinds of colour vision tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nxtools.view.visible import visible

if TYPE_CHECKING:
    from rich.style import Style
    from rich.text import Text

Value = float | None  # None: left out
Colour = tuple[int, int, int]

LEVELS = 10
WIDEST = 36  # columns of a token
MARKED = 2  # the lowest level that is marked where there are no colours
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Palette:
    """Colours of no activation and of the strongest on either side."""

    zero: Colour
    above: Colour
    below: Colour

    def background(self, share: float) -> Colour:
        end = self.above if share > 0 else self.below
        part = min(abs(share), 1.0)
        red, green, blue = (round(a + (b - a) * part) for a, b in zip(self.zero, end, strict=True))
        return red, green, blue

    def style(self, share: float) -> Style:
        """share: of the scale, -1 to 1."""
        from rich.color import Color
        from rich.style import Style

        background = self.background(share)
        ink = (0, 0, 0) if luminance(background) > 0.179 else (255, 255, 255)  # the better contrast
        return Style(color=Color.from_rgb(*ink), bgcolor=Color.from_rgb(*background))


DARK = Palette(zero=(36, 34, 32), above=(255, 166, 43), below=(92, 170, 255))
LIGHT = Palette(zero=(255, 252, 247), above=(235, 119, 0), below=(64, 140, 240))


def luminance(colour: Colour) -> float:
    """Relative luminance, 0 to 1 (WCAG 2)."""
    channels = (c / 255 for c in colour)
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def level(value: Value, scale: float) -> int:
    """-10 to 10: tenths of the scale, 0 too for what is left out."""
    if value is None or not math.isfinite(value) or scale <= 0:
        return 0
    return round(LEVELS * max(-1.0, min(1.0, value / scale)))


@dataclass(frozen=True)
class Piece:
    """What is printed of one token, the columns that it takes, and its level."""

    text: str
    width: int
    level: int = 0
    left_out: bool = False


CUT = Piece("…", 1)


@dataclass(frozen=True)
class Heat:
    """How tokens are drawn: palette None for no colours; scale: the value of level 10."""

    palette: Palette | None
    scale: float

    def pieces(self, tokens: Sequence[str], values: Sequence[Value], widest: int = WIDEST) -> list[Piece]:
        return [self._piece(token, value, widest) for token, value in zip(tokens, values, strict=False)]

    def _piece(self, token: str, value: Value, widest: int) -> Piece:
        from rich.cells import cell_len, set_cell_size

        text, at = visible(token), level(value, self.scale)
        marks = 4 if self.palette is None else 0  # columns of ‹›¹⁰, or of ‹›⁻⁹
        if cell_len(text) > widest - marks:
            text = set_cell_size(text, widest - marks - CUT.width) + CUT.text
        if self.palette is None and abs(at) >= MARKED:
            text = f"‹{text}›{str(at).translate(_SUPERSCRIPTS)}"
        return Piece(text, cell_len(text), at, value is None)

    def drawn(self, pieces: Sequence[Piece]) -> Text:
        from rich.text import Text

        line = Text()
        for piece in pieces:
            if self.palette is not None and piece.level:
                line.append(piece.text, self.palette.style(piece.level / LEVELS))
            else:
                line.append(piece.text, "dim" if piece.left_out or piece is CUT else None)
        return line

    def legend(self) -> Text:
        """What the colours, or the marks, stand for."""
        from rich.text import Text

        if self.scale == 0:
            return Text("all that is shown is zero", "dim")
        if self.palette is None:
            return Text(f"‹token›⁷: seven tenths of {self.scale:.3g}; below two there is no mark", "dim")
        shares = [step / LEVELS for step in range(-LEVELS, LEVELS + 1, 2)]
        line = Text().append(f"{-self.scale:.3g} ", "dim")
        for share in shares:
            line.append("  ", self.palette.style(share) if share else None)
        return line.append(f" {self.scale:.3g}", "dim")


def lines(widths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """From where to where the lines reach of pieces that are so wide."""
    found: list[tuple[int, int]] = []
    begin = used = 0
    for place, columns in enumerate(widths):
        if used + columns > width and place > begin:
            found.append((begin, place))
            begin, used = place, 0
        used += columns
    return [*found, (begin, len(widths))] if widths else []


def around(widths: Sequence[int], peak: int, width: int, rows: int) -> tuple[int, int]:
    """From where to where so many rows show the pieces around one.

    Two columns of three go to what stands before it, as that is what it reacts to.
    """

    def fits(begin: int, end: int) -> bool:
        cut = [CUT.width] * (begin > 0), [CUT.width] * (end < len(widths))
        return len(lines([*cut[0], *widths[begin:end], *cut[1]], width)) <= rows

    begin, end = peak, peak + 1
    before = after = 0
    growing = True
    while growing:
        growing = False
        if begin > 0 and (before <= 2 * after or end == len(widths)) and fits(begin - 1, end):
            begin -= 1
            before += widths[begin]
            growing = True
        elif end < len(widths) and fits(begin, end + 1):
            after += widths[end]
            end += 1
            growing = True
        elif begin > 0 and fits(begin - 1, end):
            begin -= 1
            growing = True
    return begin, end
