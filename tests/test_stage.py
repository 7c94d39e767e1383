"""The one loop: units in, questions answered from the store or by engines, units out in order."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nxtools.errors import InputError, WorkerError
from nxtools.stage import Answered, Ask, Engine, Failure, LocalEngine, Loop, Pull, Question, Step
from nxtools.store import Store
from nxtools.stream import Record, dump

WINDOW = 512


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


def numbered(count: int) -> list[Record]:
    return [{"n": n} for n in range(count)]


def square(numbers: list[int]) -> list[int]:
    return [n * n for n in numbers]


def ask(engine: Engine, number: int, op: str = "square") -> Question:
    return Question(op, 1, {"number": number}, engine, number)


def squaring(engine: Engine) -> Callable[[Record], Step]:
    """The step of a command that asks once per unit."""

    def step(unit: Record) -> Step:
        (answer,) = yield [ask(engine, unit["n"])]
        return {**unit, "square": answer.record() if isinstance(answer, Failure) else answer}

    return step


def squared(count: int) -> list[Record]:
    return [{"n": n, "square": n * n} for n in range(count)]


class Counting:
    """Counts what an engine's function is asked; may fail at a number, as an error or as a failure."""

    def __init__(
        self, *, breaks_at: int | None = None, fails: Callable[[int], bool] = lambda n: False
    ) -> None:
        self.asked: list[int] = []
        self.breaks_at = breaks_at
        self.fails = fails

    def __call__(self, numbers: list[int]) -> list[Any]:
        self.asked += numbers
        if self.breaks_at in numbers:
            raise ConnectionError("the engine is gone")
        return [Failure("square", "refused", f"not {n}") if self.fails(n) else n * n for n in numbers]


class Shuffling:
    """Answers in any order, in batches of any size, some long after others."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def answer(self, pull: Pull) -> Iterator[Answered]:
        held: list[Ask] = []
        while True:
            held += pull(self.random.randint(1, 50))
            if not held:
                return
            self.random.shuffle(held)
            cut = self.random.randint(1, len(held))
            yield [(ask, ask.payload**2) for ask in held[:cut]]
            del held[:cut]


class Calling:
    """An API: one question a call, so many calls under way in threads, answers as they come.

    With `meet` the first calls wait for each other.
    """

    def __init__(self, calls: int, *, meet: bool = False) -> None:
        self.calls = calls
        self.meet = meet
        self.barrier = threading.Barrier(calls)

    def call(self, number: int) -> int:
        if self.meet and number < self.calls:
            self.barrier.wait(timeout=10)
        time.sleep(0.001 * (number % 7))
        return number**2

    def answer(self, pull: Pull) -> Iterator[Answered]:
        under_way: dict[Future[int], Ask] = {}
        with ThreadPoolExecutor(self.calls) as threads:
            while True:
                while len(under_way) < self.calls and (asks := pull(1)):
                    under_way[threads.submit(self.call, asks[0].payload)] = asks[0]
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield [(under_way.pop(future), future.result())]


# Order, window, engines


@pytest.mark.parametrize("seed", range(5))
def test_units_come_out_in_the_order_they_went_in(store: Store, seed: int) -> None:
    assert list(Loop(numbered(700), squaring(Shuffling(seed)), store)) == squared(700)


def test_an_engine_that_takes_one_at_a_time_has_many_under_way(store: Store) -> None:
    engine = Calling(calls=8, meet=True)
    assert list(Loop(numbered(100), squaring(engine), store)) == squared(100)


def test_an_engine_that_takes_many_gets_them_from_many_units(store: Store) -> None:
    sizes: list[int] = []

    def compute(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        return square(numbers)

    assert list(Loop(numbered(500), squaring(LocalEngine(compute, batch=200)), store)) == squared(500)
    assert sizes == [200, 200, 100]


@pytest.mark.parametrize("engine", [LocalEngine(square, batch=1000), Shuffling(0), Calling(4)])
def test_the_window_bounds_how_many_units_are_in_memory(store: Store, engine: Engine) -> None:
    read = 0

    def units() -> Iterator[Record]:
        nonlocal read
        for unit in numbered(300):
            read += 1
            yield unit

    written = 0
    for _ in Loop(units(), squaring(engine), store, window=20):
        assert read - written <= 20
        written += 1
    assert written == 300


def test_a_step_may_ask_several_times_and_not_at_all(store: Store) -> None:
    engine = LocalEngine(square)

    def step(unit: Record) -> Step:
        total = 0
        for number in range(unit["n"]):
            first, second = yield [ask(engine, number), ask(engine, number + 1)]
            assert (yield []) == []
            total += second - first
        return {**unit, "total": total}

    assert list(Loop(numbered(6), step, store)) == [{"n": n, "total": n * n} for n in range(6)]


def test_a_step_may_ask_several_engines(store: Store) -> None:
    writer, judge = Shuffling(1), Calling(3)

    def step(unit: Record) -> Step:
        (a,) = yield [ask(writer, unit["n"], "write")]
        b, c = yield [ask(judge, a, "judge"), ask(writer, a + 1, "write")]
        return {**unit, "found": [a, b, c]}

    found = [unit["found"] for unit in Loop(numbered(200), step, store, window=30)]
    assert found == [[n**2, n**4, (n**2 + 1) ** 2] for n in range(200)]


def test_no_units_no_questions(store: Store) -> None:
    loop = Loop([], squaring(LocalEngine(square)), store)
    assert list(loop) == []
    assert loop.counts.asked == loop.counts.units == 0


# Paying once


def test_the_same_question_is_paid_once(store: Store) -> None:
    counting = Counting()
    engine = LocalEngine(counting)

    def step(unit: Record) -> Step:
        answers = yield [ask(engine, unit["n"] % 3), ask(engine, 1)]
        return {**unit, "answers": answers}

    loop = Loop(numbered(100), step, store)
    assert [unit["answers"] for unit in loop] == [[(n % 3) ** 2, 1] for n in range(100)]
    assert sorted(counting.asked) == [0, 1, 2]
    assert (loop.counts.computed, loop.counts.from_store, loop.counts.asked) == (3, 197, 200)


def test_everybody_gets_an_answer_of_their_own(store: Store) -> None:
    engine = LocalEngine(lambda numbers: [{"square": n * n} for n in numbers])

    def step(unit: Record) -> Step:
        first, second = yield [ask(engine, 3), ask(engine, 3)]
        return {**unit, "squares": [first.pop("square"), second.pop("square")]}

    assert [unit["squares"] for unit in Loop(numbered(5), step, store)] == [[9, 9]] * 5


def test_a_second_run_asks_nothing_and_ends_with_the_same_bytes(store: Store) -> None:
    def compute(numbers: list[int]) -> list[Any]:
        return [{"half": n / 3, "parts": (n, "\ud83d"), "nan": float("nan")} for n in numbers]

    runs = [Loop(numbered(100), squaring(LocalEngine(compute)), store) for _ in range(2)]
    first, second = ([dump(unit) for unit in loop] for loop in runs)
    assert first == second
    assert [(loop.counts.computed, loop.counts.from_store) for loop in runs] == [(100, 0), (0, 100)]


@pytest.mark.parametrize("breaks_at", [0, 31, 32, 470, 699])
def test_what_was_answered_before_an_error_is_not_asked_again(store: Store, breaks_at: int) -> None:
    breaking, whole = Counting(breaks_at=breaks_at), Counting()
    out: list[Record] = []
    with pytest.raises(ConnectionError):
        out.extend(Loop(numbered(700), squaring(LocalEngine(breaking)), store))
    batch = breaks_at // 32 * 32
    assert out == squared(batch), "everything finished is out"
    loop = Loop(numbered(700), squaring(LocalEngine(whole)), store)
    assert list(loop) == squared(700)
    assert whole.asked == list(range(batch, 700))
    assert (loop.counts.from_store, loop.counts.computed) == (batch, 700 - batch)


def test_a_reader_that_leaves_stops_the_engine(store: Store) -> None:
    closed: list[bool] = []

    class Endless:
        def answer(self, pull: Pull) -> Iterator[Answered]:
            try:
                while asks := pull(1):
                    yield [(asks[0], 0)]
            finally:
                closed.append(True)

    units = iter(Loop(numbered(100), squaring(Endless()), store))
    next(units)
    units.close()
    assert closed == [True]


# Failures


def test_failures_are_recorded_counted_and_never_stored(store: Store) -> None:
    failing = Counting(fails=lambda n: n % 10 == 3)
    loop = Loop(numbered(100), squaring(LocalEngine(failing)), store)
    failed = [unit for unit in loop if isinstance(unit["square"], dict)]
    assert [unit["n"] for unit in failed] == list(range(3, 100, 10))
    assert failed[0]["square"] == {"stage": "square", "kind": "refused", "message": "not 3"}
    assert (loop.counts.failed, loop.counts.errors, loop.counts.computed) == (10, 10, 90)
    again = Counting()
    assert list(Loop(numbered(100), squaring(LocalEngine(again)), store)) == squared(100)
    assert again.asked == list(range(3, 100, 10))


def test_a_failure_counts_once_for_every_answer_that_it_stands_for(store: Store) -> None:
    failing = Counting(fails=lambda n: True)
    engine = LocalEngine(failing)

    def step(unit: Record) -> Step:
        (answer,) = yield [ask(engine, 1)]
        return {**unit, "failed": isinstance(answer, Failure)}

    loop = Loop(numbered(5), step, store)
    assert all(unit["failed"] for unit in loop)
    assert failing.asked == [1]
    assert loop.counts.failed == 5


def test_an_engine_that_forgets_a_question_is_found_out(store: Store) -> None:
    class Forgetful:
        def answer(self, pull: Pull) -> Iterator[Answered]:
            asks = pull(3)
            yield [(ask, 0) for ask in asks[1:]]

    with pytest.raises(RuntimeError, match="Forgetful left 1 questions unanswered"):
        list(Loop(numbered(3), squaring(Forgetful()), store))


def test_a_step_that_returns_no_unit_is_found_out(store: Store) -> None:
    def step(unit: Record) -> Step:
        yield []
        return None  # type: ignore[return-value]

    with pytest.raises(TypeError, match="returned NoneType") as caught:
        list(Loop(numbered(3), step, store, where=lambda: "stdin:1"))
    assert caught.value.__notes__ == ["at stdin:1"]


# Units that are wrong


def refusing(engine: Engine, wrong: set[int]) -> Callable[[Record], Step]:
    """Finds out that a unit is wrong only when its answer is there."""

    def step(unit: Record) -> Step:
        (answer,) = yield [ask(engine, unit["n"])]
        if unit["n"] in wrong:
            raise InputError("is wrong")
        return {**unit, "square": answer}

    return step


@pytest.mark.parametrize("wrong", [0, 1, 63, 64, 299])
def test_all_units_before_a_wrong_one_come_out(store: Store, wrong: int) -> None:
    place = iter(range(1000))
    loop = Loop(
        numbered(300), refusing(Shuffling(0), {wrong, 200}), store, where=lambda: f"stdin:{next(place) + 1}"
    )
    out: list[Record] = []
    with pytest.raises(InputError) as caught:
        out.extend(loop)
    assert out == squared(min(wrong, 200))
    assert caught.value.where == f"stdin:{min(wrong, 200) + 1}"


def test_keep_going_leaves_wrong_units_out_in_order(store: Store) -> None:
    place = iter(range(1000))
    reported: list[str] = []
    loop = Loop(
        numbered(100),
        refusing(Shuffling(0), {7, 8, 90}),
        store,
        where=lambda: f"stdin:{next(place) + 1}",
        keep_going=True,
        on_bad=lambda error: reported.append(error.where),
    )
    assert list(loop) == [unit for unit in squared(100) if unit["n"] not in {7, 8, 90}]
    assert reported == ["stdin:8", "stdin:9", "stdin:91"]
    assert (loop.counts.units, loop.counts.skipped, loop.counts.errors) == (97, 3, 3)


@pytest.mark.parametrize("keep_going", [False, True])
def test_units_that_were_read_before_the_input_broke_come_out(store: Store, keep_going: bool) -> None:
    def cut() -> Iterator[Record]:
        yield from numbered(70)
        raise InputError("the stream was cut", where="stdin:71")

    out: list[Record] = []
    with pytest.raises(InputError, match="stdin:71: the stream was cut"):
        out.extend(Loop(cut(), squaring(LocalEngine(square)), store, keep_going=keep_going))
    assert out == squared(70)


# The commands of a pipe work at the same time


def test_the_loop_does_not_wait_for_input_while_there_is_work(store: Store) -> None:
    """Somebody writes 1, 2, 3, … units at a time; the answers must not wait for those to come."""
    happened: list[str] = []
    bursts = [1, 2, 3, 200]
    there = 0

    def units() -> Iterator[Record]:
        nonlocal there
        for unit in numbered(sum(bursts)):
            if not there:
                there = bursts.pop(0)
                happened.append(f"waited for {there}")
            there -= 1
            yield unit

    def compute(numbers: list[int]) -> list[int]:
        happened.append(f"computed {len(numbers)}")
        return square(numbers)

    engine = LocalEngine(compute, batch=100)
    loop = Loop(
        units(),
        squaring(engine),
        store,
        ready=lambda: there > 0,
        before_waiting=lambda: happened.append("flushed"),
    )
    assert list(loop) == squared(206)
    work = [what for what in happened if what != "flushed"]
    assert work == [
        "waited for 1",
        "computed 1",
        "waited for 2",
        "computed 2",
        "waited for 3",
        "computed 3",
        "waited for 200",
        "computed 100",
        "computed 100",
    ]
    for before, after in pairwise(happened):
        assert after == "flushed" or before == "flushed", "what is finished goes out before any waiting"


# Worker processes


def test_any_number_of_jobs_ends_with_the_same_bytes(tmp_path: Path) -> None:
    lines = []
    for jobs in (1, 4):
        with Store(tmp_path / f"store-{jobs}") as store:
            thirds = LocalEngine(lambda numbers: [n / 3 for n in numbers], batch=8, jobs=jobs)
            lines.append([dump(unit) for unit in Loop(numbered(200), squaring(thirds), store)])
    assert lines[0] == lines[1]
    assert len(lines[0]) == 200


def test_workers_take_closures_and_methods_and_receive_them_once(store: Store, tmp_path: Path) -> None:
    class Method:
        """Leaves a file per time that it is unpickled."""

        def __init__(self, offset: int) -> None:
            self.offset = offset

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__dict__ = state
            (tmp_path / f"{os.getpid()}-{os.urandom(4).hex()}").touch()

        def add(self, numbers: list[int]) -> list[list[int]]:
            return [[os.getpid(), n + self.offset] for n in numbers]

    engine = LocalEngine(Method(7).add, batch=2, jobs=2)
    answers = [unit["square"] for unit in Loop(numbered(100), squaring(engine), store)]
    assert [answer for _, answer in answers] == list(range(7, 107))
    assert os.getpid() not in {process for process, _ in answers}
    unpickled = [name.name.split("-")[0] for name in tmp_path.glob("*-*")]
    assert len(unpickled) == len(set(unpickled)) <= 2


def test_an_error_in_a_worker_is_raised_here_as_what_it_is(store: Store) -> None:
    def compute(numbers: list[int]) -> list[int]:
        raise InputError("is wrong", where="stdin:3", hint="change it")

    with pytest.raises(InputError, match=r"stdin:3: is wrong \(change it\)"):
        list(Loop(numbered(5), squaring(LocalEngine(compute, jobs=2)), store))


def test_a_worker_that_dies_is_said_in_one_line_and_loses_nothing_stored(store: Store) -> None:
    def compute(numbers: list[int]) -> list[int]:
        if 150 in numbers:
            os._exit(9)
        return square(numbers)

    with pytest.raises(WorkerError) as caught:
        list(Loop(numbered(200), squaring(LocalEngine(compute, batch=4, jobs=2)), store))
    assert "\n" not in str(caught.value)
    whole = Counting()
    assert list(Loop(numbered(200), squaring(LocalEngine(whole)), store)) == squared(200)
    assert 150 in whole.asked and 0 not in whole.asked
