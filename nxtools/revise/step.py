"""What nx-revise does with a unit: new texts, their activations, mended patterns, rounds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nxtools.explain.pattern import identify, side, to_run
from nxtools.known import known
from nxtools.pattern.execute import execute
from nxtools.pattern.fit import Budget
from nxtools.pattern.language import parse
from nxtools.recordings.contexts import Contexts
from nxtools.revise import pattern as patterns
from nxtools.revise.pattern import New, merit
from nxtools.revise.texts import Successors, Texts, corpus, neighbours
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.figures import short
from nxtools.stage import Engine, Failure, Question, Step
from nxtools.stream import Record
from nxtools.subject.asked import VERSION as READING_VERSION
from nxtools.subject.asked import Reading, unpacked
from nxtools.subject.excerpts import Plan
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pattern.lexicon import Lexicon
    from nxtools.pool import Shared

SOURCES = ("corpus", "neighbours", "random", "none")
RANDOM = 40  # excerpts with nonzero activation that `random` shows
AROUND = 8  # tokens of a counterexample that stand on the line

Asked = Generator[Sequence[Question], list[Any], Any]


@dataclass(frozen=True)
class Revising:
    """How units are revised, and who answers.

    sources: of SOURCES. count: excerpts of the corpus that the subject is run over. rounds: at most.
    reader: runs the subject; mender: mends patterns. open_blob: for plans. budget: of the literals that an
    explanation's author had, where it says so.
    """

    sources: tuple[str, ...]
    count: int
    rounds: int
    budget: Budget
    reader: Engine
    mender: Engine
    pool_of: Callable[[Unit], Shared | None]
    pool_digest: Callable[[Unit], str | None]
    lexicon: Callable[[Unit], Lexicon]
    open_blob: Callable[[str], memoryview]

    def described(self) -> Record:
        return {
            "from": list(self.sources),
            "rounds": self.rounds,
            **({"pool": self.count} if {"corpus", "random"} & set(self.sources) else {}),
            "version": patterns.VERSION,
        }


@dataclass
class Compared:
    """Held-out scores of one revised explanation: top-and-random, and on the widened set; old and new."""

    changed: bool
    held_out: tuple[float | None, float | None]
    widened: tuple[float | None, float | None]


class Reviser:
    """Revises the patterns of many units."""

    def __init__(self, revising: Revising) -> None:
        self.how = revising
        self.compared: list[Compared] = []
        self._corpora: dict[str, Texts] = {}
        self._successors: dict[str, Successors] = {}

    def step(self, record: Record) -> Step:
        """The unit with its explanations revised; each stands before the one that it revises."""
        told = [e for e in record.get("explanations") or [] if _is_original(e)]
        if record.get("dead") or record.get("error") or not told:
            return record
        unit = Unit(record)
        digests = (yield from known(unit)).digests
        new = yield from self._measured(unit, record)
        by_id: dict[str, Record] = {}
        for explanation in told:
            if isinstance(new, Failure):
                made = _failed(explanation, self.how, new)
            else:
                made = yield from self._revised(unit, digests, explanation, new)
            by_id[explanation["id"]] = made
        record["explanations"] = _placed(record["explanations"], by_id, self.how.described())
        return record

    # New texts and their activations

    def _measured(self, unit: Unit, record: Record) -> Asked:
        """The new evidence by source; a failure when the subject cannot be asked."""
        wanted = {
            source: self._texts(source, unit, record) for source in self.how.sources if source != "none"
        }
        questions = [self._reading(record, texts) for texts in wanted.values()]
        answers = (yield questions) if questions else []
        found: list[New] = []
        for (source, texts), answer in zip(wanted.items(), answers, strict=True):
            if isinstance(answer, Failure):
                return answer
            rows = texts.activations(unpacked(answer, [len(ids) for ids in texts.contexts]))
            found.append(self._kept(source, unit, New(source, texts.ids, rows, texts.names)))
        return found

    def _texts(self, source: str, unit: Unit, record: Record) -> Texts:
        recorded = record.get("recorded") or {}
        bos = recorded.get("bos")
        if source in ("corpus", "random"):
            name = repr(recorded.get("plans"))
            if name not in self._corpora:
                plans = [Plan.from_bytes(self.how.open_blob(digest)) for digest in recorded["plans"]]
                self._corpora = {name: _joined([corpus(plan, bos, self.how.count) for plan in plans])}
            return self._corpora[name]
        contexts = Contexts(recorded, self.how.open_blob)
        return neighbours(unit, contexts.before, bos, self._follows(unit))

    def _follows(self, unit: Unit) -> Successors:
        """What follows a token in the random pool's evidence, or else on the line."""
        shared = self.how.pool_of(unit)
        if shared is None:
            return Successors(unit.shown("evidence").table.ids)
        digest = shared.pool.digest
        if digest not in self._successors:
            self._successors = {digest: Successors(shared.pool.ids("evidence"))}
        return self._successors[digest]

    def _reading(self, record: Record, texts: Texts) -> Question:
        of = record["unit"]
        reading = Reading(
            str(of.get("subject")),
            str(of.get("fingerprint")),
            str(of.get("site", "mlp")),
            str((record.get("recorded") or {}).get("dtype", "float32")),
            int(of["layer"]),
            int(of["index"]),
            texts.contexts,
        )
        return Question(
            "read", READING_VERSION, reading.question(), self.how.reader, reading, kind="activations"
        )

    def _kept(self, source: str, unit: Unit, new: New) -> New:
        """Without texts that the line shows already; of random ones the first that the unit reacts to."""
        shown = set(unit.shown("evidence").excerpts)
        rows = [row for row, name in enumerate(new.names) if name not in shown]
        if source == "random":
            peaks = np.nan_to_num(np.abs(side(new.activations, unit.sign))).max(1, initial=0.0)
            rows = [row for row in rows if peaks[row] > 0][:RANDOM]
        return New(source, new.ids[rows], new.activations[rows], tuple(new.names[row] for row in rows))

    # Revision

    def _revised(self, unit: Unit, digests: Mapping[str, str], explanation: Record, new: list[New]) -> Asked:
        """The revised explanation: every version, its counterexamples, and which became current and why."""
        how, pool = self.how, self.how.pool_digest(unit)
        by = explanation.get("by") or {}
        budget = Budget(
            int(by.get("literals", how.budget.literals)), by.get("characters", how.budget.characters)
        )
        text, scale = str(to_run(explanation)), float(explanation.get("scale") or _scale(unit))
        versions: list[Record] = [{"text": text, "scale": scale, "made": "before"}]
        found: list[Record] = []
        kept: dict[str, list[int]] = {}
        current, why = 0, "nothing was better on validation"
        for round_ in range(1, how.rounds + 1):
            fields = patterns.question(unit, digests, pool, text, scale, new, budget, kept)
            job = patterns.Job(unit, text, scale, tuple(new), budget, kept)
            (answer,) = yield [
                Question("revise.pattern", patterns.VERSION, fields, how.mender, job, kind="revision")
            ]
            if isinstance(answer, Failure):
                return _failed(explanation, how, answer)
            versions[current]["validation"] = answer["validation"]
            for one in answer["counterexamples"]:
                found.append({"round": round_, **self._shown(unit, new, one, text, scale)})
                if one["for"] == "scores":
                    kept.setdefault(one["from"], []).append(one["row"])
            first = len(versions)
            versions += [{"round": round_, **version} for version in answer["versions"]]
            if not answer["current"]:
                why = why if round_ == 1 else f"round {round_} was not better on validation"
                break
            before = merit(answer["validation"])
            current = first + answer["current"] - 1
            after = merit(versions[current]["validation"])
            why = f"validation rose from {short(before)} to {short(after)}"
            text, scale = versions[current]["text"], versions[current]["scale"]
        old = versions[0]
        self.compared.append(self._compare(unit, new, kept, old["text"], text))
        author = {**by, "revised": how.described()}
        return identify(
            {
                "text": text,
                "by": author,
                "scale": scale,
                "revises": explanation["id"],
                "versions": versions,
                "current": current,
                "why": why,
                "counterexamples": found,
                "revision": self._figures(self.compared[-1]),
            }
        )

    def _shown(self, unit: Unit, new: list[New], one: Record, text: str, scale: float) -> Record:
        """A counterexample for the line: tokens up to where it is worst, what is there, what was said."""
        (of,) = [other for other in new if other.source == one["from"]]
        row, lexicon = one["row"], self.how.lexicon(unit)
        said = execute(parse(text), of.ids[row][None], lexicon)[0].astype(np.float64) * scale
        truth = side(of.activations[row], unit.sign).astype(np.float64)
        worst = int(np.nanargmax(np.abs(said - truth)))
        first = max(0, worst - AROUND + 1)
        texts = [lexicon.texts[id] or "" for id in of.ids[row, first : worst + 1].tolist()]
        return {
            "from": one["from"],
            "excerpt": of.names[row],
            "sort": one["sort"],
            "for": one["for"],
            "tokens": texts,
            "activation": short(float(truth[worst])),
            "expected": short(float(said[worst])),
        }

    def _compare(
        self, unit: Unit, new: list[New], kept: Mapping[str, list[int]], old: str, text: str
    ) -> Compared:
        """Old and new on the held-out excerpts, and on those widened by the texts that no reviser saw."""
        shown, lexicon = unit.shown("held-out"), self.how.lexicon(unit)
        rows = [r for r, pick in enumerate(shown.picks) if pick in ("top", "random")]
        parts = [(np.maximum(shown.table.ids[rows], 0), shown.table.activations[rows])]
        parts += [
            (of.ids[kept[of.source]], of.activations[kept[of.source]]) for of in new if kept.get(of.source)
        ]

        def score(sentence: str, some: Sequence[tuple[Any, Any]]) -> float | None:
            pattern = parse(sentence)
            sums = [excerpt_sums(truth, execute(pattern, ids, lexicon)) for ids, truth in _alike(some)]
            value = float(correlation(np.concatenate(sums).sum(0)))
            return None if np.isnan(value) else short(value)

        return Compared(
            old != text,
            (score(old, parts[:1]), score(text, parts[:1])),
            (score(old, parts), score(text, parts)),
        )

    def _figures(self, one: Compared) -> Record:
        return {
            "top_and_random": {"before": one.held_out[0], "after": one.held_out[1]},
            "widened": {"before": one.widened[0], "after": one.widened[1]},
        }


def _alike(parts: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Excerpts of all parts as one, so that their activations are centred together."""
    width = max(ids.shape[1] for ids, _ in parts)
    ids = [np.pad(ids, ((0, 0), (0, width - ids.shape[1]))) for ids, _ in parts]
    rows = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=np.nan) for _, a in parts]
    return [(np.concatenate(ids), np.concatenate(rows))]


def _joined(texts: Sequence[Texts]) -> Texts:
    if len(texts) == 1:
        return texts[0]
    return Texts(
        tuple(c for one in texts for c in one.contexts),
        tuple(b for one in texts for b in one.before),
        np.concatenate([one.counted for one in texts]),
        tuple(n for one in texts for n in one.names),
    )


def _is_original(explanation: Record) -> bool:
    """An explainer's own pattern: no candidate of a puzzle, paraphrase, error or revision."""
    others = ("candidate", "paraphrase_of", "revises", "error")
    return to_run(explanation) is not None and not any(name in explanation for name in others)


def _scale(unit: Unit) -> float:
    """The activation that a person's 10 stands for: the strongest of the evidence."""
    return float(np.nanmax(np.abs(unit.shown("evidence").table.activations), initial=0.0)) or 1.0


def _failed(explanation: Record, how: Revising, failure: Failure) -> Record:
    by = {**(explanation.get("by") or {}), "revised": how.described()}
    error = {**failure.record(), "stage": "revise"}
    return {"by": by, "revises": explanation["id"], "error": error}


def _placed(explanations: Sequence[Record], made: Mapping[str, Record], how: Record) -> list[Record]:
    """Each revision right before what it revises, which is marked; an earlier one like it gives way."""
    found: list[Record] = []
    for explanation in explanations:
        revised = (explanation.get("by") or {}).get("revised")
        if explanation.get("revises") in made and ("error" in explanation or revised == how):
            continue
        new = made.get(explanation.get("id", ""))
        if new is not None:
            found.append(new)
            if "error" not in new:
                explanation["revised"] = True
        found.append(explanation)
    return found
