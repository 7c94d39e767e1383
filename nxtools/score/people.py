"""How scores agree with people, over all units of a run that somebody judged.

A *column* is one way of scoring: a method and who simulated or judged. Over explanations, scores are compared
with mean ratings by rank correlation; within units, by how often the explanation that a person prefers has
the higher score, by how far the scores lie apart (equal ones are right by half). Beside that stands how far
people agree among themselves: about as far as a score can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np

from nxtools.records import objects
from nxtools.score.agreement import Agreed, alpha, kendall, measured, measured_share, spearman
from nxtools.score.ratings import RATINGS, check_judgement, preferences, rated, text_digest
from nxtools.score.summary import aligned
from nxtools.stream import Record
from nxtools.unit import full_name

# The figure of each method that is compared.
FIGURES = {
    "correlation": "top_and_random",
    "ablation": "top_and_random",
    "detection": "balanced_accuracy",
    "fuzzing": "balanced_accuracy",
    "surprisal": "auroc",
    "embedding": "auroc",
}
APART = (0.0, 0.05, 0.1, 0.2, 0.4)  # from where on differences of scores are looked at together


@dataclass
class _Column:
    scores: list[tuple[str, float, float]] = field(default_factory=list)  # unit, score, mean rating
    pairs: list[tuple[str, float]] = field(default_factory=list)  # unit, by how much the preferred is higher
    without: int = 0  # rated explanations that have no such score


class People:
    """Takes unit lines with `ratings` one by one; says how their scores agree with them."""

    def __init__(self) -> None:
        self.raters: set[str] = set()
        self.judgements = 0
        self.units = 0
        self.unknown = 0  # judgements of explanations that their unit does not have
        self._columns: dict[tuple[str, str], _Column] = {}
        self._ratings: list[tuple[str, list[int]]] = []  # of each explanation with several raters
        self._shared: list[tuple[str, float]] = []  # whether two raters prefer the same of two explanations

    def add(self, record: Record) -> None:
        """InputError where `ratings` holds something else than judgements."""
        judgements = objects(record, "ratings", optional=True)
        if not judgements:
            return
        for one in judgements:
            check_judgement(one)
        unit, by_text = full_name(record), _scores(record)
        by_rater, preferred = rated(judgements), list(preferences(judgements))
        self.units += 1
        self.judgements += len(judgements)
        self.raters.update(str(one.get("rater") or "") for one in judgements)
        named = [*by_rater, *(name for _, *pair in preferred for name in pair)]
        self.unknown += len(set(named) - by_text.keys())
        for column in {column: None for scores in by_text.values() for column in scores}:
            self._compare(unit, column, by_text, by_rater, preferred)
        self._ratings += [(unit, list(of_one.values())) for of_one in by_rater.values() if len(of_one) > 1]
        self._shared += ((unit, agree) for agree in _same(preferred))

    def _compare(
        self,
        unit: str,
        column: tuple[str, str],
        by_text: dict[str, dict[tuple[str, str], float | None]],
        by_rater: dict[str, dict[str, int]],
        preferred: list[tuple[str, str, str]],
    ) -> None:
        into = self._columns.setdefault(column, _Column())
        of_column = {name: scores.get(column) for name, scores in by_text.items()}
        for name, ratings in by_rater.items():
            score = of_column.get(name)
            if score is not None:
                into.scores.append((unit, score, sum(ratings.values()) / len(ratings)))
            elif name in by_text:
                into.without += 1
        for _, better, worse in preferred:
            high, low = of_column.get(better), of_column.get(worse)
            if high is not None and low is not None:
                into.pairs.append((unit, high - low))

    def columns(self) -> list[tuple[str, str]]:
        """(method, simulator), as they came."""
        return list(self._columns)

    def without(self, column: tuple[str, str]) -> int:
        return self._columns[column].without

    def figures(self, column: tuple[str, str]) -> dict[str, Agreed]:
        """By name: `spearman`, `kendall`, `preferred`, and `preferred` by difference of scores."""
        rows, pairs = self._columns[column].scores, self._columns[column].pairs
        units = [unit for unit, _, _ in rows]
        x, y = (np.array([row[place] for row in rows]) for place in (1, 2))
        found = {
            "spearman": measured(lambda weights: spearman(x, y, weights), units),
            "kendall": measured(lambda weights: kendall(x, y, weights), units),
            "preferred": _preferred(pairs),
        }
        for low, high in pairwise((*APART, np.inf)):
            some = [(unit, gap) for unit, gap in pairs if low <= abs(gap) < high]
            found[f"preferred, {apart(low, high)}"] = _preferred(some)
        return found

    def among(self) -> dict[str, Agreed]:
        """People among themselves: Krippendorff's `alpha` of their ratings, and how often two `preferred`
        the same of two explanations."""
        units = [unit for unit, _ in self._ratings]
        ratings = [of_one for _, of_one in self._ratings]
        return {
            "alpha": measured(lambda weights: alpha(ratings, RATINGS, weights), units),
            "preferred": measured_share(np.array([one for _, one in self._shared]), _units(self._shared)),
        }

    def lines(self) -> list[str]:
        """For people: a column for each way of scoring, and one for how people agree among themselves."""
        if not self.judgements:
            return []
        told = {f"{method} by {by}": self.figures((method, by)) for method, by in self.columns()}
        among = self.among()
        if any(one.n for one in among.values()):
            told["among themselves"] = among
        names = dict.fromkeys([*_NAMES, *(name for figures in told.values() for name in figures)])
        raters, judgements, units = (
            f"{count:,} {what}{'' if count == 1 else 's'}"
            for count, what in (
                (len(self.raters), "rater"),
                (self.judgements, "judgement"),
                (self.units, "unit"),
            )
        )
        rows = [[f"agreement with people, 95% ({raters}, {judgements} of {units})", *told]]
        for name in names:
            cells = [_cell(figures.get(name)) for figures in told.values()]
            if any(cells):
                rows.append([_NAMES.get(name, f"  {name}"), *cells])
        without = [self.without(column) for column in self.columns()]
        if any(without):
            rows.append(["rated without a score", *map(str, without), *[""] * (len(told) - len(without))])
        lines = aligned(rows)
        if self.unknown:
            lines.append(f"{self.unknown:,} judged explanations are on no line")
        return lines


_NAMES = {
    "spearman": "rank correlation (Spearman)",
    "kendall": "rank correlation (Kendall)",
    "alpha": "Krippendorff's alpha",
    "preferred": "preferred one of two is higher",
}


def _cell(agreed: Agreed | None) -> str:
    if agreed is None or not agreed.n:
        return ""
    if agreed.value is None:
        return f"absent ({agreed.n})"
    within = "" if agreed.interval is None else " [{:.2f}, {:.2f}]".format(*agreed.interval)
    return f"{agreed.value:.2f}{within} ({agreed.n})"


def apart(low: float, high: float) -> str:
    """How far scores lie apart, in words."""
    if high == np.inf:
        return f"{low:g} and more apart"
    return f"under {high:g} apart" if low == 0 else f"{low:g} to {high:g} apart"


def _preferred(pairs: list[tuple[str, float]]) -> Agreed:
    gaps = np.array([gap for _, gap in pairs])
    return measured_share((np.sign(gaps) + 1) / 2, _units(pairs))


def _units(rows: list[tuple[str, float]]) -> list[str]:
    return [unit for unit, _ in rows]


def _scores(record: Record) -> dict[str, dict[tuple[str, str], float | None]]:
    """What each text on a unit line is worth, by method and simulator; None where a score is absent."""
    found: dict[str, dict[tuple[str, str], float | None]] = {}
    for name in ("explanations", "baselines"):
        for entry in objects(record, name, optional=True):
            if not isinstance(entry.get("text"), str):
                continue
            of_text = found.setdefault(text_digest(entry["text"]), {})
            for score in objects(entry, "scores", optional=True):
                method = str(score.get("method"))
                if method in FIGURES:
                    value = score.get(FIGURES[method])
                    number = float(value) if isinstance(value, int | float) else None
                    of_text.setdefault((method, str(score.get("simulator"))), number)
    return found


def _same(preferred: list[tuple[str, str, str]]) -> Iterator[float]:
    """For every two raters who both prefer one of two explanations: 1 if it is the same."""
    of_pair: dict[frozenset[str], dict[str, str]] = defaultdict(dict)
    for rater, better, worse in preferred:
        of_pair[frozenset((better, worse))][rater] = better
    for by_rater in of_pair.values():
        for one, other in combinations(sorted(by_rater), 2):
            yield float(by_rater[one] == by_rater[other])
