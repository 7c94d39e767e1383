"""What nx-revise does with patterns: new texts, their activations, mended sentences, rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nxtools.explain.pattern import identify, to_run
from nxtools.explain.rewording import in_words
from nxtools.known import known
from nxtools.pattern.execute import execute
from nxtools.pattern.fit import Budget
from nxtools.pattern.language import parse
from nxtools.revise import pattern as patterns
from nxtools.revise.challenge import around
from nxtools.revise.choice import merit, together, worth
from nxtools.revise.evidence import OF_THE_CORPUS, Asked, Measured, Measuring, New
from nxtools.revise.pattern import said_and_true
from nxtools.revise.placing import Compared, failed, is_original, placed
from nxtools.score.figures import short
from nxtools.stage import Engine, Failure, Question, Step
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pattern.lexicon import Lexicon

RANDOM = 40  # excerpts with nonzero activation that `random` shows


@dataclass(frozen=True)
class Revising:
    """How patterns are revised, and who answers.

    rounds: at most. mender: mends patterns. budget: of the literals that an explanation's author had, where
    it says so.
    """

    measuring: Measuring
    rounds: int
    budget: Budget
    mender: Engine
    pool_digest: Callable[[Unit], str | None]
    lexicon: Callable[[Unit], Lexicon]

    def described(self) -> Record:
        sources = self.measuring.sources
        return {
            "from": list(sources or ["none"]),
            "rounds": self.rounds,
            **({"pool": self.measuring.count} if set(OF_THE_CORPUS) & set(sources) else {}),
            "version": patterns.VERSION,
        }


class Reviser:
    """Revises the patterns of many units."""

    def __init__(self, revising: Revising) -> None:
        self.how = revising
        self.measured = Measured(revising.measuring)
        self.compared: list[Compared] = []
        self.seen = 0  # patterns to revise
        self.refused = 0  # explanations whose subject cannot be asked

    def step(self, record: Record) -> Step:
        """The unit with its explanations revised; each stands before the one that it revises."""
        told = [e for e in record.get("explanations") or [] if is_original(e) and _is_pattern(e)]
        if record.get("dead") or record.get("error") or not told:
            return record
        self.seen += len(told)
        unit = Unit(record)
        digests = (yield from known(unit)).digests
        new = yield from self.measured.of(unit, record)
        by_id: dict[str, Record] = {}
        for explanation in told:
            if isinstance(new, Failure):
                self.refused += new.kind == "no-subject"
                made = failed(explanation, self.how.described(), new)
            else:
                made = yield from self._revised(unit, digests, explanation, new)
            by_id[explanation["id"]] = made
        record["explanations"] = placed(record["explanations"], by_id, self.how.described())
        return record

    def _revised(self, unit: Unit, digests: Mapping[str, str], explanation: Record, new: list[New]) -> Asked:
        """The revised explanation: every version, its counterexamples, and which became current and why."""
        how, pool = self.how, self.how.pool_digest(unit)
        by = explanation.get("by") or {}
        budget = budget_of(by, how.budget)
        text, scale = str(to_run(explanation)), float(explanation.get("scale") or _scale(unit))
        versions: list[Record] = [{"text": text, "scale": scale, "made": "before"}]
        found: list[Record] = []
        kept: dict[str, list[int]] | None = None
        current, why = 0, "nothing was better on validation"
        for round_ in range(1, how.rounds + 1):
            fields = patterns.question(unit, digests, pool, text, scale, new, budget, kept)
            job = patterns.Job(unit, text, scale, tuple(new), budget, kept)
            (answer,) = yield [
                Question("revise.pattern", patterns.VERSION, fields, how.mender, job, kind="revision")
            ]
            if isinstance(answer, Failure):
                return failed(explanation, how.described(), answer)
            versions[current]["validation"] = answer["validation"]
            kept = kept or {}
            for one in answer["counterexamples"]:
                found.append({"round": round_, **self._shown(unit, new, one, text, scale)})
                if one["for"] == "scores":
                    kept.setdefault(one["from"], []).append(one["row"])
            first = len(versions)
            versions += [{"round": round_, **version} for version in answer["versions"]]
            if not answer["current"]:
                why = why if round_ == 1 else f"{why}; round {round_} was not better"
                break
            before = merit(answer["validation"])
            current = first + answer["current"] - 1
            after = merit(versions[current]["validation"])
            why = f"validation rose from {short(before)} to {short(after)}"
            text, scale = versions[current]["text"], versions[current]["scale"]
        self.compared.append(self._compare(unit, new, kept or {}, versions[0]["text"], text))
        return identify(
            {
                "text": text,
                "by": {**by, "revised": how.described()},
                "scale": scale,
                "revises": explanation["id"],
                "versions": versions,
                "current": current,
                "why": why,
                "counterexamples": found,
                "revision": self.compared[-1].figures("top_and_random"),
            }
        )

    def _shown(self, unit: Unit, new: list[New], one: Record, text: str, scale: float) -> Record:
        """A counterexample for the line."""
        (of,) = [other.rows([one["row"]]) for other in new if other.source == one["from"]]
        lexicon = self.how.lexicon(unit)
        said, truth = said_and_true(text, scale, of, lexicon, unit.sign)
        tokens = [lexicon.texts[id] or "" for id in of.ids[0].tolist()]
        return {
            "from": of.source,
            "excerpt": of.names[0],
            "sort": one["sort"],
            "for": one["for"],
            **around(tokens, truth[0], said[0]),
        }

    def _compare(
        self, unit: Unit, new: list[New], kept: Mapping[str, list[int]], old: str, text: str
    ) -> Compared:
        """Old and new on the held-out excerpts, and on those widened by the texts that no reviser saw."""
        shown, lexicon = unit.shown("held-out"), self.how.lexicon(unit)
        rows = [r for r, pick in enumerate(shown.picks) if pick in ("top", "random")]
        widening = [of.rows(kept[of.source]) for of in new if kept.get(of.source)]
        ids = [np.maximum(shown.table.ids[rows], 0), *(of.ids for of in widening)]
        truths = [shown.table.activations[rows], *(of.activations for of in widening)]

        def score(sentence: str, parts: int) -> float | None:
            pattern = parse(sentence)
            said = [execute(pattern, some, lexicon) for some in ids[:parts]]
            return worth(together(truths[:parts]), together(said))

        return Compared(
            old != text,
            (score(old, 1), score(text, 1)),
            (score(old, len(ids)), score(text, len(ids))),
        )


def budget_of(by: Record, otherwise: Budget) -> Budget:
    """What an author could spend, if it says so: without a limit of characters there was none."""
    return Budget(int(by["literals"]), by.get("characters")) if "literals" in by else otherwise


def _is_pattern(explanation: Record) -> bool:
    """Words that no pattern says are for a language model to revise."""
    return to_run(explanation) is not None and ("pattern" in explanation or not in_words(explanation))


def _scale(unit: Unit) -> float:
    """The activation that a person's 10 stands for: the strongest of the evidence."""
    return float(np.nanmax(np.abs(unit.shown("evidence").table.activations), initial=0.0)) or 1.0
