"""Puzzles: what a made-up unit reacts to, sentences that show it, and explanations that nearly say it."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nxtools.errors import InputError, located
from nxtools.pattern.atoms import quote
from nxtools.puzzles.marked import Sentence, read
from nxtools.records import SETS
from nxtools.stream import Record

DATA = Path(__file__).parent / "data"
FALSE = 3  # near misses that each of ours has
COMMONEST = 3  # tokens that the last false one names


@dataclass(frozen=True)
class Said:
    """An explanation in words, and the sentence of the pattern language that says the same, if one does."""

    text: str
    pattern: str | None = None


@dataclass(frozen=True)
class Puzzle:
    """`difficulty`: from 1 (one token) to 5 (needs reckoning over the whole text); None where unknown."""

    name: str
    kind: str
    difficulty: int | None
    truth: Said
    false: tuple[Said, ...]
    sentences: dict[str, tuple[Sentence, ...]]  # by set

    @property
    def commonest(self) -> Said | None:
        """The tokens that are strong most often: what somebody would say who only looks at them."""
        peak = max((s.peak for s in self.sentences["evidence"]), default=0.0)
        counted = Counter(
            token
            for sentence in self.sentences["evidence"]
            for token, strength in zip(sentence.tokens, sentence.activations, strict=True)
            if strength > peak / 2
        )
        *most, last = [quote(token) for token, _ in counted.most_common(COMMONEST)] or [""]
        text = f"{', '.join(most)} or {last}" if most else last
        return Said(text, text) if text else None

    @property
    def candidates(self) -> list[tuple[str, Said]]:
        """The truth, the false ones, and the commonest tokens, each with what it is."""
        found = [("truth", self.truth), *(("false", said) for said in self.false)]
        return [*found, ("tokens", self.commonest)] if self.commonest else found


def ours() -> list[Puzzle]:
    """The puzzles that come along, from easy to hard."""
    puzzles = [
        _ours(name, entry)
        for path in sorted(DATA.glob("*.toml"))
        for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()
    ]
    return sorted(puzzles, key=lambda puzzle: (puzzle.difficulty or 0, puzzle.name))


def _ours(name: str, entry: Record) -> Puzzle:
    with located(f"puzzle {name}"):
        return Puzzle(
            name,
            entry["kind"],
            entry["difficulty"],
            Said(entry["truth"], entry.get("pattern")),
            tuple(Said(said["text"], said.get("pattern")) for said in entry["false"]),
            {which: tuple(map(read, entry[which].strip().splitlines())) for which in SETS},
        )


def imported(found: Any) -> list[Puzzle]:
    """Puzzles in the form of the paper's code: by name objects with `name`, `explanation`,
    `false_explanations` and `sentences`, whose tokens are texts, or pairs of text and activation. Or a list
    of such objects.

    They have no sets of their own: sentences with and without activations are dealt out in turn, half of each
    to the evidence. InputError for anything else.
    """
    if isinstance(found, dict):
        found = [
            {"name": name, **entry} if isinstance(entry, dict) else entry for name, entry in found.items()
        ]
    if not isinstance(found, list) or not found:
        raise InputError("no puzzles", hint="a JSON object of puzzles by name is wanted, or a list of them")
    return [_imported(entry, place) for place, entry in enumerate(found)]


# Some have three sentences that fire: one of them has to be held out, or nothing could be scored.
TURNS = ("evidence", "held-out", "evidence", "validation")


def _imported(entry: Any, place: int) -> Puzzle:
    try:
        sentences = [_sentence(tokens) for tokens in entry["sentences"]]
        false = [Said(str(text)) for text in entry.get("false_explanations", [])]
        dealt: dict[str, list[Sentence]] = {which: [] for which in SETS}
        for fires in (True, False):
            for turn, sentence in enumerate(s for s in sentences if (s.peak > 0) == fires):
                dealt[TURNS[turn % len(TURNS)]].append(sentence)
        return Puzzle(
            str(entry["name"]),
            "imported",
            None,
            Said(str(entry["explanation"])),
            tuple(false),
            {which: tuple(of_set) for which, of_set in dealt.items()},
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"puzzle {place + 1} cannot be read: {type(error).__name__}: {error}",
            hint="it needs name, explanation, false_explanations and sentences",
        ) from error


def _sentence(tokens: Sequence[Any]) -> Sentence:
    pairs = [(token, 0.0) if isinstance(token, str) else (token[0], float(token[1])) for token in tokens]
    if not all(isinstance(text, str) for text, _ in pairs):
        raise TypeError("a token is no text")
    return Sentence(tuple(text for text, _ in pairs), tuple(value for _, value in pairs))
