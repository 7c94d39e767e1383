"""A pattern: rules that give tokens a level, and the one sentence that says them.

A rule names the current token and, if it likes, the tokens just before it; its level is in hundredths of
the pattern's scale (printed 0 to 10). The sentence gathers rules that say the same into groups, so it is
shorter than the list of rules, but it says exactly those rules: reading it back gives an equal pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from nxtools.errors import InputError
from nxtools.pattern.atoms import FORMS, Atom, quote

Context = tuple[Atom, ...]  # what stands just before the current token, in the order of the text

FULL = 100  # the level that is printed as 10
TENTHS = 10  # what all of a level is among shares of it


@dataclass(frozen=True, slots=True)
class Rule:
    """`steps`: atoms in the order of the text, the last for the current token. `level`: -100..100."""

    steps: tuple[Atom, ...]
    level: int

    @property
    def current(self) -> Atom:
        return self.steps[-1]

    @property
    def context(self) -> Context:
        return self.steps[:-1]

    @property
    def specificity(self) -> tuple[tuple[int, ...], int]:
        """Compared position by position, from the current token backwards: who says more wins."""
        ranks = [atom.specificity for atom in reversed(self.steps)]
        while ranks and not ranks[-1]:  # leading `anything` only asks that a token stands there
            ranks.pop()
        return tuple(ranks), len(self.steps)


@dataclass(frozen=True, slots=True)
class Group:
    """Tokens that behave alike: their level (None: none without a context), and their levels by context."""

    items: tuple[Atom, ...]
    level: int | None
    after: tuple[tuple[int, tuple[Context, ...]], ...]

    @property
    def peak(self) -> int:
        """The strongest level in the group; the positive one where two are equally strong."""
        levels = [level for level, _ in self.after] + ([] if self.level is None else [self.level])
        return max(levels, key=lambda level: (abs(level), level))

    @property
    def literals(self) -> int:
        return len(self.items) + sum(len(context) for _, contexts in self.after for context in contexts)

    def rules(self) -> Iterable[Rule]:
        for item in self.items:
            if self.level is not None:
                yield Rule((item,), self.level)
            for level, contexts in self.after:
                for context in contexts:
                    yield Rule((*context, item), level)


@dataclass(frozen=True, slots=True)
class Shift:
    """What is added to the level of every token that `context` stands right before: -100..100."""

    context: Context
    step: int


@dataclass(frozen=True)
class Pattern:
    """Rules and shifts in the order in which the sentence says them (the constructor brings them into it),
    and the level of every token that no rule matches. early: -100..100, what is added at the beginning of a
    text. lingering: 0..100, tenths of what is said of a token over the background that come again after it.
    Raises InputError when two rules or shifts say different things of the same tokens, or a level lies
    outside -100..100."""

    rules: tuple[Rule, ...] = ()
    otherwise: int = 0
    shifts: tuple[Shift, ...] = ()
    early: int = 0
    lingering: int = 0
    groups: tuple[Group, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        groups = _grouped(self.rules)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "rules", tuple(rule for group in groups for rule in group.rules()))
        steps = _by_level(_steps_by_context(self.shifts))
        shifts = tuple(Shift(context, step) for step, contexts in steps for context in contexts)
        object.__setattr__(self, "shifts", shifts)
        levels = [self.otherwise, self.early, self.lingering]
        levels += [rule.level for rule in self.rules] + [one.step for one in shifts]
        if any(abs(level) > FULL for level in levels):
            raise InputError("a strength goes from -10 to 10")
        if self.lingering < 0:
            raise InputError("what lingers has no sign")

    @property
    def literals(self) -> int:
        """How many tokens and classes the sentence names, contexts too; `early` and `lingering` count one."""
        before = sum(len(shift.context) for shift in self.shifts)
        along = (self.early != 0) + (self.lingering != 0)
        return before + along + sum(group.literals for group in self.groups)

    def __str__(self) -> str:
        return self._sentence

    @cached_property
    def _sentence(self) -> str:
        positive = [_say(group, 1) for group in self.groups if group.peak >= 0]
        negative = [_say(group, -1) for group in self.groups if group.peak < 0]
        if negative:
            negative[0] = "goes negative on " + negative[0]
            if positive and self.groups[0].peak:
                positive[0] = "fires on " + positive[0]
        otherwise = [f"otherwise {_number(self.otherwise)}"] if self.otherwise or not self.rules else []
        steps = _by_level({shift.context: shift.step for shift in self.shifts})
        shifted = [f"after {_contexts(contexts)} ({_signed(step)})" for step, contexts in steps]
        along = [f"early ({_signed(self.early)})"] if self.early else []
        along += [f"lingering {_number(self.lingering)}"] if self.lingering else []
        return "; ".join(positive + negative + shifted + along + otherwise)


def _grouped(rules: Iterable[Rule]) -> tuple[Group, ...]:
    """Groups of items that behave alike, positive before negative, the strongest first (stable)."""
    levels: dict[Atom, dict[Context, int]] = {}
    for rule in rules:
        by_context = levels.setdefault(rule.current, {})
        if by_context.setdefault(rule.context, rule.level) != rule.level:
            raise InputError("the pattern gives two strengths to " + " ".join(map(str, rule.steps)))
    alike: dict[frozenset[tuple[Context, int]], list[Atom]] = {}
    for item, by_context in levels.items():
        alike.setdefault(frozenset(by_context.items()), []).append(item)
    groups = [
        Group(_tokens_first(items), levels[items[0]].get(()), _by_level(levels[items[0]]))
        for items in alike.values()
    ]
    return tuple(sorted(groups, key=lambda group: (group.peak < 0, -abs(group.peak))))


def _steps_by_context(shifts: Iterable[Shift]) -> dict[Context, int]:
    steps: dict[Context, int] = {}
    for shift in shifts:
        if not shift.context:
            raise InputError("a shift needs something that it comes after")
        if steps.setdefault(shift.context, shift.step) != shift.step:
            raise InputError("the pattern adds two things after " + " ".join(map(str, shift.context)))
    return steps


def _tokens_first(items: Iterable[Atom]) -> tuple[Atom, ...]:
    """Tokens, then each spelling and likeness, then classes: `like` is said once for all that follow."""
    return tuple(sorted(items, key=lambda item: FORMS.index(item.form)))


def _by_level(by_context: Mapping[Context, int]) -> tuple[tuple[int, tuple[Context, ...]], ...]:
    contexts: dict[int, list[Context]] = {}
    for context, level in by_context.items():
        if context:
            contexts.setdefault(level, []).append(context)
    strongest_first = sorted(contexts, key=lambda level: (-abs(level), -level))
    return tuple((level, tuple(contexts[level])) for level in strongest_first)


def _say(group: Group, sign: int) -> str:
    """One group in the part of its sign: there, plain numbers have that sign."""
    items = _any_of(_names(group.items))
    if len(group.after) + (group.level is not None) == 1:  # one level: no need for a list of them
        if group.level is not None:
            return f"{items} ({_number(group.level, sign)})" if group.level else f"not {items}"
        ((level, contexts),) = group.after
        said = f"{items} after {_contexts(contexts)}"
        return f"{said} ({_number(level, sign)})" if level else f"not {said}"
    parts = [] if group.level is None else [_number(group.level, sign)]
    for level, contexts in group.after:
        strength = _number(level, sign) if level else "not"
        parts.append(f"{strength} after {_contexts(contexts)}")
    if group.level is not None:
        parts[1] = "but " + parts[1]
    return f"{items} ({', '.join(parts)})"


def _names(items: Iterable[Atom]) -> Iterable[str]:
    form = None
    for item in items:
        yield quote(item.text) if item.form == form and form != "class" else str(item)
        form = item.form


def _contexts(contexts: Iterable[Context]) -> str:
    return _any_of(" ".join(map(str, context)) for context in contexts)


def _any_of(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _signed(step: int) -> str:
    return _number(step) if step < 0 else "+" + _number(step)


def _number(level: int, sign: int = 1) -> str:
    digits = f"{abs(level) / 10:.1f}".removesuffix(".0")
    if level * sign >= 0:
        return digits
    return ("-" if sign > 0 else "+") + digits
