"""Simulation by language models: what is asked, how distributions become activations, what fails."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assistants import Scripted, failing, run, said, unit
from hypothesis import given
from hypothesis import strategies as st

from nxtools.assistant.asking import Asking
from nxtools.assistant.protocol import Completion, Number, Slot, Slots
from nxtools.pattern.execute import execute
from nxtools.pattern.language import parse
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.expected import Expected
from nxtools.score.series import Job, Target, score
from nxtools.simulate import check
from nxtools.simulate.assistant import METHODS, Simulating, Simulator
from nxtools.simulate.numbers import entries, single
from nxtools.simulate.rounding import ceiling, rounded
from nxtools.store import Store
from nxtools.unit import Unit

Record = dict[str, Any]

TOKENS = [" the", " mast", "\t", " sail", "unknown", "<end>"]
TRUTH = [None, 5.0, 0.0, 2.6, -3.0, 0.1]
ROWS = [
    ("held-out", "top", list(zip(TOKENS, TRUTH, strict=True))),
    ("held-out", "random", [(" a", 0.0), (" day", 0.4)]),
    ("validation", "top", [(" other", 1.0)]),
]
TOLD = {"id": "e", "text": "parts of a ship", "scale": 5.0, "by": {"explainer": "x"}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def simulated(
    store: Store, script: Any, *, told: Record = TOLD, sign: str = "+", abilities: Any = (), **how: Any
) -> tuple[list[Record], Scripted]:
    assistant = Scripted(script, abilities)
    simulator = Simulator(Simulating(Asking(assistant), **how))
    line = unit(ROWS, sign) | {"explanations": [dict(told)]}
    (out,) = run(lambda record: simulator.step(record, ["held-out"]), [line], store)
    return out["explanations"][0]["simulations"], assistant


def text_of(slots: Slots) -> str:
    return "".join(p.filler if isinstance(p, Slot) else p for p in slots.excerpt if not isinstance(p, Number))


def distribution(level: int, mass: float = 0.9, top: int = 10) -> tuple[list[float], float]:
    return [float(n == level) for n in range(11)], mass


def reading(levels: dict[str, int], mass: float = 0.9) -> Any:
    """A simulator that puts all it has on a token's level."""

    def answer(payload: Slots) -> Record:
        pieces = payload.excerpt
        tokens = [pieces[n - 2] for n, piece in enumerate(pieces) if isinstance(piece, Slot)]
        rows = [distribution(levels.get(str(token), 0), mass) for token in tokens]
        return {"probabilities": [p for p, _ in rows], "mass": [m for _, m in rows], "top": 10}

    return answer


# All at once


def test_every_number_of_the_excerpt_is_unknown_and_each_is_read(store: Store) -> None:
    found, assistant = simulated(store, reading({" mast": 9, " sail": 4}), abilities=["slots"])
    assert [s["excerpt"] for s in found] == ["held-out-top-0", "held-out-random-1"]
    assert found[0]["expected"] == [None, 4.5, 0.0, 2.0, 0.0, 0.0]  # the first was left out
    assert found[0]["mass"] == [None, *[0.9] * 5]
    assert "failed" not in found[0]
    by = found[0]["by"]
    assert (by["simulator"], by["method"], by["numbers"]) == ("scripted:model", "all-at-once", "0-10")
    asked = assistant.asked[0]
    assert isinstance(asked, Slots)
    assert text_of(asked) == (
        "<start>\n the\tunknown\n mast\tunknown\n\\t\tunknown\n"
        " sail\tunknown\nunknown\tunknown\n<end>\tunknown\n"
    )
    assert sum(isinstance(piece, Slot) for piece in asked.excerpt) == 6
    assert asked.prefix == assistant.asked[1].prefix
    assert asked.explanation == ("Unit 5 reacts to: parts of a ship\n",)


def test_examples_turn_from_unknown_to_numbers(store: Store) -> None:
    _, assistant = simulated(store, reading({}), method="all-at-once")
    prefix = assistant.asked[0].prefix
    numbers = [piece for piece in prefix if isinstance(piece, Number)]
    unknown = [piece for piece in prefix if piece == "unknown"]
    assert len(numbers) > 20
    assert len(unknown) > 15
    assert {number.value for number in numbers} >= {0, 8, 10}


def test_the_expected_value_is_taken_over_the_numbers(store: Store) -> None:
    def halves(payload: Slots) -> Record:
        count = sum(isinstance(piece, Slot) for piece in payload.excerpt)
        row = [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]
        return {"probabilities": [row] * count, "mass": [0.3] * count, "top": 10}

    found, _ = simulated(store, halves, method="all-at-once")
    assert found[1]["expected"] == [2.5, 2.5]


def test_an_explanation_of_the_negative_side_predicts_negative_values(store: Store) -> None:
    found, _ = simulated(
        store, reading({" mast": 9}), method="all-at-once", told=TOLD | {"sign": "-"}, sign="+-"
    )
    assert found[0]["expected"] == [None, -4.5, 0.0, 0.0, 0.0, 0.0]
    assert "-0.0" not in json.dumps(found)


def test_next_tokens_are_simulated_in_their_own_view(store: Store) -> None:
    """A number stands beside the token that follows; behind the last there is none: absent, not 0."""
    told = TOLD | {"view": "next-token"}
    found, assistant = simulated(store, reading({"\\t": 10, "<end>": 2}), told=told, method="all-at-once")
    assert found[0]["expected"] == [None, 5.0, 0.0, 0.0, 1.0, None]
    assert "failed" not in found[0]
    assert " the" not in text_of(assistant.asked[0])
    assert "just before" in assistant.asked[0].prefix[0]


def test_tokens_where_numbers_have_hardly_any_mass_have_failed(store: Store) -> None:
    def faint(payload: Slots) -> Record:
        answer = reading({" mast": 9, " sail": 9})(payload)
        answer["mass"][1] = 0.001
        return answer

    found, _ = simulated(store, faint, method="all-at-once")
    assert found[0]["expected"] == [None, None, 0.0, 4.5, 0.0, 0.0]
    assert found[0]["failed"] == 1
    assert found[0]["mass"][1] == 0.001


def test_an_excerpt_without_any_number_is_an_error(store: Store) -> None:
    found, _ = simulated(store, reading({}, mass=0.0), method="all-at-once")
    assert [s["error"]["kind"] for s in found] == ["no-numbers"] * 2
    assert "expected" not in found[0]


def test_a_failed_call_is_an_error_of_its_excerpt_alone(store: Store) -> None:
    def sometimes(payload: Slots) -> Any:
        return failing() if " mast" in payload.excerpt else reading({})(payload)

    found, _ = simulated(store, sometimes, method="all-at-once")
    assert found[0]["error"]["stage"] == "simulate"
    assert found[1]["expected"] == [0.0, 0.0]
    assert found[0]["by"] == found[1]["by"]  # one simulator, of whose excerpts one is an error


# Writing the numbers


def numbers(payload: Completion, levels: dict[str, int], **more: Any) -> Record:
    tokens = re.findall(r"^(\d+): (.*)$", payload.messages[-1].content, re.MULTILINE)
    return said(json.dumps({n: levels.get(token, 0) for n, token in tokens}), **more)


def test_a_model_that_can_only_write_writes_the_numbers_down(store: Store) -> None:
    found, assistant = simulated(store, lambda payload: numbers(payload, {" mast": 9, "\\t": 2}))
    assert found[0]["expected"] == [None, 4.5, 1.0, 0.0, 0.0, 0.0]
    assert "mass" not in found[0]  # nobody said how likely they were
    assert found[0]["by"]["method"] == "generate"
    assert found[0]["by"]["held_by"] is None
    assert assistant.tried == ["slots", "logprobs", "schema", "grammar"]
    ask = assistant.asked[0]
    assert (ask.temperature, ask.grammar, ask.schema, ask.logprobs) == (0.0, None, None, 0)


@pytest.mark.parametrize("ability", ["grammar", "schema"])
def test_the_answer_is_held_to_its_form_where_the_engine_can(store: Store, ability: str) -> None:
    found, assistant = simulated(store, lambda payload: numbers(payload, {}), abilities=[ability])
    assert found[0]["by"]["held_by"] == ability
    held = getattr(assistant.asked[1], ability)
    if ability == "schema":
        assert held["required"] == list(held["properties"]) == ["1", "2"]
        assert held["$defs"]["n"]["enum"] == list(range(11))
    else:
        assert held == 'root ::= "{" "\\"1\\":" n "," "\\"2\\":" n "}"\nn ::= "10" | [0-9]\n'


def test_numbers_that_were_not_written_have_failed(store: Store) -> None:
    found, _ = simulated(store, lambda payload: said('{"1": 0, "2": 7, "3": 12, "4": 2.5, "9": 1, "5": "3"}'))
    assert found[0]["expected"] == [None, 3.5, None, None, 1.5, None]
    assert found[0]["failed"] == 3
    found, _ = simulated(store, lambda payload: said("I would rather not."), told=TOLD | {"text": "other"})
    assert found[0]["error"]["kind"] == "no-numbers"


def tokens(*pairs: tuple[str, dict[str, float]]) -> list[Record]:
    return [
        {"text": text, "logprobs": {t: math.log(p) for t, p in (others or {text: 1.0}).items()}}
        for text, others in pairs
    ]


SURE: dict[str, float] = {}


def test_expected_values_from_what_might_have_been_written() -> None:
    written = tokens(
        ('{"', SURE), ("1", SURE), ('":', SURE), ("4", {"4": 0.6, "6": 0.3, "x": 0.1}), (',"', SURE),
        ("2", SURE), ('":', SURE), (" 8", {" 8": 0.5, " 7": 0.5}), ("}", SURE),
    )  # fmt: skip
    first, second = entries({"text": '{"1":4,"2": 8}', "tokens": written}, 2)
    assert first is not None and second is not None
    assert first.level == pytest.approx((4 * 0.6 + 6 * 0.3) / 0.9)
    assert first.mass == pytest.approx(0.9)
    assert second.level == pytest.approx(7.5)


def test_ten_as_two_tokens_is_parted_from_one() -> None:
    written = tokens(
        ('{"1":', SURE), ("1", {"1": 0.8, "2": 0.2}), ("0", {"0": 0.75, "}": 0.25}), ("}", SURE)
    )  # fmt: skip
    (found,) = entries({"text": '{"1":10}', "tokens": written}, 1)
    assert found is not None
    assert found.level == pytest.approx(10 * 0.6 + 1 * 0.2 + 2 * 0.2)


@given(st.text(alphabet='{}"0123456789:,. \n-', max_size=60), st.integers(0, 5))
def test_whatever_is_written_gives_numbers_from_0_to_10_or_none(text: str, count: int) -> None:
    found = entries({"text": text}, count)
    assert len(found) == count
    assert all(one is None or 0 <= one.level <= 10 for one in found)


# One at a time


def test_one_at_a_time_asks_for_each_token_with_the_text_up_to_it(store: Store) -> None:
    def one(payload: Completion) -> Record:
        last = payload.messages[-1].content
        if "Last token:  sail\n" in last:
            return said("7", tokens=tokens(("7", {"7": 0.5, "9": 0.4, "no": 0.1})))
        return said("0", tokens=tokens(("0", {"0": 1.0})))

    found, assistant = simulated(store, one, method="one-at-a-time", abilities=["logprobs"])
    assert len(assistant.asked) == 8
    assert "Text:  the mast\\t sail\nLast token:  sail\nNumber:" in assistant.asked[3].messages[-1].content
    level = (7 * 0.5 + 9 * 0.4) / 0.9
    assert found[0]["expected"] == [None, 0.0, 0.0, pytest.approx(level / 2, abs=1e-3), 0.0, 0.0]
    assert found[0]["mass"][3] == pytest.approx(0.9)


def test_one_token_that_fails_leaves_the_others(store: Store) -> None:
    def one(payload: Completion) -> Any:
        return failing() if "Last token:  mast" in payload.messages[-1].content else said(" 3")

    found, _ = simulated(store, one, method="one-at-a-time")
    assert found[0]["expected"] == [None, None, 1.5, 1.5, 1.5, 1.5]
    assert found[0]["failed"] == 1


@pytest.mark.parametrize(
    ("text", "level"), [("7", 7), (" 10\n", 10), ("3.", 3), ("11", None), ("none", None)]
)
def test_a_number_by_itself(text: str, level: int | None) -> None:
    found = single({"text": text})
    assert (None if found is None else found.level) == level


# What is promised


def random_unit(seed: int, sign: str) -> Record:
    rng = np.random.default_rng(seed)
    rows = []
    for pick in ("top", "random"):
        for _ in range(5):
            values = rng.gamma(0.5, size=20) * rng.choice([1.0, -1.0] if sign != "+" else [1.0], 20)
            words = rng.integers(0, 400, 20)
            pairs = [(f" {w}", float(np.float32(v))) for w, v in zip(words, values, strict=True)]
            rows.append(("held-out", pick, pairs))
    return unit(rows, sign)


def perfect(line: Record) -> Any:
    """A simulator that puts all mass on the true number, of the kind that the excerpts are numbered by."""
    shown = Unit(line).shown("held-out")
    levels = rounded(shown.table.activations, "+").astype(int)
    known = {
        tuple(shown.table.vocabulary[id] for id in ids): row
        for ids, row in zip(shown.table.ids.tolist(), levels.tolist(), strict=True)
    }

    def answer(payload: Any) -> Record:
        if isinstance(payload, Slots):
            pieces = payload.excerpt
            row = known[tuple(pieces[n - 2] for n, piece in enumerate(pieces) if isinstance(piece, Slot))]
            found = [distribution(level, 1.0) for level in row]
            return {"probabilities": [p for p, _ in found], "mass": [m for _, m in found], "top": 10}
        content = payload.messages[-1].content
        if "Number:" in content:
            texts = content.partition("Text: ")[2].partition("\nLast")[0]
            count = len(texts.split())
            row = next(r for ts, r in known.items() if "".join(ts[:count]) == texts)
            return said(str(row[count - 1]))
        texts = tuple(re.findall(r"^\d+: (.*)$", content, re.MULTILINE))
        return said(json.dumps({str(n): level for n, level in enumerate(known[texts], start=1)}))

    return answer


def scored(out: Record) -> Record:
    (explanation,) = out["explanations"]
    expected = Expected({s["excerpt"]: s["expected"] for s in explanation["simulations"]})
    (found,) = score([Job(Target(Unit(out), lambda unit: None), "explanation", expected=expected)])
    return found["score"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", ["+", "+-"])
def test_a_perfect_simulator_reaches_the_ceiling(store: Store, method: str, sign: str) -> None:
    for seed in range(3):
        line = random_unit(seed, sign)
        simulator = Simulator(Simulating(Asking(Scripted(perfect(line))), method=method))
        told = {"id": "e", "text": f"{seed}", "scale": 3.3, "sign": "+", "by": {}}
        (out,) = run(lambda r, s=simulator: s.step(r, ["held-out"]), [line | {"explanations": [told]}], store)
        shown = Unit(line).shown("held-out").table.activations
        reached = scored(out)["top_and_random"]
        assert reached == pytest.approx(ceiling(shown, "+"), abs=1e-3)
        assert reached == pytest.approx(
            float(correlation(excerpt_sums(shown, rounded(shown, "+")).sum(0))), abs=1e-3
        )


def test_constant_numbers_have_no_score(store: Store) -> None:
    line = random_unit(0, "+") | {"explanations": [dict(TOLD)]}
    assistant = Scripted(reading({}, mass=1.0))
    simulator = Simulator(Simulating(Asking(assistant), method="all-at-once"))
    (out,) = run(lambda record: simulator.step(record, ["held-out"]), [line], store)
    found = scored(out)
    assert found["top_and_random"] is None
    assert found["absent"]["top_and_random"]


def test_a_second_run_asks_nothing_and_tries_nothing(store: Store) -> None:
    first, _ = simulated(store, reading({" mast": 3}), abilities=["slots"])
    second, assistant = simulated(store, lambda payload: 1 / 0, abilities=["slots"])
    assert second == first
    assert assistant.asked == assistant.tried == []


def test_simulations_by_several_stand_side_by_side_and_again_take_their_place(store: Store) -> None:
    line = unit(ROWS) | {"explanations": [dict(TOLD)]}
    for name, levels in (("a", 1), ("b", 2), ("a", 1)):
        assistant = Scripted(reading({" mast": levels}))
        assistant.name = f"scripted:{name}"
        simulator = Simulator(Simulating(Asking(assistant), method="all-at-once"))
        (line,) = run(lambda record, s=simulator: s.step(record, ["held-out"]), [line], store)
    made = line["explanations"][0]["simulations"]
    assert sorted(s["by"]["simulator"] for s in made) == ["scripted:a"] * 2 + ["scripted:b"] * 2


def test_dead_units_and_explanations_without_a_text_are_left_alone(store: Store) -> None:
    assistant = Scripted(lambda payload: 1 / 0)
    simulator = Simulator(Simulating(Asking(assistant)))
    lines = [
        unit(ROWS) | {"explanations": [{"by": {}, "error": {}}]},
        unit(ROWS) | {"dead": True, "explanations": [dict(TOLD)]},
        unit(ROWS),
    ]
    assert run(lambda record: simulator.step(record, ["held-out"]), [dict(x) for x in lines], store) == lines


# How good a simulator is


def checked(store: Store, script: Any) -> Record:
    simulator = Simulator(Simulating(Asking(Scripted(script)), method="all-at-once"))
    return check.measured(run(lambda record: simulator.step(record, [check.SET]), check.units(), store))


def test_a_simulator_that_runs_the_sentence_is_found_perfect(store: Store) -> None:
    def exact(payload: Slots) -> Record:
        sentence = payload.explanation[0].partition("reacts to: ")[2].strip()
        pieces = payload.excerpt
        tokens = [str(pieces[n - 2]) for n, piece in enumerate(pieces) if isinstance(piece, Slot)]
        ids = np.arange(len(tokens))[None]
        levels = execute(parse(sentence), ids, dict(enumerate(tokens)))[0] * 10
        found = [distribution(int(level), 0.8) for level in levels.round()]
        return {"probabilities": [p for p, _ in found], "mass": [m for _, m in found], "top": 10}

    found = checked(store, exact)
    assert (found["correlation"], found["margin"]) == (1.0, 0.0)
    assert found["sentences"] == len(check.SENTENCES)
    assert (found["mass"], found["failed"]) == (0.8, 0.0)
    assert found["by"]["simulator"] == "scripted:model"


def test_a_simulator_that_says_nothing_has_no_correlation(store: Store) -> None:
    found = checked(store, reading({}, mass=0.0))
    assert (found["correlation"], found["margin"], found["failed"]) == (None, None, 1.0)
    assert check.described(found["by"], found).endswith("none, it follows no pattern at all")


def test_the_interval_of_the_ceiling_is_students_over_the_sentences(store: Store) -> None:
    """Against numbers computed by hand: 2.3646 is the 97.5% quantile of t with 7 degrees of freedom."""
    found = checked(
        store, reading({" not": 9, " the": 5, ",": 3, " one": 4, " water": 8, " she": 6, " up": 7})
    )
    values = []
    for number, sentence in enumerate(check.SENTENCES):
        out = np.concatenate(
            [
                execute(
                    parse(sentence), np.array([row["ids"]]), dict(zip(row["ids"], row["tokens"], strict=True))
                )[0]
                for row in check.units()[number]["excerpts"]
            ]
        )
        said = {" not": 9, " the": 5, ",": 3, " one": 4, " water": 8, " she": 6, " up": 7}
        predicted = [said.get(t, 0) for row in check.units()[number]["excerpts"] for t in row["tokens"]]
        values.append(np.corrcoef(out, predicted)[0, 1])
    assert found["correlation"] == pytest.approx(np.mean(values), abs=1e-4)
    assert found["margin"] == pytest.approx(2.3646 * np.std(values, ddof=1) / 8**0.5, abs=1e-3)


def test_a_ceiling_belongs_to_model_method_and_prompt_and_not_to_a_name() -> None:
    by = {
        "simulator": "hf:a",
        "model": {"weights": "w"},
        "method": "generate",
        "prompt": {"name": "p", "sha256": "1"},
    }
    same = by | {"simulator": "hf:b", "numbers": "0-9", "prompt": {"name": "q", "sha256": "1"}}
    assert check.question(by) == check.question(same)
    for other in (
        {"model": {"weights": "x"}},
        {"method": "all-at-once"},
        {"prompt": {"sha256": "2"}},
        {"examples": 1},
    ):
        assert check.question(by | other) != check.question(by)
