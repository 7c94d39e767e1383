"""The one loop that most commands are: units in, questions asked, answers stored, units out in order.

What a command does with one unit is a generator. It yields lists of questions, receives as many answers (or
failures), may ask again, and returns the enriched unit. The loop advances many units at once, looks their
questions up in the store, and lets each engine *pull* the ones that are missing: a local model pulls a large
batch made of many units, an API pulls one whenever a connection is free. An answer is in the store before
the unit that needed it is printed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from nxtools.errors import InputError
from nxtools.stream import Record

if TYPE_CHECKING:
    from nxtools.store import Store

INTAKE = 64  # units read and looked up together: one query of the store answers them all


@dataclass(frozen=True)
class Failure:
    """No answer. It stands in the record where the answer would have been, and is never stored."""

    stage: str
    kind: str
    message: str

    def record(self) -> Record:
        return {"stage": self.stage, "kind": self.kind, "message": self.message}


@dataclass(frozen=True)
class Question:
    """All that an answer depends on (`op`, `version`, `fields`), and what the engine needs to find it."""

    op: str
    version: int
    fields: Mapping[str, Any]
    engine: Engine
    payload: Any
    kind: str = "answer"


@dataclass(eq=False)
class Ask:
    """A question that the store could not answer."""

    digest: str
    question: Question

    @property
    def payload(self) -> Any:
        return self.question.payload


Answer = Any  # what orjson reads back: a question answered from the store and one just computed look the same
Step = Generator[Sequence[Question], list[Any], Record]
Pull = Callable[[int], list[Ask]]
Compute = Callable[[list[Any]], list[Any]]  # payloads to answers or failures


class Engine(Protocol):
    """Answers asks that it pulls, in any order, in batches that are committed together.

    `pull(n)` gives up to n asks; an empty list means that there are none until some that are under way have
    been answered.
    """

    def answer(self, pull: Pull) -> Iterator[list[tuple[Ask, Answer | Failure]]]: ...


class LocalEngine:
    """An engine that is a plain function of one payload, run here or in worker processes."""

    def __init__(
        self, function: Callable[[Any], Answer | Failure], *, batch: int = 32, jobs: int = 1
    ) -> None:
        self.function = function
        self.batch = batch
        self.jobs = jobs

    def answer(self, pull: Pull) -> Iterator[list[tuple[Ask, Answer | Failure]]]:
        if self.jobs > 1:
            from nxtools.parallel import unordered

            yield from unordered(self.function, lambda: pull(self.batch), self.jobs)
            return
        while asks := pull(self.batch):
            yield list(zip(asks, self.function([ask.payload for ask in asks]), strict=True))


@dataclass
class Counts:
    """What a run did; the numbers behind the last line on stderr and behind the tests of the cache."""

    units: int = 0
    from_store: int = 0
    computed: int = 0
    failed: int = 0
    skipped: int = 0  # lines that could not be read, under --keep-going

    @property
    def asked(self) -> int:
        return self.from_store + self.computed + self.failed

    @property
    def errors(self) -> int:
        return self.failed + self.skipped


@dataclass(eq=False)
class _Slot:
    """A unit under way."""

    record: Record
    where: str
    step: Step
    answers: list[Any] = field(default_factory=list)
    missing: int = 0
    done: Record | None = None


class Loop:
    """Runs `step` over units. Iterate it to receive the enriched units in input order."""

    def __init__(
        self,
        units: Iterable[Record],
        step: Callable[[Record], Step],
        store: Store,
        *,
        window: int = 512,
        where: Callable[[], str] = lambda: "",
        keep_going: bool = False,
        on_bad: Callable[[InputError], None] = lambda error: None,
    ) -> None:
        self.counts = Counts()
        self._units = iter(units)
        self._begin = step
        self._store = store
        self._window = window
        self._where = where
        self._keep_going = keep_going
        self._on_bad = on_bad
        self._slots: deque[_Slot] = deque()
        self._exhausted = False
        self._queues: dict[int, tuple[Engine, deque[Ask]]] = {}
        self._waiting: dict[str, list[tuple[_Slot, int]]] = {}  # whoever waits for the answer to a digest

    def __iter__(self) -> Iterator[Record]:
        while True:
            self._take_in()
            yield from self._finished()
            engine = self._busiest()
            if engine is None:
                if self._exhausted and not self._slots:
                    return
                continue
            for batch in engine.answer(lambda n, engine=engine: self._pull(engine, n)):  # type: ignore[misc]
                self._settle(batch)
                yield from self._finished()

    def _take_in(self) -> None:
        """Reads units while the window has room, and advances them as far as the store can carry them."""
        fresh: list[_Slot] = []
        while not self._exhausted and len(self._slots) < self._window and len(fresh) < INTAKE:
            record = next(self._units, None)
            if record is None:
                self._exhausted = True
                break
            slot = _Slot(record, self._where(), self._begin(record))
            self._slots.append(slot)
            fresh.append(slot)
        self._look_up([(slot, self._advance(slot, None)) for slot in fresh])

    def _advance(self, slot: _Slot, answers: list[Any] | None) -> Sequence[Question]:
        """Feeds a unit's generator; the questions it asks next, none when it is done."""
        try:
            while True:
                questions = next(slot.step) if answers is None else slot.step.send(answers)
                if questions:
                    return questions
                answers = []
        except StopIteration as stop:
            slot.done = stop.value
        except InputError as error:
            error.where = error.where or slot.where
            if not self._keep_going:
                raise
            self._on_bad(error)
            self.counts.skipped += 1
            self._slots.remove(slot)
        return ()

    def _look_up(self, asked: list[tuple[_Slot, Sequence[Question]]]) -> None:
        from nxtools.store import question_digest

        while asked:
            digests = [[question_digest(q.op, q.version, q.fields) for q in qs] for _, qs in asked]
            known = self._store.get_many([d for ds in digests for d in ds])
            again: list[tuple[_Slot, Sequence[Question]]] = []
            for (slot, questions), names in zip(asked, digests, strict=True):
                if not questions:
                    continue
                slot.answers = [None] * len(questions)
                slot.missing = 0
                for place, (question, digest) in enumerate(zip(questions, names, strict=True)):
                    stored = known.get(digest)
                    if stored is not None:
                        slot.answers[place] = orjson.loads(stored)
                        self.counts.from_store += 1
                    else:
                        slot.missing += 1
                        self._queue(digest, question, slot, place)
                if not slot.missing:
                    again.append((slot, self._advance(slot, slot.answers)))
            asked = again

    def _queue(self, digest: str, question: Question, slot: _Slot, place: int) -> None:
        if digest in self._waiting:  # somebody asked the same: it is paid for once
            self._waiting[digest].append((slot, place))
            return
        self._waiting[digest] = [(slot, place)]
        _, queue = self._queues.setdefault(id(question.engine), (question.engine, deque()))
        queue.append(Ask(digest, question))

    def _busiest(self) -> Engine | None:
        waiting = [(len(queue), engine) for engine, queue in self._queues.values() if queue]
        return max(waiting, key=lambda pair: pair[0])[1] if waiting else None

    def _pull(self, engine: Engine, wanted: int) -> list[Ask]:
        _, queue = self._queues[id(engine)]
        while len(queue) < wanted and not self._exhausted and len(self._slots) < self._window:
            self._take_in()
        return [queue.popleft() for _ in range(min(wanted, len(queue)))]

    def _settle(self, batch: list[tuple[Ask, Answer | Failure]]) -> None:
        stored: dict[str, list[tuple[str, bytes]]] = {}
        ready: list[tuple[_Slot, Sequence[Question]]] = []
        results: list[tuple[Ask, Any]] = []
        for ask, result in batch:
            if isinstance(result, Failure):
                self.counts.failed += 1
            else:
                self.counts.computed += 1
                data = orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)
                stored.setdefault(ask.question.kind, []).append((ask.digest, data))
                result = orjson.loads(data)
            results.append((ask, result))
        for kind, answers in stored.items():
            self._store.put_many(answers, kind=kind)
        for ask, result in results:
            for slot, place in self._waiting.pop(ask.digest):
                slot.answers[place] = result
                slot.missing -= 1
                if not slot.missing:
                    ready.append((slot, self._advance(slot, slot.answers)))
        self._look_up(ready)

    def _finished(self) -> Iterator[Record]:
        while self._slots and self._slots[0].done is not None:
            self.counts.units += 1
            record = self._slots.popleft().done
            assert record is not None
            yield record
