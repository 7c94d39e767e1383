"""Mend a pattern on evidence: give up rules that explain least, and take better ones for their literals.

A learned pattern is grown rule by rule and never looks back. Here every step takes back the rule whose loss
costs least for the literals that it frees, and adds the rules that remove most squared error for them: tokens
after tokens, and, which the learner does not try, tokens after a kind of token and kinds after a token. So a
rule that new evidence refutes goes, and an exception that says when *not* comes in its place. A step that
does not lower the error is undone. The literals never become more.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from nxtools.pattern.fit import levels_around
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.sentence import Pattern, Rule
from nxtools.revise.adding import Search
from nxtools.revise.fitting import Evidence, Fitted, Floats, Steps
from nxtools.revise.rows import Rows

DEPTH = 3  # tokens of a rule, the current one included: longer ones are hardly ever worth their literals
ENOUGH = 1e-4  # of the squared error: what a step must remove


class Mender:
    """Evidence of one unit, and the search for rules on it."""

    def __init__(self, lexicon: Lexicon, kinds: Kinds, rows: Rows, depth: int = DEPTH) -> None:
        """`depth`: how many tokens rules look at, those of the sentence that is mended too."""
        self.evidence = Evidence(lexicon, rows, depth)
        self._search = Search(self.evidence, kinds)

    def weighted(self, weights: Floats) -> Mender:
        """The same evidence with other weights of its rows."""
        other, search = copy(self), copy(self._search)
        other.evidence = search.evidence = self.evidence.weighted(weights)
        other._search = search
        return other

    def mend(self, rules: list[Steps], literals: int, steps: int) -> list[Steps]:
        """Rules with at most so many literals, from `rules`, in so many steps at most."""
        best = self._filled(self._trimmed(self._apart(rules), literals), literals, set())
        refused: set[Steps] = set()
        for _ in range(steps):
            gone = self._least(best, refused)
            if gone is None:
                break
            left = [steps for steps in best.rules if steps != gone]
            tried = self._filled(left, literals, {gone})
            if tried.error < best.error - ENOUGH * self.evidence.total:
                best, refused = tried, set()
            else:
                refused.add(gone)
        return best.rules

    def pattern(self, rules: list[Steps]) -> tuple[Pattern, float]:
        """The sentence of the rules, and the activation that it prints as 10."""
        fitted = self.evidence.fit(rules)
        scale = float(np.abs(np.append(fitted.values, fitted.otherwise)).max()) or 1.0
        levels, rest = levels_around(fitted.values / scale, fitted.otherwise / scale)
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

    def shorter(self, rules: list[Steps]) -> list[Steps]:
        """Without the rule that costs least."""
        gone = self._least(self.evidence.fit(rules), set())
        return [steps for steps in rules if steps != gone]

    # Taking back

    def _least(self, fitted: Fitted, refused: set[Steps]) -> Steps | None:
        """The rule that costs least to give up, for each literal that it frees."""
        best, lowest = None, np.inf
        heads = [steps[-1] for steps in fitted.rules]
        for place, steps in enumerate(fitted.rules):
            if steps in refused:
                continue
            low = fitted.below[place]
            without = fitted.values[low] if low >= 0 else fitted.otherwise
            if steps[-1].form == "token":
                at = np.flatnonzero(fitted.owner == place)
            else:
                at = fitted.held[place]
                at = at[fitted.owner[at] < 0]
                without = fitted.predicted[at] + (without - fitted.values[place])
            weights, values = self.evidence.weights[at], self.evidence.values[at]
            loss = float((weights * ((values - without) ** 2 - (values - fitted.predicted[at]) ** 2)).sum())
            freed = len(steps) - (heads.count(steps[-1]) > 1)
            if loss / max(freed, 0.5) < lowest:
                best, lowest = steps, loss / max(freed, 0.5)
        return best

    def _apart(self, rules: list[Steps]) -> list[Steps]:
        """Without one of each two rules that overlap, that which costs less: a person may have typed both."""
        rules = list(dict.fromkeys(rules))
        while tied := {s for s in rules if any(self.evidence.overlap(s, other) for other in rules)}:
            gone = self._least(self.evidence.fit(rules), set(rules) - tied)
            rules = [steps for steps in rules if steps != gone]
        return rules

    def _trimmed(self, rules: list[Steps], literals: int) -> list[Steps]:
        while literals_of(rules) > literals:
            rules = self.shorter(rules)
        return rules

    # Adding

    def _filled(self, rules: list[Steps], literals: int, refused: set[Steps]) -> Fitted:
        """With the best rules added, as long as there are literals for them."""
        fitted = self.evidence.fit(rules)
        while (room := literals - literals_of(fitted.rules)) > 0:
            steps = self._search.best(fitted, room, refused)
            if steps is None:
                break
            more = self.evidence.fit([*fitted.rules, steps])
            if more.error > fitted.error - ENOUGH * self.evidence.total:
                break
            fitted = more
        return fitted


def literals_of(rules: list[Steps]) -> int:
    """What rules cost: each item once, and all that stands before it."""
    return len({steps[-1] for steps in rules}) + sum(len(steps) - 1 for steps in rules)
