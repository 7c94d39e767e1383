"""What judges say of one unit, as a step of the loop."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxtools.commands._explained import only_words, told, with_baselines
from nxtools.commands._pools import Pools
from nxtools.commands._scoring import SOMETIMES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from nxtools.assistant.asking import Asking
    from nxtools.commands._base import Shared
    from nxtools.judge.choosing import Chosen, Item
    from nxtools.judge.embedding import Nearness
    from nxtools.judge.judge import Judge
    from nxtools.judge.summary import JudgeSummary
    from nxtools.judge.surprisal import Surprisal
    from nxtools.progress import Progress
    from nxtools.stage import Engine, Failure, Question, Step
    from nxtools.stream import Record
    from nxtools.unit import Unit

    Asked = Generator[Sequence[Question], list[Any], Any]

BEFORE = "\0before"  # where a unit carries the explanation of the one before it; never written


class Judged:
    """Judges the explanations of many units, and the null: that of the unit before in its layer.

    nulls: units of a layer whose null a language model is asked about.
    """

    def __init__(self, shared: Shared, options: dict[str, Any], nulls: int) -> None:
        from nxtools.judge.similar import Similar

        self.options = options
        self.method = str(options["method"])
        self.refused = 0  # explanations that nothing could be asked about
        self._most = nulls if options["simulator"] != "pattern" else sys.maxsize
        self._nulls: Counter[object] = Counter()  # by layer
        self._pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
        self._similar = Similar() if options["negatives"] == "similar" else None
        self.summary = self._summary()
        self._judge: Judge | Surprisal | Nearness | None = None
        self._engine: Engine | None = None

    def _summary(self) -> JudgeSummary:
        from nxtools.judge.figures import CHANCE, FIGURES
        from nxtools.judge.summary import JudgeSummary

        series = ("explanation", *SOMETIMES, "null")
        return JudgeSummary(self.method, self._figures or FIGURES, series, CHANCE)

    @property
    def _figures(self) -> tuple[str, ...]:
        """Those that are wanted: all, or what scores without a threshold have."""
        return ("auroc",) if self.method in ("surprisal", "embedding") else ()

    def by_model(self, asking: Asking) -> None:
        from nxtools.judge.embedding import Nearness
        from nxtools.judge.judge import Judge, Judging
        from nxtools.judge.surprisal import Surprisal

        prompt = Path(self.options["prompt"]) if self.options["prompt"] else None
        if self.method == "surprisal":
            self._judge = Surprisal(asking, prompt)
            return
        if self.method == "embedding":
            self._judge = Nearness(asking, prompt)
            return
        self._judge = Judge(
            Judging(
                asking,
                self.method,
                self.options["simulation"],
                prompt,
                self.options["examples"],
                self.options["together"],
            )
        )

    def by_pattern(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def unread(self) -> int:
        return getattr(self._judge, "unread", 0)

    def say(self, progress: Progress) -> None:
        for line in self.summary.lines():
            progress.say(line)

    def prepare(self, units: Iterable[Record]) -> Iterator[Record]:
        """Gives each unit the explanation of the unit before it in its layer, for the null."""
        before: tuple[Any, str, list[Record]] | None = None
        for unit in units:
            layer, index = unit["unit"]["layer"], unit["unit"]["index"]
            wanted = self.options["baselines"] != "none" and self._nulls[layer] < self._most
            if wanted and before is not None and before[0] == layer and before[2] and _told(unit):
                unit[BEFORE] = (before[1], before[2][0])
                self._nulls[layer] += 1
            words: list[Record] = [{k: e[k] for k in ("text", "pattern") if k in e} for e in _told(unit)]
            before = (layer, f"{layer}:{index}", words)
            yield unit

    def step(self, record: Record) -> Step:
        from nxtools.unit import Unit

        before = record.pop(BEFORE, None)
        if record.get("error") or record.get("dead"):
            return record
        unit = Unit(record)
        explanations = told(record, self.method)
        entries = [(series, e, e, str(e.get("sign") or unit.sign)) for series, e in explanations]
        baselines: list[Record] = []
        if before is not None:
            name, words = before
            entry: Record = {"name": "null", "explanation_of": name, "text": words["text"], "scores": []}
            baselines.append(entry)
            entries.append(("null", entry, words, entries[0][3] if entries else unit.sign))
        followed: set[str | None] = set()  # the summary follows a unit's first score of each series
        for series, entry, words, sign in entries:
            yield from self._score(unit, None if series in followed else series, entry, words, sign)
            followed.add(series)
        if baselines:
            with_baselines(record, baselines, self.method)
        return record

    def _score(
        self, unit: Any, series: str | None, entry: Record, words: Record, sign: str
    ) -> Generator[Sequence[Question], list[Any], None]:
        """Puts a score beside an explanation's others."""
        from nxtools.explain.pattern import to_run
        from nxtools.judge.figures import FIGURES
        from nxtools.judge.score import scored
        from nxtools.stage import Failure

        if self._judge is None and to_run(words) is None:
            return  # words that no pattern says
        score: Record = {"method": self.method, "simulator": self._name}
        if self._judge is None and (only := only_words(words)):
            self.refused += 1
            return self._fail(entry, series, score, only, 0)
        contrast = self.method != "fuzzing"
        chosen = self.choose(unit, sign, contrast=contrast)
        if isinstance(chosen, Failure):
            self.refused += 1
            return self._fail(entry, series, score, chosen, 0)
        passes = chosen.halves() if self.method == "fuzzing" else [chosen.mixed()]
        said = yield from self._said(chosen, words, passes)
        if self._judge is not None:
            score["by"] = self._judge.by()
        items = [item for one in passes for item in one]
        found = scored(chosen, items, said, self._figures or FIGURES)
        if isinstance(found, Failure):
            return self._fail(entry, series, score, found, len(items))
        entry["scores"].append(score | found.record)
        if series is not None:
            figures, documents = found.figures, found.documents
            failed = len(items) - found.judged
            self.summary.add(
                series, unit.name, figures.values, figures.replicates, documents, found.judged, failed
            )
        return None

    def choose(self, unit: Unit, sign: str, *, contrast: bool) -> Chosen | Failure:
        """The excerpts that are judged."""
        from nxtools.judge.choosing import choose

        share, most = self.options["active"], self.options["each"]
        pool, similar = self._pools.of, self._similar
        return choose(unit, sign, share, most, contrast=contrast, pool=pool, similar=similar)

    @property
    def _name(self) -> str:
        return "pattern" if self._judge is None else self._judge.asking.name

    def _fail(
        self, entry: Record, series: str | None, score: Record, failure: Failure, unjudged: int
    ) -> None:
        entry["scores"].append(score | {"error": failure.record()})
        if series is not None:
            self.summary.fail(series, unjudged)

    def _said(self, chosen: Chosen, words: Record, passes: Sequence[Sequence[Item]]) -> Asked:
        from nxtools.explain.pattern import to_run
        from nxtools.judge.judge import by_prediction
        from nxtools.simulate.pattern import VERSION, question
        from nxtools.stage import Failure, Question

        items = [item for one in passes for item in one]
        if self._judge is not None:
            return (yield from self._judge.judge(chosen, words, passes))
        assert self._engine is not None
        text, scale, shown = to_run(words) or "", words.get("scale"), [chosen.shown]
        fields = question(text, scale, shown, chosen.unit, self._pools.digest(chosen.unit))
        job = (text, scale, shown, self._pools.lexicon(chosen.unit))
        (answer,) = yield [
            Question("simulate.pattern", VERSION, fields, self._engine, job, kind="simulation")
        ]
        if isinstance(answer, Failure):
            return [answer] * len(items)
        return by_prediction(chosen, items, answer, 1.0 if scale else chosen.peak)


def _told(unit: Record) -> list[Record]:
    """The explanations that are no answers to a puzzle; of lines that nobody has checked yet."""
    found = unit.get("explanations")
    return [
        e
        for e in (found if isinstance(found, list) else ())
        if isinstance(e, dict) and isinstance(e.get("text"), str) and "candidate" not in e
    ]
