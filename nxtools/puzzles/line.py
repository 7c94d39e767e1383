"""A puzzle as a unit line: everything that reads units can be tried on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from nxtools.explain.pattern import identify
from nxtools.puzzles.marked import STRONGEST, Sentence
from nxtools.puzzles.puzzle import Puzzle, Said
from nxtools.records import SETS, VERSION
from nxtools.stream import Record

AMONG_RANDOM = 3  # of the sentences that fire every third is a random one: random ones alone have a score


def line(puzzle: Puzzle, index: int) -> Record:
    """The unit line of a puzzle. Sentences that fire are top excerpts, strongest first, and those that do not
    are random ones, as is every third that fires; so all figures of a score exist."""
    ids: dict[str, int] = {}
    excerpts = [
        excerpt
        for which in SETS
        for pick, of_pick in _dealt(puzzle.sentences[which]).items()
        for excerpt in _excerpts(which, pick, of_pick, ids)
    ]
    told = [_candidate(what, said) for what, said in puzzle.candidates]
    values = np.concatenate([excerpt["activations"] for excerpt in excerpts])
    return {
        "kind": "unit",
        "v": VERSION,
        "unit": {
            "subject": "puzzles",
            "fingerprint": _digest(repr(puzzle)),
            "site": "puzzle",
            "layer": 0,
            "index": index,
            "sign": "+",
        },
        "puzzle": {"name": puzzle.name, "kind": puzzle.kind, "difficulty": puzzle.difficulty},
        "stats": {
            "tokens": len(values),
            "mean": round(float(values.mean()), 4),
            "variance": round(float(values.var()), 4),
            "max": float(values.max()),
            "active": round(float((values > 0.3 * values.max()).mean()), 4),
        },
        "excerpts": excerpts,
        "explanations": told,
    }


def _dealt(sentences: Iterable[Sentence]) -> dict[str, list[Sentence]]:
    fire = sorted((s for s in sentences if s.peak > 0), key=lambda sentence: -sentence.peak)
    silent = [s for s in sentences if not s.peak > 0]
    mixed = fire[AMONG_RANDOM - 1 :: AMONG_RANDOM]
    return {"top": [s for s in fire if s not in mixed], "random": mixed + silent}


def _excerpts(which: str, pick: str, sentences: list[Sentence], ids: dict[str, int]) -> Iterable[Record]:
    for rank, sentence in enumerate(sentences):
        name = _digest("".join(sentence.tokens))
        yield {
            "id": name,
            "document": name,
            "start": 0,
            "set": which,
            "pick": pick,
            "rank": rank,
            "probability": None,
            "ids": [ids.setdefault(token, len(ids)) for token in sentence.tokens],
            "tokens": list(sentence.tokens),
            "activations": list(sentence.activations),
        }


def _candidate(what: str, said: Said) -> Record:
    """An explanation that is known to be right or wrong. Language models are told `text`; the pattern
    simulator runs `pattern`, and passes over words that no pattern says."""
    return identify(
        {
            "text": said.text,
            "pattern": said.pattern,
            "candidate": what,
            "by": {"explainer": "puzzle"},
            "scale": STRONGEST,
        }
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
