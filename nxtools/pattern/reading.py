"""Read a pattern that was printed or typed, or say where it stops making sense."""

from __future__ import annotations

from dataclasses import dataclass, field

from nxtools.pattern.atoms import CLASSES, FORMS, Atom, Form
from nxtools.pattern.lexemes import Lexemes
from nxtools.pattern.sentence import FULL, Context, Pattern, Rule, Shift

WORDS_FOR_LEVELS = {"very strong": 100, "strong": 80, "moderate": 50, "weak": 20, "faint": 10, "none": 0}
_SEPARATORS = {"mark": (";", ",", "."), "word": ("and", "or")}
_SPELLINGS: dict[str, Form] = {form: form for form in FORMS if form not in ("token", "class")}
_GRAMMAR = {
    "after",
    "and",
    "but",
    "early",
    "fires",
    "goes",
    "in",
    "lingering",
    "negative",
    "not",
    "on",
    "or",
    "otherwise",
    "very",
    "with",
}
_VOCABULARY = sorted({*_GRAMMAR, *_SPELLINGS, *CLASSES, *WORDS_FOR_LEVELS} - {"very strong"})


def parse(text: str) -> Pattern:
    """The pattern that `text` says. Whitespace, capitals and the choice between `,`, `or` and `and` are free.

    Raises InputError with the place (counted from 1) and the rest of the text where it stops making sense.
    """
    return _Reader(text).pattern()


@dataclass(slots=True)
class _Said:
    """What a group said, until the sign of its part of the sentence is known."""

    rules: dict[tuple[Atom, ...], int] = field(default_factory=dict)

    def add(self, steps: tuple[Atom, ...], level: int) -> bool:
        return self.rules.setdefault(steps, level) == level


class _Reader:
    def __init__(self, text: str) -> None:
        self.lexemes = Lexemes(text, _VOCABULARY)
        self.sign = 1
        self.said = _Said()
        self.shifts: dict[Context, int] = {}
        self.along: dict[str, int] = {}  # early, lingering

    # -- the sentence

    def pattern(self) -> Pattern:
        otherwise = 0
        self._sections()
        if self.lexemes.now.type == "end":
            self.lexemes.fail("it is empty")
        while self.lexemes.now.type != "end":
            if self.lexemes.word("otherwise"):
                self.sign = 1
                otherwise = self._level()
                self._separators()
                if self.lexemes.now.type != "end":
                    self.lexemes.fail('nothing can follow "otherwise" and its strength')
                break
            if self.lexemes.word("after"):
                self._shift()
            elif self.lexemes.word("early"):
                self._once("early", self._added())
            elif self.lexemes.word("lingering"):
                self._once("lingering", self._share())
            else:
                self._group()
            self._separators()
            self._sections()
        rules = tuple(Rule(steps, level) for steps, level in self.said.rules.items())
        shifts = tuple(Shift(context, step) for context, step in self.shifts.items())
        return Pattern(rules, otherwise, shifts, **self.along)

    def _sections(self) -> None:
        if self.lexemes.word("fires"):
            self.lexemes.expect("on")
            self.sign = 1
        elif self.lexemes.word("goes"):
            self.lexemes.expect("negative")
            self.lexemes.expect("on")
            self.sign = -1
        elif self.lexemes.word("negative"):
            self.lexemes.expect("on")
            self.sign = -1

    def _shift(self) -> None:
        """`after " of" or " in" (+2)`: what is added to whatever comes there."""
        start = self.lexemes.at
        contexts = self._contexts()
        step = self._added()
        for context in contexts:
            if self.shifts.setdefault(context, step) != step:
                self.lexemes.fail("a second step after " + " ".join(map(str, context)), at=start)

    def _added(self) -> int:
        """`(+2)`"""
        if not self.lexemes.mark("("):
            self.lexemes.fail('expected what is added: "(+2)" or "(-2)"')
        if self.lexemes.now.value[:1] not in ("+", "-"):
            self.lexemes.fail("what is added has a sign: +2 or -2")
        step = self._level()
        if not self.lexemes.mark(")"):
            self.lexemes.fail('expected ")"')
        return step

    def _share(self) -> int:
        """`0.5`, in tenths"""
        lexeme = self.lexemes.now
        if lexeme.type != "number" or lexeme.value[0] in "+-":
            self.lexemes.fail("expected how much lingers: a number from 0 to 10, 1 for all")
        return abs(self._level())

    def _once(self, word: str, value: int) -> None:
        if self.along.setdefault(word, value) != value:
            self.lexemes.fail(f"a second number for {word}")

    def _group(self) -> None:
        start = self.lexemes.at
        silent = self.lexemes.word("not")
        if silent and self.lexemes.word("after"):
            self._except_everything_before(self._contexts())
            return
        items = self._items()
        contexts: list[Context] = self._contexts() if self.lexemes.word("after") else [()]
        entries = [(0 if silent else FULL * self.sign, contexts)]
        if not silent and self.lexemes.mark("("):
            entries = self._entries() if contexts == [()] else [(self._level(), contexts)]
            if not self.lexemes.mark(")"):
                self.lexemes.fail('expected ")"')
        for level, places in entries:
            for item in items:
                for context in places:
                    if not self.said.add((*context, item), level):
                        steps = " ".join(map(str, (*context, item)))
                        self.lexemes.fail(f"a second strength for {steps}", at=start)

    def _entries(self) -> list[tuple[int, list[Context]]]:
        """The inside of brackets: `9`, `9, but 2 after " at"`, `9 after " not", 2 after " so"`."""
        entries: list[tuple[int, list[Context]]] = []
        while True:
            level = 0 if self.lexemes.word("not") else self._level()
            contexts: list[Context] = [()]
            if self.lexemes.word("after"):
                contexts = self._contexts()
            entries.append((level, contexts))
            separated = self._separators() | self.lexemes.word("but")
            if not separated or self.lexemes.now.type == "mark":
                return entries

    def _except_everything_before(self, contexts: list[Context]) -> None:
        """A `not after …` on its own: an exception to every token named without a context so far."""
        bare = [steps for steps in self.said.rules if len(steps) == 1]
        if not bare:
            self.lexemes.fail('"not after" needs a token before it that it is an exception to')
        for context in contexts:
            for steps in bare:
                self.said.rules.setdefault((*context, *steps), 0)

    # -- its parts

    def _items(self) -> list[Atom]:
        """Atoms of a list; `like`, `starting` and `ending` hold for the quoted texts that follow them."""
        items = [self._atom()]
        while self._joined():
            form = items[-1].form
            if self.lexemes.now.type == "string" and form != "class":
                items.append(Atom(form, self.lexemes.string()))
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
        before = self.lexemes.at
        comma = self.lexemes.mark(",")
        if (self.lexemes.word("or") or self.lexemes.word("and")) and not self._starts_atom():
            self.lexemes.fail("expected a token in quotes or a class")
        if self.lexemes.at > before and self._starts_atom():
            return True
        if comma:
            self.lexemes.go(before)
        return False

    def _starts_atom(self) -> bool:
        lexeme = self.lexemes.now
        named = lexeme.value in CLASSES or lexeme.value in _SPELLINGS
        return lexeme.type == "string" or (lexeme.type == "word" and named)

    def _atom(self) -> Atom:
        lexeme = self.lexemes.now
        if lexeme.type == "string":
            return Atom("token", self.lexemes.string())
        if lexeme.type == "word" and lexeme.value in CLASSES:
            return Atom("class", self.lexemes.read().value)
        if lexeme.type == "word" and lexeme.value in _SPELLINGS:
            self.lexemes.read()
            _ = self.lexemes.word("with") or self.lexemes.word("in")
            return Atom(_SPELLINGS[lexeme.value], self.lexemes.string())
        return self.lexemes.fail("expected a token in quotes or a class (" + ", ".join(CLASSES) + ")")

    def _level(self) -> int:
        lexeme = self.lexemes.read()
        if lexeme.type == "number":
            level = float(lexeme.value) * 10
            if abs(level) > FULL:
                self.lexemes.fail("a strength goes from -10 to 10", start=lexeme.start)
            return round(level) if lexeme.value[0] in "+-" else self.sign * round(level)
        word = lexeme.value
        if word == "very":
            word += " " + self.lexemes.read().value
        if word not in WORDS_FOR_LEVELS:
            words = ", ".join(WORDS_FOR_LEVELS)
            self.lexemes.fail(
                f"expected a strength: a number from 0 to 10, or one of {words}", start=lexeme.start
            )
        return self.sign * WORDS_FOR_LEVELS[word]

    def _separators(self) -> bool:
        before = self.lexemes.at
        while self.lexemes.now.value in _SEPARATORS.get(self.lexemes.now.type, ()):
            self.lexemes.read()
        return self.lexemes.at > before
