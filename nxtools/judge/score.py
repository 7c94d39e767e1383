"""What a judge said of a unit, as a score on its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nxtools.judge.asked import Answered
from nxtools.judge.choosing import Chosen, Item
from nxtools.judge.figures import FIGURES, Figures, Verdict, measure
from nxtools.judge.judge import Said
from nxtools.records import Failure
from nxtools.score.figures import short
from nxtools.score.replicates import packed
from nxtools.stream import Record


@dataclass(frozen=True)
class Judgement:
    """record: what goes on the line. judged: excerpts (or versions of them) that were answered."""

    record: Record
    figures: Figures
    documents: tuple[str, ...]
    judged: int


def scored(
    chosen: Chosen, items: Sequence[Item], said: Said, names: Sequence[str] = FIGURES
) -> Judgement | Failure:
    """These figures; the first failure where nothing was answered at all."""
    answered = [(item, one) for item, one in zip(items, said, strict=True) if not isinstance(one, Failure)]
    if not answered:
        failures = [one for one in said if isinstance(one, Failure)]
        none = Failure("score", "no-marks", "no excerpt has as many other tokens to mark")
        return failures[0] if failures else none
    verdicts = [_verdict(chosen, item, one) for item, one in answered]
    figures = measure(verdicts, chosen.unit.name, names)
    active = sum(one.truth for one in verdicts)
    record = figures.record() | {"active": active, "silent": len(verdicts) - active}
    if len(items) > len(answered):
        record["failed"] = len(items) - len(answered)
    if chosen.similar:
        record["negatives"] = "similar"
    record["above"] = short(chosen.threshold)
    record["judged"] = [_told(chosen, item, one) for item, one in answered]
    record["replicates"] = packed(
        {name: figures.replicates[name] for name in FIGURES if name in figures.replicates}
    )
    documents = tuple(one.document for one in verdicts)
    return Judgement(record, figures, documents, len(answered))


def _verdict(chosen: Chosen, item: Item, said: Answered) -> Verdict:
    document = chosen.shown.documents[item.row]
    strength = chosen.share(item.row)
    return Verdict(chosen.name(item.row), document, item.truth, said.said, said.score, strength)


def _told(chosen: Chosen, item: Item, said: Answered) -> Record:
    """Of one excerpt: its maximum as a share of the evidence's, the truth, and what was said."""
    told: Record = {"excerpt": chosen.name(item.row), "share": short(chosen.share(item.row))}
    told |= {"marks": sorted(item.marks)} if item.marks else {}
    told |= {"like": chosen.similar[item.row][0]} if item.row in chosen.similar else {}
    told |= {"truth": int(item.truth), "said": int(said.said)}
    return told | ({} if said.score is None else {"score": short(said.score)})
