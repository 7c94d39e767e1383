"""Revision of patterns: counterexamples, mended sentences, and the choice among them on validation.

New evidence is taken whole: texts on which the sentence was right are evidence, too. Counterexamples alone
would teach that everything is an exception (they lower the held-out score by 0.03). What is strong in the new
texts weighs as much as the unit's own top excerpts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.explain.pattern import question as learned_from
from nxtools.explain.pattern import side
from nxtools.pattern.atoms import Form
from nxtools.pattern.execute import execute
from nxtools.pattern.fit import Budget, rounded
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.language import parse
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.sentence import FULL, Pattern, Shift
from nxtools.records import NO_TOKEN, Failure
from nxtools.revise.challenge import SORTS, counterexamples, dealt
from nxtools.revise.choice import merit, worth
from nxtools.revise.evidence import New
from nxtools.revise.mend import DEPTH, Mender
from nxtools.revise.rows import Rows
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared

VERSION = 8  # of the question: raise it when a revision would come out differently

STRONG = 20  # new texts of each side that weigh as own ones do
STEPS = 80
# Weights of the unit's own excerpts, of strong new texts and of neighbours, against 1 for ordinary text. What
# is best depends on the unit, and validation says which. Neighbours are many, and in no natural text.
WEIGHTS = ((8.0, 6.0, 0.0), (16.0, 12.0, 0.0), (32.0, 24.0, 0.0), (16.0, 12.0, 1.0))
LIKENESSES: tuple[Form, ...] = ("much-like", "like", "roughly-like")

Activations = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """One round for one explanation. kept: rows by source that the first round kept for scores; None: this is
    the first, and later ones keep no more, since their reviser has seen all the others."""

    unit: Unit
    text: str
    scale: float
    new: tuple[New, ...]
    budget: Budget
    kept: Mapping[str, Sequence[int]] | None = None


def question(
    unit: Unit,
    digests: Mapping[str, str],
    pool: str | None,
    text: str,
    scale: float,
    new: Sequence[New],
    budget: Budget,
    kept: Mapping[str, Sequence[int]] | None,
) -> Record:
    """All that a revision depends on.

    digests: of the unit's excerpts by set; pool: that of the pool at hand.
    """
    return {
        **learned_from(unit, digests, pool, budget),
        "text": text,
        "scale": scale,
        "kept": None if kept is None else {source: sorted(rows) for source, rows in sorted(kept.items())},
        "new": [[one.source, " ".join(one.names), one.ids, one.activations] for one in new],
    }


def said_and_true(
    text: str, scale: float, new: New, lexicon: Lexicon, sign: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a sentence says of new texts, and what is there, on the side that is explained: (n, tokens)."""
    said = execute(parse(text), new.ids, lexicon).astype(np.float64) * scale
    return said, side(new.activations, sign).astype(np.float64)


class Revision:
    """One unit's evidence, old and new, and its validation."""

    def __init__(self, unit: Unit, shared: Shared | None, budget: Budget, new: Sequence[New]) -> None:
        self.unit, self.shared, self.budget, self.new = unit, shared, budget, new
        if shared is not None:
            self.lexicon, self.kinds = shared.lexicon, _kinds(shared)
        else:
            self.lexicon = Lexicon(unit.vocabulary)
            seen = np.unique(unit.shown("evidence").table.ids)
            self.kinds = Kinds(self.lexicon, seen[seen != NO_TOKEN].astype(np.intp), 0)

    def versions(
        self, text: str, scale: float, reserved: Mapping[str, set[int]]
    ) -> list[tuple[str, Pattern, float]]:
        """Mended sentences: how each was made, the sentence, its scale. `reserved` rows are not seen.

        What the sentence adds after certain tokens and says along the text stays; rules are mended for what
        is left beside it.
        """
        old = parse(text)
        rules, rest = [rule.steps for rule in old.rules], replace(old, rules=(), otherwise=0)
        literals = self.budget.literals - rest.literals
        near = any(new.source == "neighbours" for new in self.new)
        weights = [each for each in WEIGHTS if near or not each[2]]
        rows = [self._beside(old, scale, self._rows(*each, reserved)) for each in weights]
        depth = max([DEPTH, *map(len, rules)])
        evidence = Mender(self.lexicon, self.kinds, rows[0], depth)
        found = []
        for (_, strong, neighbour), weighted in zip(weights, rows, strict=True):
            mender = evidence.weighted(weighted.weights)
            rules = said = mender.mend(rules, literals, STEPS)  # each goes on from the one before
            pattern, found_scale = _with_rest(*mender.pattern(said), rest, scale)
            while not self.budget.allows(pattern) and said:  # too many characters
                said = mender.shorter(said)
                pattern, found_scale = _with_rest(*mender.pattern(said), rest, scale)
            by = " with neighbours" if neighbour else ""
            found.append((f"mended{by}, strong texts {strong:g} times", pattern, found_scale))
        return found

    def _beside(self, old: Pattern, scale: float, rows: Rows) -> Rows:
        """Evidence less what is said of it beside rules."""
        ruled = Pattern(old.rules, old.otherwise)
        if old == ruled:
            return rows
        added = execute(old, rows.ids, self.lexicon) - execute(ruled, rows.ids, self.lexicon)
        return Rows(rows.ids, rows.activations - added * np.float32(scale), rows.weights)

    def _rows(self, own: float, strong: float, neighbour: float, reserved: Mapping[str, set[int]]) -> Rows:
        shown, sign = self.unit.shown("evidence"), self.unit.sign
        mine = [r for r, pick in enumerate(shown.picks) if self.shared is None or pick != "random"]
        table = shown.table
        parts = [
            Rows(np.maximum(table.ids[mine], 0), side(table.activations[mine], sign), np.full(len(mine), own))
        ]
        if self.shared is not None:
            pool = side(self.shared.activations(self.unit, "evidence"), sign)
            parts.append(Rows(self.shared.pool.ids("evidence"), pool, np.ones(len(pool))))
        for new in self.new:
            keep = np.array(
                [r for r in range(len(new.names)) if r not in reserved.get(new.source, ())], np.intp
            )
            values = side(new.activations[keep], sign)
            weights = np.full(len(keep), neighbour if new.source == "neighbours" else 1.0)
            if new.source != "neighbours":
                for height in (values, -values):
                    peaks = np.nan_to_num(height, nan=-np.inf).max(1, initial=-np.inf)
                    best = np.argsort(-peaks, kind="stable")[:STRONG]
                    weights[best[peaks[best] > 0]] = strong
            parts.append(Rows(new.ids[keep], values, weights))
        return Rows.joined(*parts)

    def validation(self, pattern: Pattern) -> Record:
        """Correlations on validation excerpts: the line's, and those of the random pool."""
        shown = self.unit.shown("validation")
        found: Record = {}
        predicted = execute(pattern, np.maximum(shown.table.ids, 0), self.lexicon)
        rows = [r for r, pick in enumerate(shown.picks) if pick in ("top", "random")]
        found["top_and_random"] = worth(shown.table.activations[rows], predicted[rows])
        if self.shared is not None:
            truth = self.shared.activations(self.unit, "validation")
            ids = self.shared.pool.ids("validation")
            found["pool"] = worth(truth, execute(pattern, ids, self.lexicon))
        return found


def _with_rest(pattern: Pattern, scale: float, rest: Pattern, of: float) -> tuple[Pattern, float]:
    """A mended pattern and its scale, with what a sentence of scale `of` says beside rules."""
    added = np.array([rest.early, *(shift.step for shift in rest.shifts)])
    early, *steps = rounded((added / FULL * of / scale).clip(-1, 1))
    kept = tuple(Shift(shift.context, step) for shift, step in zip(rest.shifts, steps, strict=True) if step)
    return Pattern(pattern.rules, pattern.otherwise, kept, early, rest.lingering), scale


@lru_cache(maxsize=2)
def _kinds(shared: Shared) -> Kinds:
    """What the tokens of a pool have in common."""
    ids = np.unique(shared.lexicon.one_per_text()[shared.pool.ids("evidence")])
    return Kinds(shared.lexicon, ids, len(ids), LIKENESSES)


def revise(job: Job, shared: Shared | None) -> Record | Failure:
    """One round: counterexamples to the text, the versions made of them, and which is best on validation.

    `current`: 0 for the old one, else which of `versions`.
    """
    try:
        old = parse(job.text)
    except InputError as error:
        return Failure("revise", "no-pattern", str(error))
    revision = Revision(job.unit, shared, job.budget, job.new)
    challenged: list[Record] = []
    reserved = {source: set(rows) for source, rows in (job.kept or {}).items()}
    for one in job.new:
        said, truth = said_and_true(job.text, job.scale, one, revision.lexicon, job.unit.sign)
        sorts = zip(SORTS, counterexamples(said, truth, job.scale), strict=True)
        for sort, found in sorts:
            rows = [row for row in found if row not in reserved.get(one.source, ())]
            for row, role in dealt(rows, None if job.kept is None else dict.fromkeys(rows, "reviser")):
                if role == "scores":
                    reserved.setdefault(one.source, set()).add(row)
                challenged.append({"from": one.source, "row": row, "sort": sort, "for": role})
    made = revision.versions(job.text, job.scale, reserved)
    before = revision.validation(old)
    versions: list[Record] = [
        {
            "text": str(pattern),
            "scale": float(f"{found:.4g}"),
            "literals": pattern.literals,
            "made": how,
            "validation": revision.validation(pattern),
        }
        for how, pattern, found in made
    ]
    merits = [merit(before), *(merit(version["validation"]) for version in versions)]
    return {
        "counterexamples": challenged,
        "validation": before,
        "versions": versions,
        "current": merits.index(max(merits)),
    }
