"""Lines on a console: headings, paragraphs, columns, and tokens that belong under each other.

What is printed here has gone through `visible` or `readable`: see there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nxtools.view.heat import CUT, Heat, Piece, around, lines
from nxtools.view.visible import readable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GUTTER = 8  # columns before tokens, at least
NARROWEST, WIDEST = 60, 120


class Sheet:
    """A console and how tokens are drawn on it."""

    def __init__(self, console: Console, heat: Heat) -> None:
        self.console = console
        self.width = width_of(console)
        self.heat = heat

    def print(self, *parts: str | tuple[str, str] | Text) -> None:
        """A line of strings, strings with a style, and texts; only spaces at its end are lost."""
        from rich.text import Text

        line = Text.assemble(*parts)
        line.rstrip()
        self.console.print(line, no_wrap=True, overflow="ignore", crop=False)

    def heading(self, title: str, *rest: str) -> None:
        """A title, and in small what belongs to it: below it where the line is too short."""
        from rich.cells import cell_len

        self.print()
        told = ", ".join(rest)
        if cell_len(title) + 2 + cell_len(told) <= self.width:
            self.print((title, "bold"), "  ", (told, "dim"))
        else:
            self.print((shortened(title, self.width), "bold"))
            self.paragraph(told, "dim")

    def paragraph(self, text: str, style: str = "", indent: int = 2) -> None:
        from rich.text import Text

        for line in Text(readable(text), style).wrap(self.console, self.width - indent):
            self.print(" " * indent, line)

    def note(self, text: str) -> None:
        self.paragraph(text, "dim")

    def columns(self, cells: Iterable[Text]) -> None:
        """Two columns of short things, read downwards, or one where two do not fit."""
        cells, room = list(cells), (self.width - 4) // 2
        if any(cell.cell_len > room for cell in cells):
            for cell in cells:
                self.print("  ", cell)
            return
        half = -(-len(cells) // 2)
        for place, left in enumerate(cells[:half]):
            right = cells[half + place : half + place + 1]
            self.print("  ", left, " " * (room + 2 - left.cell_len), *right)

    def rows(self, parts: Sequence[tuple[str, Sequence[Piece]]], peak: int, rows: int) -> None:
        """The same tokens once or several times, line under line, each with what stands before it."""
        if not parts[0][1]:
            return
        gutter = max(GUTTER, *(len(label) + 1 for label, _ in parts))
        width = self.width - gutter
        widths = [max(piece.width for piece in same) for same in zip(*(row for _, row in parts), strict=True)]
        begin, end = around(widths, peak, width, rows)
        cut = [CUT] * (begin > 0), [CUT] * (end < len(widths))
        shown = [[*cut[0], *row[begin:end], *cut[1]] for _, row in parts]
        columns = [*[1] * len(cut[0]), *widths[begin:end], *[1] * len(cut[1])]
        for number, (first, last) in enumerate(lines(columns, width)):
            for (label, _), row in zip(parts, shown, strict=True):
                self.print(
                    (f"{label if number == 0 else '':>{gutter - 1}} ", "dim"),
                    self.heat.drawn(row[first:last]),
                )


def width_of(console: Console) -> int:
    """Columns that are written on: lines of text should not be longer than eyes can follow."""
    return max(NARROWEST, min(console.width, WIDEST))


def shortened(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
