"""What a pattern can name: a token, a spelling, a likeness, or a coarse class of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Form = Literal["token", "starting", "ending", "much-like", "like", "roughly-like", "class"]
FORMS: tuple[Form, ...] = get_args(Form)

# How much an atom says about a token, from least to most; `anything` says nothing at all.
SPECIFICITY: dict[Form, int] = {
    "class": 1,
    "roughly-like": 2,
    "like": 3,
    "much-like": 4,
    "ending": 5,
    "starting": 5,
    "token": 6,
}

# How far the embeddings of alike tokens are from having nothing to do with each other, in deviations of what
# is usual among tokens that have not: two in seven hundred pairs of those are roughly alike.
LIKENESSES: dict[Form, float] = {"much-like": 7.0, "like": 5.0, "roughly-like": 3.0}

# Printed as they are, the class words are the bare words of the language (everything else is in quotes).
CLASSES: dict[str, Callable[[str], bool]] = {
    "anything": lambda text: True,
    "capital": lambda text: text.strip()[:1].isupper(),
    "digit": lambda text: any(map(str.isdigit, text)),
    "newline": lambda text: "\n" in text,
    "punctuation": lambda text: bool(text.strip()) and not any(map(str.isalnum, text)),
    "word-start": lambda text: text[:1] == " " and text[1:].isalpha(),
    "word-part": lambda text: text.isalpha(),
}

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Atom:
    """One literal of a pattern. `text` is the token, its ending, its beginning, or the class word."""

    form: Form
    text: str

    @property
    def specificity(self) -> int:
        return 0 if self == ANYTHING else SPECIFICITY[self.form]

    def __str__(self) -> str:
        if self.form == "class":
            return self.text
        return quote(self.text) if self.form == "token" else f"{self.form} {quote(self.text)}"


ANYTHING = Atom("class", "anything")


def token(text: str) -> Atom:
    return Atom("token", text)


def quote(text: str) -> str:
    """`text` in double quotes; what cannot be seen (controls, odd spaces, lone surrogates) is escaped."""

    def shown(character: str) -> str:
        escape = _ESCAPES.get(character)
        if escape is not None:
            return escape
        return character if character.isprintable() else f"\\u{{{ord(character):x}}}"

    return '"' + "".join(map(shown, text)) + '"'
