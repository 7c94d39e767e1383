"""What can be taken back from some rules, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nxtools.pattern.atoms import Atom
from nxtools.revise.fitting import Evidence, Fitted, Steps, rank_of
from nxtools.revise.grouping import Gone


@dataclass(frozen=True)
class Offer:
    """A rule, or an item with all its rules: the squared error that comes back without them, the literals
    that get free, and what is said in their place; that is not known of items without a token."""

    rules: frozenset[Steps]
    cost: float
    freed: int
    gone: Gone | None

    @property
    def rate(self) -> float:
        return self.cost / max(self.freed, 0.5)


def offers(evidence: Evidence, fitted: Fitted, *, items: bool = True) -> list[Offer]:
    """What may be given up, the cheapest literals first. items: with all their rules, too."""
    places: dict[Atom, list[int]] = {}
    for place, steps in enumerate(fitted.rules):
        places.setdefault(steps[-1], []).append(place)
    found = []
    for item, of_item in places.items():
        for place in of_item:
            steps = fitted.rules[place]
            gone = _without(fitted, place) if item.form == "token" else None
            cost = _cost_of_kind(evidence, fitted, place) if gone is None else _cost(evidence, fitted, gone)
            found.append(Offer(frozenset([steps]), cost, len(steps) - (len(of_item) > 1), gone))
        if items and len(of_item) > 1 and item.form == "token":
            at = np.flatnonzero(np.isin(fitted.owner, of_item))
            gone = Gone(at, fitted.base[at], np.zeros(len(at)))
            rules = frozenset(fitted.rules[place] for place in of_item)
            found.append(Offer(rules, _cost(evidence, fitted, gone), literals_of(list(rules)), gone))
    return sorted(found, key=lambda offer: offer.rate)


def literals_of(rules: list[Steps]) -> int:
    """What rules cost: each item once, and all that stands before it."""
    return len({steps[-1] for steps in rules}) + sum(len(steps) - 1 for steps in rules)


def _without(fitted: Fitted, place: int) -> Gone:
    """Without a rule that names a token the less specific one speaks."""
    at, low = np.flatnonzero(fitted.owner == place), fitted.below[place]
    if low < 0:
        return Gone(at, fitted.base[at], np.zeros(len(at)))
    return Gone(at, np.full(len(at), fitted.values[low]), np.full(len(at), rank_of(fitted.rules[low])))


def _cost(evidence: Evidence, fitted: Fitted, gone: Gone) -> float:
    weights, values = evidence.weights[gone.at], evidence.values[gone.at]
    now, then = values - fitted.predicted[gone.at], values - gone.predicted
    return float((weights * (then * then - now * now)).sum())


def _cost_of_kind(evidence: Evidence, fitted: Fitted, place: int) -> float:
    at, low = fitted.held[place], fitted.below[place]
    at = at[fitted.owner[at] < 0]
    less = fitted.values[low] if low >= 0 else fitted.otherwise
    predicted = fitted.predicted[at] + (less - fitted.values[place])
    return _cost(evidence, fitted, Gone(at, predicted, np.zeros(len(at))))
