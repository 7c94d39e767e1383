"""New evidence: texts that may refute an explanation, and the subject's true activations on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nxtools.explain.pattern import side
from nxtools.recordings.contexts import Contexts
from nxtools.records import NO_TOKEN, Table
from nxtools.revise.texts import Successors, Texts, corpus, joined, neighbours
from nxtools.stage import Engine, Failure, Question
from nxtools.stream import Record
from nxtools.subject.asked import VERSION as READING_VERSION
from nxtools.subject.asked import Reading, unpacked
from nxtools.subject.excerpts import Plan
from nxtools.unit import Shown, Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared

OF_THE_CORPUS = ("corpus", "random")
NO_SUBJECT = Failure(
    "revise", "no-subject", "the line does not say how its subject was run: --from none asks no subject"
)

Activations = NDArray[np.float32]
Asked = Generator[Sequence[Question], list[Any], Any]


@dataclass(frozen=True)
class New:
    """Measured texts of one source: ids (n, tokens), activations (n, tokens) NaN where not counted, names."""

    source: str
    ids: NDArray[np.integer[Any]]
    activations: Activations
    names: tuple[str, ...]

    def rows(self, which: Sequence[int]) -> New:
        """Some of the texts."""
        chosen = list(which)
        names = tuple(self.names[row] for row in chosen)
        return New(self.source, self.ids[chosen], self.activations[chosen], names)

    def excerpts(self, text_of: Callable[[int], str | None]) -> Shown | Failure:
        """As what a simulator sees; a failure where the text of a token is not known."""
        ids = self.ids.astype(np.int32)
        width = ids.shape[1]
        # The last position that counts is the end of every text.
        ends = [int(np.flatnonzero(row).max(initial=-1)) + 1 for row in ~np.isnan(self.activations)]
        texts: list[list[str]] = []
        for row, end in zip(ids, ends, strict=True):
            known = [text_of(id) for id in row[:end].tolist()]
            if None in known:
                message = "the random pool, which says how tokens are spelled, is gone (nx-record and nx-top)"
                return Failure("revise", "no-pool", message)
            texts.append([text for text in known if text is not None])
        inside = np.arange(width) < np.array(ends, np.intp)[:, None]
        table = Table(np.where(inside, ids, NO_TOKEN).astype(np.int32), self.activations, texts)
        nobody = (None,) * len(ids)
        return Shown(table, (self.source,) * len(ids), self.names, self.names, nobody)


@dataclass(frozen=True)
class Measuring:
    """Where new texts come from, and who runs the subject over them.

    sources: that have texts for every unit: corpus, random, neighbours. count: excerpts of the corpus that
    the subject is run over; random: how many of those that a unit reacts to at all. open_blob: for plans.
    """

    sources: tuple[str, ...]
    count: int
    random: int
    reader: Engine
    pool_of: Callable[[Unit], Shared | None]
    open_blob: Callable[[str], memoryview]


class Measured:
    """New evidence for many units; what they share is made once."""

    def __init__(self, how: Measuring) -> None:
        self.how = how
        self._corpora: dict[str, Texts] = {}
        self._successors: dict[str, Successors] = {}

    def of(self, unit: Unit, record: Record) -> Asked:
        """A `New` for each source; a failure when the subject cannot be asked."""
        if not self.how.sources:
            return []
        if "recorded" not in record:
            return NO_SUBJECT
        wanted = {source: self._texts(source, unit, record) for source in self.how.sources}
        answers = yield [self._reading(record, texts) for texts in wanted.values()]
        found: list[New] = []
        for (source, texts), answer in zip(wanted.items(), answers, strict=True):
            if isinstance(answer, Failure):
                return answer
            found.append(self._kept(source, unit, _measured(source, texts, answer)))
        return found

    def own(self, record: Record, source: str, ids: Sequence[Sequence[int]]) -> Asked:
        """A `New` of texts that somebody wrote for this unit, whose token ids these are; or a failure."""
        if "recorded" not in record:
            return NO_SUBJECT
        texts = _written(ids, record["recorded"].get("bos"), int(record["recorded"]["context"]))
        (answer,) = yield [self._reading(record, texts)]
        return answer if isinstance(answer, Failure) else _measured(source, texts, answer)

    def _texts(self, source: str, unit: Unit, record: Record) -> Texts:
        recorded = record["recorded"]
        bos = recorded.get("bos")
        if source in OF_THE_CORPUS:
            name = repr(recorded.get("plans"))
            if name not in self._corpora:
                plans = [Plan.from_bytes(self.how.open_blob(digest)) for digest in recorded["plans"]]
                self._corpora = {name: joined([corpus(plan, bos, self.how.count) for plan in plans])}
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
            str(record["recorded"].get("dtype", "float32")),
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
            rows = [row for row in rows if peaks[row] > 0][: self.how.random]
        return new.rows(rows)


def _measured(source: str, texts: Texts, answer: dict[str, str]) -> New:
    rows = texts.activations(unpacked(answer, [len(ids) for ids in texts.contexts]))
    return New(source, texts.ids, rows, texts.names)


def _written(ids: Sequence[Sequence[int]], bos: int | None, longest: int) -> Texts:
    """Each text is a document of its own, as far as the subject's context goes."""
    lead = [] if bos is None else [bos]
    rows = [np.array(row[:longest], np.int32) for row in ids]
    counted = np.zeros((len(rows), max(map(len, rows), default=0)), bool)
    for mask, row in zip(counted, rows, strict=True):
        mask[1 - len(lead) : len(row)] = True
    return Texts(
        tuple(np.array([*lead, *row], np.int32) for row in rows),
        (len(lead),) * len(rows),
        counted,
        tuple(hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows),
    )
