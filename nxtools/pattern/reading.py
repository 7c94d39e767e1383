"""Read a pattern that was printed or typed, or say where it stops making sense."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import NoReturn

from nxtools.errors import InputError
from nxtools.pattern.atoms import CLASSES, FORMS, Atom, Form
from nxtools.pattern.sentence import FULL, Context, Pattern, Rule, Shift

WORDS_FOR_LEVELS = {"very strong": 100, "strong": 80, "moderate": 50, "weak": 20, "faint": 10, "none": 0}
_SPELLINGS: dict[str, Form] = {form: form for form in FORMS if form not in ("token", "class")}
_GRAMMAR = {
    "after",
    "and",
    "but",
    "fires",
    "goes",
    "in",
    "negative",
    "not",
    "on",
    "or",
    "otherwise",
    "very",
    "with",
}
_VOCABULARY = sorted({*_GRAMMAR, *_SPELLINGS, *CLASSES, *WORDS_FOR_LEVELS} - {"very strong"})

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_LEXEME = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|“(?:\\.|[^”\\])*”|‘(?:\\.|[^’\\])*’)
      | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+))
      | (?P<word>[^\W\d_]+(?:-[^\W\d_]+)*)
      | (?P<mark>[(),;.])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u\{(?P<hex>[0-9a-fA-F]{1,6})\}|(?P<other>.))", re.DOTALL)
_UNESCAPED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "”": "”", "’": "’"}


def parse(text: str) -> Pattern:
    """The pattern that `text` says. Whitespace, capitals and the choice between `,`, `or` and `and` are free.

    Raises InputError with the place (counted from 1) and the rest of the text where it stops making sense.
    """
    return _Reader(text).pattern()


@dataclass(frozen=True, slots=True)
class _Lexeme:
    type: str  # string, number, word, mark, end
    value: str
    start: int


@dataclass(slots=True)
class _Said:
    """What a group said, until the sign of its part of the sentence is known."""

    rules: dict[tuple[Atom, ...], int] = field(default_factory=dict)

    def add(self, steps: tuple[Atom, ...], level: int) -> bool:
        return self.rules.setdefault(steps, level) == level


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lexemes = self._lexemes()
        self.at = 0
        self.sign = 1
        self.said = _Said()
        self.shifts: dict[Context, int] = {}

    # -- the sentence

    def pattern(self) -> Pattern:
        otherwise = 0
        self._sections()
        if self._next("end"):
            self._fail("it is empty")
        while not self._next("end"):
            if self._word("otherwise"):
                self.sign = 1
                otherwise = self._level()
                self._separators()
                if not self._next("end"):
                    self._fail('nothing can follow "otherwise" and its strength')
                break
            if self._word("after"):
                self._shift()
            else:
                self._group()
            self._separators()
            self._sections()
        rules = tuple(Rule(steps, level) for steps, level in self.said.rules.items())
        shifts = tuple(Shift(context, step) for context, step in self.shifts.items())
        return Pattern(rules, otherwise, shifts)

    def _sections(self) -> None:
        if self._word("fires"):
            self._expect_word("on")
            self.sign = 1
        elif self._word("goes"):
            self._expect_word("negative")
            self._expect_word("on")
            self.sign = -1
        elif self._word("negative"):
            self._expect_word("on")
            self.sign = -1

    def _shift(self) -> None:
        """`after " of" or " in" (+2)`: what is added to whatever comes there."""
        start = self.at
        contexts = self._contexts()
        if not self._mark("("):
            self._fail('expected what is added: "(+2)" or "(-2)"')
        if self.lexemes[self.at].value[0] not in "+-":
            self._fail("what is added has a sign: +2 or -2")
        step = self._level()
        if not self._mark(")"):
            self._fail('expected ")"')
        for context in contexts:
            if self.shifts.setdefault(context, step) != step:
                self._fail("a second step after " + " ".join(map(str, context)), at=start)

    def _group(self) -> None:
        start = self.at
        silent = self._word("not")
        if silent and self._word("after"):
            self._except_everything_before(self._contexts())
            return
        items = self._items()
        contexts: list[Context] = self._contexts() if self._word("after") else [()]
        entries = [(0 if silent else FULL * self.sign, contexts)]
        if not silent and self._mark("("):
            entries = self._entries() if contexts == [()] else [(self._level(), contexts)]
            if not self._mark(")"):
                self._fail('expected ")"')
        for level, places in entries:
            for item in items:
                for context in places:
                    if not self.said.add((*context, item), level):
                        steps = " ".join(map(str, (*context, item)))
                        self._fail(f"a second strength for {steps}", at=start)

    def _entries(self) -> list[tuple[int, list[Context]]]:
        """The inside of brackets: `9`, `9, but 2 after " at"`, `9 after " not", 2 after " so"`."""
        entries: list[tuple[int, list[Context]]] = []
        while True:
            level = 0 if self._word("not") else self._level()
            contexts: list[Context] = [()]
            if self._word("after"):
                contexts = self._contexts()
            entries.append((level, contexts))
            separated = self._separators() | self._word("but")
            if not separated or self._next("mark"):
                return entries

    def _except_everything_before(self, contexts: list[Context]) -> None:
        """A `not after …` on its own: an exception to every token named without a context so far."""
        bare = [steps for steps in self.said.rules if len(steps) == 1]
        if not bare:
            self._fail('"not after" needs a token before it that it is an exception to')
        for context in contexts:
            for steps in bare:
                self.said.rules.setdefault((*context, *steps), 0)

    # -- its parts

    def _items(self) -> list[Atom]:
        """Atoms of a list; `like`, `starting` and `ending` hold for the quoted texts that follow them."""
        items = [self._atom()]
        while self._joined():
            form = items[-1].form
            if self._next("string") and form != "class":
                items.append(Atom(form, self._string()))
            else:
                items.append(self._atom())
        return items

    def _contexts(self) -> list[Context]:
        contexts = [self._sequence()]
        while self._joined():
            contexts.append(self._sequence())
        return contexts

    def _sequence(self) -> Context:
        atoms = [self._atom()]
        while self._starts_atom():
            atoms.append(self._atom())
        return tuple(atoms)

    def _joined(self) -> bool:
        """Whether `,`, `or`, `and` or `, or` is followed by another atom; if so they are read."""
        before = self.at
        comma = self._mark(",")
        if (self._word("or") or self._word("and")) and not self._starts_atom():
            self._fail("expected a token in quotes or a class")
        if self.at > before and self._starts_atom():
            return True
        if comma:
            self.at = before
        return False

    def _starts_atom(self) -> bool:
        lexeme = self.lexemes[self.at]
        named = lexeme.value in CLASSES or lexeme.value in _SPELLINGS
        return lexeme.type == "string" or (lexeme.type == "word" and named)

    def _atom(self) -> Atom:
        lexeme = self.lexemes[self.at]
        if lexeme.type == "string":
            return Atom("token", self._string())
        if lexeme.type == "word" and lexeme.value in CLASSES:
            self.at += 1
            return Atom("class", lexeme.value)
        if lexeme.type == "word" and lexeme.value in _SPELLINGS:
            self.at += 1
            _ = self._word("with") or self._word("in")
            return Atom(_SPELLINGS[lexeme.value], self._string())
        return self._fail("expected a token in quotes or a class (" + ", ".join(CLASSES) + ")")

    def _string(self) -> str:
        lexeme = self.lexemes[self.at]
        if lexeme.type != "string":
            self._fail("expected a token in quotes")
        self.at += 1

        def unescaped(match: re.Match[str]) -> str:
            if match["hex"]:
                code = int(match["hex"], 16)
                return (
                    chr(code)
                    if code < 0x110000
                    else self._fail("no such character", start=place + match.start())
                )
            if match["other"] not in _UNESCAPED:
                self._fail(f"no such escape: \\{match['other']}", start=place + match.start())
            return _UNESCAPED[match["other"]]

        place = lexeme.start + 1
        text = _ESCAPE.sub(unescaped, lexeme.value[1:-1])
        return text if text else self._fail("a token cannot be empty", start=lexeme.start)

    def _level(self) -> int:
        lexeme = self.lexemes[self.at]
        self.at += 1
        if lexeme.type == "number":
            level = float(lexeme.value) * 10
            if abs(level) > FULL:
                self._fail("a strength goes from -10 to 10", start=lexeme.start)
            return round(level) if lexeme.value[0] in "+-" else self.sign * round(level)
        word = lexeme.value
        if word == "very":
            word += " " + self.lexemes[self.at].value
            self.at += 1
        if word not in WORDS_FOR_LEVELS:
            words = ", ".join(WORDS_FOR_LEVELS)
            self._fail(f"expected a strength: a number from 0 to 10, or one of {words}", start=lexeme.start)
        return self.sign * WORDS_FOR_LEVELS[word]

    # -- lexemes

    def _lexemes(self) -> list[_Lexeme]:
        lexemes = []
        position = 0
        while position < len(self.text):
            if self.text[position].isspace():
                position += 1
                continue
            match = _LEXEME.match(self.text, position)
            if match is None:
                open_quote = self.text[position] in _QUOTES
                self._fail(
                    "a quote that is not closed" if open_quote else "not expected here", start=position
                )
            assert match.lastgroup is not None
            value = match[0].lower() if match.lastgroup == "word" else match[0]
            lexemes.append(_Lexeme(match.lastgroup, value, position))
            position = match.end()
        return [*lexemes, _Lexeme("end", "", len(self.text))]

    def _next(self, type: str) -> bool:
        return self.lexemes[self.at].type == type

    def _word(self, word: str) -> bool:
        found = self.lexemes[self.at].type == "word" and self.lexemes[self.at].value == word
        self.at += found
        return found

    def _expect_word(self, word: str) -> None:
        if not self._word(word):
            self._fail(f'expected "{word}"')

    def _mark(self, mark: str) -> bool:
        found = self.lexemes[self.at].type == "mark" and self.lexemes[self.at].value == mark
        self.at += found
        return found

    def _separators(self) -> bool:
        before = self.at
        while self._mark(";") or self._mark(",") or self._mark(".") or self._word("and") or self._word("or"):
            pass
        return self.at > before

    def _fail(self, what: str, *, at: int | None = None, start: int | None = None) -> NoReturn:
        if start is None:
            start = self.lexemes[self.at if at is None else at].start
        rest = self.text[start:]
        word = re.match(r"[^\W\d_-]+", rest.lower())
        close = difflib.get_close_matches(word[0], _VOCABULARY, 1) if word else []
        hint = f"did you mean {close[0]}?" if close and word and close[0] != word[0] else ""
        where = (
            f"from character {start + 1} on: {rest[:40]}" if rest else f"at its end (character {start + 1})"
        )
        raise InputError(f"this is no pattern {where} -- {what}", hint=hint)
