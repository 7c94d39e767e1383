"""Mend a pattern on evidence: give up rules that explain least, and take better ones for their literals.

A learned pattern is grown rule by rule and never looks back. Here every step takes back the rule whose loss
costs least for the literals that it frees, or an item with all its rules, and adds the rules that remove most
squared error for them: tokens after tokens, and, which the learner does not try, tokens after a kind of token
and kinds after a token. So a rule that new evidence refutes goes, and an exception that says when *not* comes
in its place. A step that does not lower the error is undone. The literals never become more.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from nxtools.pattern.fit import levels_around
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.sentence import Pattern, Rule
from nxtools.revise.adding import Room, Search
from nxtools.revise.fitting import Evidence, Fitted, Floats, Steps
from nxtools.revise.giving import literals_of, offers
from nxtools.revise.rows import Rows

DEPTH = 3  # tokens of a rule, the current one included: longer ones are hardly ever worth their literals
ENOUGH = 1e-4  # of the squared error: what a step must remove
PROMISE = 0.8  # of what a rule removes: what one in its place must seem to, for each literal, to be tried

# Levels a factor of about 1.2 apart. The learner's are 1.5 apart, which groups more tokens and costs 0.003.
LEVELS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 70, 84, 100])


class Mender:
    """Evidence of one unit, and the search for rules on it."""

    def __init__(self, lexicon: Lexicon, kinds: Kinds, rows: Rows, depth: int = DEPTH) -> None:
        """`depth`: how many tokens rules look at, those of the sentence that is mended too."""
        self.evidence = Evidence(lexicon, rows, depth)
        self._search = Search(self.evidence, kinds)

    def weighted(self, weights: Floats) -> Mender:
        """The same evidence with other weights of its rows."""
        other = copy(self)
        other.evidence = self.evidence.weighted(weights)
        other._search = self._search.weighted(other.evidence)
        return other

    def mend(self, rules: list[Steps], literals: int, steps: int) -> list[Steps]:
        """Rules with at most so many literals, from `rules`, in so many steps at most."""
        best = self._filled(self._trimmed(self._apart(rules), literals), literals, frozenset())
        refused: set[frozenset[Steps]] = set()
        for _ in range(steps):
            gone = self._promising(best, literals, refused)
            if gone is None:
                break
            left = [steps for steps in best.rules if steps not in gone]
            tried = self._filled(left, literals, gone)
            if tried.error < best.error - ENOUGH * self.evidence.total:
                best, refused = tried, set()
            else:
                refused.add(gone)
        return best.rules

    def _promising(
        self, fitted: Fitted, literals: int, refused: set[frozenset[Steps]]
    ) -> frozenset[Steps] | None:
        """Of what costs least to give up, the first in whose place others may remove more.

        What is passed over is refused: it need not be looked at again while the rules stay."""
        left = self._search.left(fitted)
        for offer in offers(self.evidence, fitted):
            if offer.rules in refused:
                continue
            others = [steps for steps in fitted.rules if steps not in offer.rules]
            room = Room(literals - literals_of(others), others, offer.rules)
            wanted = offer.cost + ENOUGH * self.evidence.total
            least = PROMISE * wanted / max(room.literals, 0.5)
            if room.literals and (
                offer.gone is None
                or self._search.promises(self._search.without(left, fitted, offer.gone), room, least)
            ):
                return offer.rules
            refused.add(offer.rules)
        return None

    def pattern(self, rules: list[Steps]) -> tuple[Pattern, float]:
        """The sentence of the rules, and the activation that it prints as 10."""
        fitted = self.evidence.fit(rules)
        scale = float(np.abs(np.append(fitted.values, fitted.otherwise)).max()) or 1.0
        levels, rest = levels_around(fitted.values / scale, fitted.otherwise / scale, LEVELS)
        for place in self._refusing(fitted, levels):
            levels[place] = -1 if fitted.values[place] < 0 else 1
        said = tuple(Rule(steps, level) for steps, level in zip(fitted.rules, levels, strict=True))
        return Pattern(said, rest), scale

    def _refusing(self, fitted: Fitted, levels: list[int]) -> list[int]:
        """Rules whose 0 would be the answer where another item adds something to it."""
        items = {place: fitted.rules[place][-1] for place in fitted.held}
        return [
            place
            for place, item in items.items()
            if levels[place] == 0
            and any(
                other != item and len(np.intersect1d(fitted.held[place], fitted.held[with_]))
                for with_, other in items.items()
            )
        ]

    def shorter(self, rules: list[Steps], among: set[Steps] | None = None) -> list[Steps]:
        """Without the rule that costs least, of all or `among` some."""
        found = offers(self.evidence, self.evidence.fit(rules), items=False)
        gone = next(offer.rules for offer in found if among is None or offer.rules <= among)
        return [steps for steps in rules if steps not in gone]

    # Taking back

    def _apart(self, rules: list[Steps]) -> list[Steps]:
        """Without one of each two rules that overlap, that which costs less: a person may have typed both."""
        rules = list(dict.fromkeys(rules))
        while tied := {s for s in rules if any(self.evidence.overlap(s, other) for other in rules)}:
            rules = self.shorter(rules, tied)
        return rules

    def _trimmed(self, rules: list[Steps], literals: int) -> list[Steps]:
        while literals_of(rules) > literals:
            rules = self.shorter(rules)
        return rules

    # Adding

    def _filled(self, rules: list[Steps], literals: int, refused: frozenset[Steps]) -> Fitted:
        """With the best rules added, as long as there are literals for them; some cost none."""
        fitted = self.evidence.fit(rules)
        while (free := literals - literals_of(fitted.rules)) >= 0:
            steps = self._search.best(self._search.left(fitted), Room(free, fitted.rules, refused))
            if not steps:
                break
            more = self.evidence.fit([*fitted.rules, steps])
            if more.error > fitted.error - ENOUGH * self.evidence.total:
                break
            fitted = more
        return fitted
