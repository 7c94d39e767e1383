"""Text of models made safe and visible for terminals.

A token may hold anything: escape sequences, a mark that turns the direction of writing, nothing that shows.
"""

from __future__ import annotations

import unicodedata

_NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍", "\x7f": "␡", "\xa0": "⍽"}
_CONTROL_PICTURES = 0x2400
# Cc, Cf: controls and formats (bidi marks, zero widths); Zl, Zp, Zs: blanks other than a space; Cn, Cs, Co:
# nothing, halves and private signs, of which nobody knows how wide they are.
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs", "Cn", "Cs", "Co"})
_COMBINING = frozenset({"Mn", "Me", "Mc"})


def visible(token: str) -> str:
    """A token with a sign for everything that would not show, or would do something to the terminal.

    A token of nothing but blanks shows them all; spaces beside letters stay spaces.
    """
    if token.isascii() and token.isprintable():
        return token if token.strip(" ") or not token else "␣" * len(token)
    shown = "".join(map(_sign, token))
    if unicodedata.category(token[0]) in _COMBINING:
        shown = "◌" + shown  # or it would sit on whatever stands before
    return shown if shown.strip(" ") else "␣" * len(shown)


def readable(text: str) -> str:
    """Words of people and programs: as `visible`, but blanks and line ends are just blanks."""
    return "".join(" " if c.isspace() else _sign(c) for c in text)


def _sign(character: str) -> str:
    if character == " " or unicodedata.category(character) not in _UNSEEN:
        return character
    if character in _NAMED:
        return _NAMED[character]
    number = ord(character)
    return chr(_CONTROL_PICTURES + number) if number < 0x20 else f"⟨U+{number:04X}⟩"
