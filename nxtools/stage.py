"""The one loop that most commands are: units in, questions asked, answers stored, units out in order.

What a command does with one unit is a generator. It yields lists of questions, receives as many answers (or
failures), may ask again, and returns the enriched unit. The loop advances many units at once, looks their
questions up in the store, and lets each engine *pull* the ones that are missing: a local model pulls a large
batch made of many units, an API pulls one whenever a connection is free. An answer is in the store before
the unit that needed it is printed.

The loop never waits for a unit that has not been written yet while there is something else to do, and what is
finished goes out before it waits for anything: so the commands of a pipe work at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from nxtools.errors import InputError
from nxtools.records import Failure as Failure
from nxtools.stream import Record, dump

if TYPE_CHECKING:
    from nxtools.parallel import Workers
    from nxtools.store import Store

WINDOW = 512  # units in memory
INTAKE = 64  # units read and looked up together: one query of the store answers them all


@dataclass(frozen=True)
class Question:
    """All that an answer depends on (`op`, `version`, `fields`), and what the engine needs to find it."""

    op: str
    version: int
    fields: Mapping[str, Any]
    engine: Engine
    payload: Any
    kind: str = "answer"
    counted: bool = True  # as an answer that somebody asked for


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


Answered = list[tuple[Ask, Answer | Failure]]


class Engine(Protocol):
    """Answers asks that it pulls, in any order, in batches that are committed together.

    `pull(n)` gives up to n asks. An empty list means that there are none for now: pull again when one that is
    under way has been answered, and end when none is. `answer` is called again when more have come, so what
    is slow to load is kept. Only the thread that runs `answer` pulls.
    """

    def answer(self, pull: Pull) -> Iterator[Answered]: ...


class LocalEngine:
    """An engine that is a plain function of some payloads, called here or in worker processes.

    An answer must depend on its own payload only: which ones come together is not fixed.
    """

    def __init__(self, function: Compute, *, batch: int = 32, jobs: int = 1) -> None:
        self.function = function
        self.batch = batch
        self.jobs = jobs
        self._workers: Workers | None = None

    def answer(self, pull: Pull) -> Iterator[Answered]:
        if self.jobs > 1:
            from nxtools.parallel import Workers

            self._workers = self._workers or Workers(self.function, self.jobs)
            yield from self._workers.results(lambda: pull(self.batch), lambda ask: ask.payload)
            return
        while asks := pull(self.batch):
            yield list(zip(asks, self.function([ask.payload for ask in asks]), strict=True))


@dataclass
class Counts:
    """What a run did; the numbers behind the last line on stderr and behind the tests of the cache."""

    units: int = 0
    from_store: int = 0  # answers that cost nothing: found, or under way for somebody else
    computed: int = 0
    failed: int = 0
    skipped: int = 0  # lines that could not be read, under --keep-going

    @property
    def asked(self) -> int:
        return self.from_store + self.computed + self.failed

    @property
    def errors(self) -> int:
        return self.failed + self.skipped

    def add(self, other: Counts) -> None:
        """What another process did."""
        self.units += other.units
        self.from_store += other.from_store
        self.computed += other.computed
        self.failed += other.failed
        self.skipped += other.skipped

    def described(self) -> str:
        said = [
            f"{self.computed:,} answers computed" if self.computed else "",
            f"{self.from_store:,} taken from the store" if self.from_store else "",
            f"{self.failed:,} failed" if self.failed else "",
            f"{self.skipped:,} lines skipped" if self.skipped else "",
        ]
        return ", ".join(filter(None, said)) or "nothing to do"


@dataclass(eq=False)
class _Slot:
    """A unit under way, or the error that stands in its place."""

    where: str
    step: Step | None = None  # None: nothing could be read
    answers: Any = None  # a list as long as the questions it asked last
    missing: int = 0
    done: Record | None = None
    error: InputError | None = None


class Loop:
    """Runs `step` over units. Iterate it to receive the enriched units in input order.

    `window`: units in memory; `where`: where the unit that was read last came from; `ready`: whether another
    can be had without waiting; `before_waiting` is called before anything that may take long.

    What is wrong with a unit raises InputError, after all units before it are out; with `keep_going` it is
    reported to `on_bad`, counted, and the unit is left out.
    """

    def __init__(
        self,
        units: Iterable[Record],
        step: Callable[[Record], Step],
        store: Store,
        *,
        window: int = WINDOW,
        where: Callable[[], str] = lambda: "",
        ready: Callable[[], bool] = lambda: True,
        before_waiting: Callable[[], None] = lambda: None,
        keep_going: bool = False,
        on_bad: Callable[[InputError], None] = lambda error: None,
    ) -> None:
        self.counts = Counts()
        self._units = iter(units)
        self._begin = step
        self._store = store
        self._window = window
        self._where = where
        self._ready = ready
        self._before_waiting = before_waiting
        self._keep_going = keep_going
        self._on_bad = on_bad
        self._slots: deque[_Slot] = deque()
        self._exhausted = False
        self._queues: dict[int, tuple[Engine, deque[Ask]]] = {}
        self._under_way = 0
        self._waiting: dict[str, list[tuple[_Slot, int]]] = {}  # whoever waits for the answer to a digest

    def __iter__(self) -> Generator[Record]:
        while not self._exhausted or self._slots:
            self._take_in(wait=self._busiest() is None)
            yield from self._finished()
            engine = self._busiest()
            if engine is not None:
                with closing(self._ask(engine)) as settled:
                    for _ in settled:
                        yield from self._finished()

    def _ask(self, engine: Engine) -> Generator[None]:
        """Lets an engine answer until it finds no more to pull."""
        answers = engine.answer(lambda wanted: self._pull(engine, wanted))
        try:
            while True:
                self._before_waiting()
                batch = next(answers, None)
                if batch is None:
                    break
                self._settle(batch)
                yield
        finally:
            if isinstance(answers, Generator):
                answers.close()
        if self._under_way:
            raise RuntimeError(f"{type(engine).__name__} left {self._under_way} questions unanswered")

    def _room(self) -> bool:
        return not self._exhausted and len(self._slots) < self._window

    def _take_in(self, *, wait: bool) -> None:
        """Reads the units that are there, and advances them as far as the store can carry them.

        With `wait` it reads one in any case.
        """
        fresh: list[_Slot] = []
        while self._room() and len(fresh) < INTAKE:
            if not self._ready():
                if fresh or not wait:
                    break
                self._before_waiting()
            try:
                unit = next(self._units, None)
            except InputError as error:
                fresh.append(_Slot(self._where(), error=error))
                self._slots.append(fresh[-1])
                self._exhausted = True
                break
            if unit is None:
                self._exhausted = True
                break
            fresh.append(_Slot(self._where(), self._steps(unit)))
            self._slots.append(fresh[-1])
        self._look_up([(slot, self._advance(slot)) for slot in fresh])

    def _steps(self, unit: Record) -> Step:
        done = yield from self._begin(unit)
        if not isinstance(done, dict):
            raise TypeError(f"the step returned {type(done).__name__}, not the unit")
        return done

    def _advance(self, slot: _Slot) -> Sequence[Question]:
        """Feeds a unit's generator; the questions it asks next, none when it is done."""
        try:
            while slot.step is not None:
                if questions := slot.step.send(slot.answers):
                    return questions
                slot.answers = []
        except StopIteration as stop:
            slot.done = stop.value
        except InputError as error:
            slot.error = error
            self._exhausted = self._exhausted or not self._keep_going
        except Exception as error:
            error.add_note(f"at {slot.where}")
            raise
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
                        self.counts.from_store += question.counted
                    else:
                        slot.missing += 1
                        self._queue(digest, question, slot, place)
                if not slot.missing:
                    again.append((slot, self._advance(slot)))
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
        while len(queue) < wanted and self._room() and self._ready():
            self._take_in(wait=False)
        asks = [queue.popleft() for _ in range(min(wanted, len(queue)))]
        self._under_way += len(asks)
        return asks

    def _settle(self, batch: Answered) -> None:
        """Stores what was answered and hands it to everybody who asked."""
        stored: dict[str, list[tuple[str, bytes]]] = {}
        lines: dict[str, bytes] = {}
        for ask, result in batch:
            if not isinstance(result, Failure):
                lines[ask.digest] = dump(result)
                stored.setdefault(ask.question.kind, []).append((ask.digest, lines[ask.digest]))
        for kind, answers in stored.items():
            self._store.put_many(answers, kind=kind)
        self._under_way -= len(batch)
        ready: list[_Slot] = []
        for ask, result in batch:
            asking = self._waiting.pop(ask.digest)
            if ask.question.counted and isinstance(result, Failure):
                self.counts.failed += len(asking)
            elif ask.question.counted:
                self.counts.computed += 1
                self.counts.from_store += len(asking) - 1
            for slot, place in asking:
                # Each has its own, and what it would have from the store.
                slot.answers[place] = orjson.loads(lines[ask.digest]) if ask.digest in lines else result
                slot.missing -= 1
                if not slot.missing:
                    ready.append(slot)
        self._look_up([(slot, self._advance(slot)) for slot in ready])

    def _finished(self) -> Iterator[Record]:
        """The units at the front that are done; raises the error that stands there."""
        while self._slots and (self._slots[0].done is not None or self._slots[0].error is not None):
            slot = self._slots.popleft()
            if slot.done is not None:
                self.counts.units += 1
                yield slot.done
            elif slot.error is not None:
                slot.error.where = slot.error.where or slot.where
                if slot.step is None or not self._keep_going:
                    raise slot.error
                self.counts.skipped += 1
                self._on_bad(slot.error)
