"""Where explainers' answers to puzzles stand among the truth and the false explanations.

Two questions at once. Does the *simulator* understand words: does the truth get the best score of all that is
known to be right or wrong? And does the *explainer*: how does its answer compare, under the same simulator?
A score that is absent (a constant has no correlation) stands below all others and in no mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from nxtools.errors import InputError
from nxtools.score.bootstrap import student
from nxtools.score.figures import short
from nxtools.score.summary import aligned
from nxtools.stream import Record

FIGURE = "top_and_random"
GOOD = 0.8
LOWEST = -2.0  # below every correlation


@dataclass(frozen=True)
class Result:
    """One explainer's answer to one puzzle under one simulator. None: not scored, or no score exists.

    `false` has the false explanations that were simulated; the pattern simulator passes over words that no
    pattern says, and then `truth_scored` is false.
    """

    puzzle: str
    kind: str
    difficulty: int | None
    explainer: str
    simulator: str
    text: str
    answer: float | None
    truth: float | None
    false: tuple[float | None, ...]
    truth_scored: bool

    @property
    def truth_first(self) -> bool | None:
        """Whether no false explanation beats the truth; None where the two cannot be compared."""
        if not self.truth_scored or not self.false:
            return None
        return self.truth is not None and all(self.truth >= _height(other) for other in self.false)

    @property
    def rank(self) -> int | None:
        """Of the answer among all candidates: 1 when none is better; None when it has no score."""
        if self.answer is None:
            return None
        others = [*self.false, *([self.truth] if self.truth_scored else [])]
        return 1 + sum(_height(other) > self.answer for other in others)

    @property
    def candidates(self) -> int:
        return len(self.false) + self.truth_scored

    def record(self) -> Record:
        return {
            "kind": "puzzle",
            "v": 1,
            "puzzle": {"name": self.puzzle, "kind": self.kind, "difficulty": self.difficulty},
            "explainer": self.explainer,
            "simulator": self.simulator,
            "text": self.text,
            "answer": self.answer,
            "truth": self.truth,
            "false": list(self.false),
            "truth_first": self.truth_first,
            "rank": self.rank,
            "candidates": self.candidates,
        }


def _height(value: float | None) -> float:
    return LOWEST if value is None else value


def results(unit: Record) -> list[Result]:
    """Of every answer on a scored unit line, by the simulators that scored it. InputError for other lines."""
    puzzle = unit.get("puzzle")
    if not isinstance(puzzle, dict):
        raise InputError("this unit is no puzzle", hint="nx-puzzles | nx-explain | nx-score")
    told = [e for e in unit.get("explanations") or [] if "text" in e]
    candidates = [e for e in told if "candidate" in e]
    found = []
    for answer in told:
        if "candidate" in answer:
            continue
        for score in answer.get("scores") or []:
            by = str(score.get("simulator"))
            truth = [s for e in candidates if e["candidate"] == "truth" for s in _by(e, by)]
            false = [s for e in candidates if e["candidate"] != "truth" for s in _by(e, by)]
            explainer = str((answer.get("by") or {}).get("explainer", "unknown"))
            found.append(
                Result(
                    str(puzzle.get("name")),
                    str(puzzle.get("kind")),
                    puzzle.get("difficulty"),
                    f"paraphrase of {explainer}" if "paraphrase_of" in answer else explainer,
                    by,
                    str(answer["text"]),
                    score.get(FIGURE),
                    truth[0].get(FIGURE) if truth else None,
                    tuple(s.get(FIGURE) for s in false),
                    bool(truth),
                )
            )
    return found


def _by(explanation: Record, simulator: str) -> list[Record]:
    """The explanation's score by a simulator, if there is one."""
    scores = explanation.get("scores") or []
    return [s for s in scores if s.get("simulator") == simulator and "error" not in s][:1]


def totals(found: Iterable[Result]) -> list[Record]:
    """A record for each explainer and simulator: means and shares with n and 95% intervals."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in found:
        groups[result.explainer, result.simulator].append(result)
    return [
        {
            "kind": "puzzles",
            "v": 1,
            "explainer": explainer,
            "simulator": simulator,
            "answer": _mean([r.answer for r in group]),
            "truth": _mean([r.truth for r in group if r.truth_scored]),
            "best_false": _mean([max(r.false, key=_height) for r in group if r.false]),
            "truth_first": _share([r.truth_first for r in group]),
            "answer_first": _share([r.rank == 1 if r.candidates else None for r in group]),
            "answer_over_0.8": _share([_height(r.answer) >= GOOD for r in group]),
        }
        for (explainer, simulator), group in groups.items()
    ]


def _mean(values: Sequence[float | None]) -> Record:
    """Mean ± t · sd / √n over the puzzles that have a score."""
    there = [value for value in values if value is not None]
    n = len(there)
    found: Record = {"n": n, "mean": short(fmean(there)) if n else None, "absent": len(values) - n}
    if n > 1:
        margin = student(n - 1) * stdev(there) / math.sqrt(n)
        found["interval"] = [short(fmean(there) - margin), short(fmean(there) + margin)]
    return found


def _share(values: Sequence[bool | None]) -> Record:
    """How many of those that can be asked, with Wilson's interval (1927, "Probable inference")."""
    there = [value for value in values if value is not None]
    n, k = len(there), sum(there)
    if not n:
        return {"n": 0, "share": None}
    z2 = 1.959964**2
    centre = (k + z2 / 2) / (n + z2)
    margin = math.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
    bounds = [short(max(0.0, centre - margin)), short(min(1.0, centre + margin))]
    return {"n": n, "count": k, "share": short(k / n), "interval": bounds}


# For people


def lines(found: Sequence[Result]) -> list[str]:
    """A table with a row for each result, and the totals below."""
    head = ["puzzle", "kind", "difficulty", "answer", "truth", "best false", "truth first", "rank"]
    told: list[str] = []
    for total in totals(found):
        explainer, simulator = total["explainer"], total["simulator"]
        rows = [head]
        for r in found:
            if (r.explainer, r.simulator) == (explainer, simulator):
                rows.append(_row(r))
        told.append(f"explained by {explainer}, simulated by {simulator}")
        told += aligned(rows)
        told += [_of_mean("answer", total), _of_mean("truth", total), _of_mean("best_false", total)]
        told += [_of_share(name, total) for name in ("truth_first", "answer_first", "answer_over_0.8")]
    return told


def _row(r: Result) -> list[str]:
    best = max(r.false, key=_height) if r.false else None
    first = {None: "", True: "yes", False: "no"}[r.truth_first]
    return [
        r.puzzle,
        r.kind,
        "" if r.difficulty is None else str(r.difficulty),
        _said(r.answer, True),
        _said(r.truth, r.truth_scored),
        _said(best, bool(r.false)),
        first,
        "" if r.rank is None else f"{r.rank} of {r.candidates + 1}",
    ]


def _said(value: float | None, scored: bool) -> str:
    if value is None:
        return "absent" if scored else ""
    return f"{value:.2f}"


def _of_mean(name: str, total: dict[str, Any]) -> str:
    of = total[name]
    label = name.replace("_", " ")
    if of["mean"] is None:
        return f"{label}: no score"
    low, high = of.get("interval", (None, None))
    spread = "" if low is None else f", 95% {low:.2f} to {high:.2f}"
    absent = f", {of['absent']} absent" if of["absent"] else ""
    return f"{label}: mean {of['mean']:.2f} (n {of['n']}{spread}{absent})"


def _of_share(name: str, total: dict[str, Any]) -> str:
    of = total[name]
    label = name.replace("_", " ")
    if of["share"] is None:
        return f"{label}: cannot be said"
    low, high = of["interval"]
    return f"{label}: {of['count']} of {of['n']} ({of['share']:.0%}, 95% {low:.0%} to {high:.0%})"
