"""The strings, numbers, words and marks of a sentence, read one after the other until one makes no sense."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from nxtools.errors import InputError

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_LEXEME = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|“(?:\\.|[^”\\])*”|‘(?:\\.|[^’\\])*’)
      | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+))
      | (?P<word>[^\W\d_]+(?:-[^\W\d_]+)*)
      | (?P<mark>[(),;.]))""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u\{(?P<hex>[0-9a-fA-F]{1,6})\}|(?P<other>.))", re.DOTALL)
_UNESCAPED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "”": "”", "’": "’"}


class Lexeme(NamedTuple):
    type: str  # string, number, word, mark, end
    value: str
    start: int


class Lexemes:
    """A sentence, and the place `at` where it is being read. `known`: the words that it may have."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        """Raises InputError where something is none of the four."""
        self.text, self._known = text, known
        self.at = 0
        self._lexemes: list[Lexeme] = []
        position, length = 0, len(text.rstrip())
        while position < length:
            match = _LEXEME.match(text, position)
            if match is None:
                position += len(text[position:]) - len(text[position:].lstrip())
                open_quote = text[position] in _QUOTES
                self.fail("a quote that is not closed" if open_quote else "not expected here", start=position)
            type, position = str(match.lastgroup), match.end()
            value = match[type].lower() if type == "word" else match[type]
            self._lexemes.append(Lexeme(type, value, match.start(type)))
        self._lexemes.append(Lexeme("end", "", len(text)))
        self.now = self._lexemes[0]

    def read(self) -> Lexeme:
        """The one here; reading goes on behind it."""
        now = self.now
        self.go(self.at + 1)
        return now

    def go(self, at: int) -> None:
        """Read on from another place."""
        self.at = at
        self.now = self._lexemes[min(at, len(self._lexemes) - 1)]

    def word(self, word: str) -> bool:
        """Whether this word stands here; if so it is read."""
        found = self.now.value == word and self.now.type == "word"
        if found:
            self.go(self.at + 1)
        return found

    def expect(self, word: str) -> None:
        """The word that must stand here is read."""
        if not self.word(word):
            self.fail(f'expected "{word}"')

    def mark(self, mark: str) -> bool:
        """Whether this mark stands here; if so it is read."""
        found = self.now.value == mark and self.now.type == "mark"
        if found:
            self.go(self.at + 1)
        return found

    def string(self) -> str:
        """The token in quotes that must stand here."""
        lexeme = self.now
        if lexeme.type != "string":
            self.fail("expected a token in quotes")
        self.go(self.at + 1)
        text = lexeme.value[1:-1]
        if "\\" in text:
            text = _ESCAPE.sub(lambda escape: self._unescaped(escape, lexeme.start + 1), text)
        return text if text else self.fail("a token cannot be empty", start=lexeme.start)

    def _unescaped(self, escape: re.Match[str], place: int) -> str:
        if escape["hex"]:
            code = int(escape["hex"], 16)
            return (
                chr(code) if code < 0x110000 else self.fail("no such character", start=place + escape.start())
            )
        if escape["other"] not in _UNESCAPED:
            self.fail(f"no such escape: \\{escape['other']}", start=place + escape.start())
        return _UNESCAPED[escape["other"]]

    def fail(self, what: str, *, at: int | None = None, start: int | None = None) -> NoReturn:
        """InputError that says where: here, at another place, or from a character on."""
        if start is None:
            start = self._lexemes[self.at if at is None else at].start
        rest = self.text[start:]
        word = re.match(r"[^\W\d_-]+", rest.lower())
        close = difflib.get_close_matches(word[0], self._known, 1) if word else []
        hint = f"did you mean {close[0]}?" if close and word and close[0] != word[0] else ""
        where = (
            f"from character {start + 1} on: {rest[:40]}" if rest else f"at its end (character {start + 1})"
        )
        raise InputError(f"this is no pattern {where} -- {what}", hint=hint)
