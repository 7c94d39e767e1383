"""Revision by a language model in detail: what is asked, how it is read, what goes wrong, what is chosen."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assistants import Scripted, failing, run, said, unit
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st

from nxtools.assistant.asking import Asking, DryRun
from nxtools.assistant.prompts import leveled, read_prompt
from nxtools.assistant.protocol import Completion, Slots
from nxtools.explain.showing import Evidence, of_example
from nxtools.pattern.lexicon import Lexicon
from nxtools.revise.asked import FEWEST, messages, same, sentences
from nxtools.revise.assistant import PROMPTS, Mender, Mending
from nxtools.revise.case import CANDIDATES, Case
from nxtools.revise.evidence import Measuring, New
from nxtools.revise.generated import Writing
from nxtools.revise.placing import Compared
from nxtools.revise.report import lines
from nxtools.simulate.assistant import Simulating, Simulator
from nxtools.stage import LocalEngine
from nxtools.store import Store
from nxtools.stream import dump
from nxtools.subject.asked import packed
from nxtools.unit import Unit

Record = dict[str, Any]
Script = Callable[[Any], Any]

FIRES = [(" not", 0.0), (" all", 9.0), (" of", 0.0), (" them", 0.0)]
BROAD = [(" see", 0.0), (" all", 0.0), (" of", 0.0), (" them", 0.0)]
SILENT = [(" of", 0.0), (" them", 0.0), (" see", 0.0), (" of", 0.0)]
ROWS = [
    (which, pick, pairs)
    for which in ("evidence", "validation", "held-out")
    for pick, pairs in (("top", FIRES), ("random", SILENT), ("random", BROAD))
]
VOCABULARY = [" not", " all", " of", " them", " see"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def told(rows: Any = ROWS, sign: str = "+", **more: Any) -> Record:
    """A unit that fires on "all" behind "not", explained by half of that."""
    record = unit(rows, sign)
    record["recorded"] = {"dtype": "float32", "context": 16, "bos": None, "plans": []}
    record["explanations"] = [{"id": "a", "text": "all", "by": {"explainer": "x"}, "scale": 9.0, **more}]
    return record


# A subject, a writer, a reviser and a simulator in a few lines


def spelled(jobs: list[Any]) -> list[Any]:
    def ids(text: str) -> list[int]:
        return [VOCABULARY.index(word) for word in re.findall(r"\s\w+", f" {text}") if word in VOCABULARY]

    rows = [[ids(text) for text in job.texts] for job in jobs]
    return [{"ids": many, "tokens": [[VOCABULARY[id] for id in row] for row in many]} for many in rows]


def activations(jobs: list[Any]) -> list[Any]:
    """9 on "all" behind "not"."""
    found = []
    for job in jobs:
        rows = np.zeros((len(job.contexts), max(map(len, job.contexts))), np.float32)
        for row, ids in zip(rows, job.contexts, strict=True):
            row[1 : len(ids)] = 9.0 * ((ids[1:] == 1) & (ids[:-1] == 0))
        found.append(packed(rows))
    return found


def slots(payload: Slots) -> Record:
    """All the mass on 10 at each "all", behind "not" if the explanation says so."""
    strict = "not" in "".join(map(str, payload.explanation))
    tokens = [piece for piece in payload.excerpt if isinstance(piece, str) and piece.startswith(" ")]
    rows = np.zeros((len(tokens), 11))
    for place, token in enumerate(tokens):
        hit = token == " all" and (not strict or tokens[place - 1 : place] == [" not"])
        rows[place, 10 if hit else 0] = 1
    return {"probabilities": rows.tolist(), "mass": [1.0] * len(tokens), "top": 10}


def kind(payload: Any) -> str:
    """What is asked: simulation, sentences, or revision."""
    if isinstance(payload, Slots):
        return "simulation"
    return "sentences" if payload.messages[-1].content.endswith("Sentences:") else "revision"


WRITTEN = "1. see all of them\n2. not all of them\n3. of all\n4. them all see of"


def helpful(payload: Any) -> Any:
    if isinstance(payload, Slots):
        return slots(payload)
    return said(WRITTEN if kind(payload) == "sentences" else "Explanation: all behind not")


def instead(of: str, answer: Script) -> Script:
    """The helpful script, but for one sort of question."""
    return lambda payload: answer(payload) if kind(payload) == of else helpful(payload)


def mender(
    script: Script = helpful, dry: DryRun | None = None, sources: tuple[str, ...] = (), **how: Any
) -> tuple[Mender, Scripted]:
    assistant = Scripted(script, ("chat", "slots"))
    asking = Asking(assistant, dry)
    engines = [dry or LocalEngine(function) for function in (activations, spelled)]
    nothing: Any = None
    measuring = Measuring(sources, 100, 10, engines[0], lambda unit: None, nothing)
    settings: dict[str, Any] = {
        "writing": Writing(asking, engines[1], PROMPTS / "sentences.toml"),
        "lexicon": lambda unit: Lexicon(unit.vocabulary),
        **how,
    }
    simulate = Simulator(Simulating(asking)).on
    return Mender(Mending(asking, simulate, asking.name, measuring, **settings)), assistant


def revised(store: Store, script: Script = helpful, record: Record | None = None, **how: Any) -> Record:
    one, _ = mender(script, **how)
    (out,) = run(one.step, [copy.deepcopy(record or told())], store)
    return dict(out["explanations"][0])


# What comes of it


def test_sentences_that_do_not_make_it_fire_are_counterexamples_and_the_words_are_mended(
    store: Store,
) -> None:
    new = revised(store)
    assert new["text"] == "all behind not" and new["revises"] == "a" and new["scale"] == 9.0
    assert [one["fires"] for one in new["sentences"]] == [False, True, False, False]
    assert sorted(one["for"] for one in new["sentences"]) == ["reviser"] * 2 + ["scores"] * 2
    assert len(new["counterexamples"]) == 3
    assert [version["validation"]["top_and_random"] for version in new["versions"]] == [0.6742, 1.0]
    assert new["revision"]["top_and_random"] == {"before": 0.6742, "after": 1.0}
    assert new["revision"]["widened"]["after"] == 1.0
    assert new["usage"] == {"calls": 2, "tokens_in": 20, "tokens_out": 10}


def test_the_choice_looks_at_validation_and_at_nothing_held_out(store: Store) -> None:
    def turned(which: str) -> Record:
        """With the activations of a set turned round."""
        record = told()
        for excerpt in record["excerpts"]:
            if excerpt["set"] == which:
                excerpt["activations"] = [9 - value for value in excerpt["activations"]]
        return record

    plain, held_out, validation = (
        revised(store, record=turned(which)) for which in ("", "held-out", "validation")
    )
    for one in (plain, held_out):
        del one["revision"]
    assert dump(plain) == dump(held_out)
    assert (validation["current"], validation["text"]) == (0, "all")
    assert validation["why"] == "nothing was better on validation"


def test_of_several_candidates_the_best_on_validation_is_taken(store: Store) -> None:
    def differently(payload: Completion) -> Record:
        return said(["Explanation: of", "Explanation: all behind not", "Explanation: them"][payload.draw])

    new = revised(store, instead("revision", differently), candidates=3)
    assert [version["text"] for version in new["versions"]] == ["all", "of", "all behind not", "them"]
    assert new["current"] == 2


def test_rounds_end_when_nothing_is_better_and_show_all_that_was_found_before(store: Store) -> None:
    one, assistant = mender(rounds=5)
    (out,) = run(one.step, [told()], store)
    new = out["explanations"][0]
    asked = [payload for payload in assistant.asked if kind(payload) == "revision"]
    assert len(asked) == 2 and new["why"].endswith("in round 2 the reviser said the same again")
    first, second = (payload.messages[-1].content for payload in asked)
    assert second.partition("It was said to react to: ")[2].startswith("all behind not")
    assert first.partition("Further texts:")[2] in second
    assert len(new["sentences"]) == 4  # the same were written again


def test_nothing_is_asked_twice_even_without_a_store(tmp_path: Path) -> None:
    sets = ("evidence", "validation", "held-out")
    rows = [(which, pick, [*pairs, *[(" of", 0.0)] * sets.index(which)]) for which, pick, pairs in ROWS]
    one, assistant = mender(rounds=3, candidates=2)
    run(one.step, [told(rows)], Store(tmp_path / "none", mode="none"))
    assert len(assistant.asked) == len(set(map(repr, assistant.asked))) > 15


def test_each_side_is_revised_on_its_own(store: Store) -> None:
    turned = [
        (which, pick.replace("top", "bottom"), [(t, -v) for t, v in pairs]) for which, pick, pairs in ROWS
    ]
    record = told(turned, sign="+-")
    record["explanations"][0]["sign"] = "-"
    new = revised(store, record=record, writing=None)
    assert (new["sign"], new["text"]) == ("-", "all behind not")
    assert new["versions"][0]["validation"] == {"bottom_and_random": 0.6742}


def test_in_the_view_of_next_tokens_levels_stand_beside_what_follows(store: Store) -> None:
    one, assistant = mender()
    run(one.step, [told(view="next-token")], store)
    (asked,) = (payload for payload in assistant.asked if kind(payload) == "revision")
    assert asked.messages[-1].content.count("<< of>>") >= 1
    assert "<< all>>" not in asked.messages[-1].content


def test_without_new_evidence_the_explanation_is_hidden_and_no_subject_asked(store: Store) -> None:
    one, assistant = mender(writing=None)
    record = told()
    del record["recorded"]
    (out,) = run(one.step, [record], store)
    (asked,) = (payload for payload in assistant.asked if kind(payload) == "revision")
    assert "said to react" not in "".join(message.content for message in asked.messages)
    assert out["explanations"][0]["versions"][1]["made"] == "explained again"
    assert out["explanations"][0]["counterexamples"] == []


# What goes wrong


@pytest.mark.parametrize(
    ("of", "answer", "error"),
    [
        ("sentences", said(""), "unparseable"),
        ("sentences", said("I cannot help you with that."), "unparseable"),
        ("sentences", failing("http-500"), "http-500"),
        ("sentences", failing("too-long"), "too-long"),
        ("revision", said("<think>hm", finish="length"), "unparseable"),
        ("revision", failing("max-calls"), "max-calls"),
        ("simulation", failing("http-500"), "http-500"),
    ],
)
def test_a_failure_stands_in_the_revisions_place_and_the_next_run_mends_it(
    store: Store, of: str, answer: Any, error: str
) -> None:
    one, assistant = mender(instead(of, lambda payload: answer))
    (out,) = run(one.step, [told()], store)
    failed, old = out["explanations"]
    assert (failed["error"]["stage"], failed["error"]["kind"]) == ("revise", error)
    assert "text" not in failed and "revised" not in old
    assert one.refused == (error == "unparseable")
    if error == "unparseable":
        assert sum(kind(payload) == of for payload in assistant.asked) == 3
        return  # such answers are answers: they are not asked for again
    (mended,) = run(mender()[0].step, [out], store)
    assert [e["text"] for e in mended["explanations"]] == ["all behind not", "all"]


def test_a_version_that_cannot_be_simulated_is_not_chosen(store: Store) -> None:
    def simulated(payload: Slots) -> Any:
        return failing() if "not" in "".join(map(str, payload.explanation)) else slots(payload)

    new = revised(store, instead("simulation", simulated))
    assert new["current"] == 0 and new["versions"][1]["error"]["kind"] == "http-500"
    assert new["why"] == "no new version could be simulated on validation"


def test_excerpts_that_one_version_lacks_are_in_neither_score(store: Store) -> None:
    def simulated(payload: Slots) -> Any:
        strict = "not" in "".join(map(str, payload.explanation))
        return failing() if strict and payload.excerpt[1] == " see" else slots(payload)

    new = revised(store, instead("simulation", simulated), writing=None)
    assert new["revision"]["top_and_random"] == {"before": 1.0, "after": 1.0}
    assert new["versions"][1]["failed"] == 1


def test_a_dry_run_counts_what_does_not_depend_on_answers(store: Store) -> None:
    for sources in ((), ("neighbours",)):
        dry = DryRun()
        one, assistant = mender(dry=dry, sources=sources)
        run(one.step, [told()], store)
        assert assistant.asked == [] and dry.calls == 3 + 3 + 1  # validation, held-out, sentences


def test_units_without_a_subject_are_refused_before_anybody_is_paid(store: Store, run: Run) -> None:
    pipe = "nx-puzzles --only not-all | nx-explain -q --text '\" all\" (10)' | nx-revise"
    done = run(pipe)
    assert done.returncode == 1
    assert b'"kind":"no-subject"' in done.stdout and b"1 failed" in done.stderr
    one, assistant = mender()
    record = told()
    del record["recorded"]
    from assistants import run as loop

    (out,) = loop(one.step, [record], store)
    assert out["explanations"][0]["error"]["kind"] == "no-subject" and assistant.asked == []
    patterns = run("nx-revise --from generated")
    assert patterns.returncode == 2 and b"patterns have nobody who writes sentences" in patterns.stderr
    for words in ("--form marked", "--simulator hf:x", "--max-calls 3", "--explainer hf:x --literals 3"):
        assert run(f"nx-revise {words}").returncode == 2


# What is reported


def test_the_share_of_false_positives_has_an_interval_over_units() -> None:
    """Checked against a bootstrap over units, which have unequal many sentences."""
    chance = np.random.default_rng(0)
    written = chance.integers(4, 11, 200)
    silent = chance.binomial(written, chance.beta(2, 2, 200))
    nothing = (None, None)
    compared = [
        Compared(False, nothing, nothing, str(unit), (int(of), int(no)))
        for unit, (of, no) in enumerate(zip(written, silent, strict=True))
    ]
    (line,) = (line for line in lines(compared) if "false positives" in line)
    share, low, high, total, units = map(
        float, re.findall(r"[\d.]+", line.replace("95%", "").replace(",", ""))[:5]
    )
    assert share == pytest.approx(100 * silent.sum() / written.sum(), abs=0.05)
    assert (total, units) == (written.sum(), 200)
    drawn = chance.integers(0, 200, (4000, 200))
    shares = 100 * silent[drawn].sum(1) / written[drawn].sum(1)
    assert [low, high] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=1)
    assert f"of {units:.0f} units have one or more" in line
    some = (silent > 0).mean()
    assert f"{100 * some:.1f}% (95%" in line.partition(";")[2]


# What is asked


def test_a_prompt_shows_old_evidence_the_explanation_and_what_tests_it() -> None:
    shown = Evidence((leveled("not| all=9"),), (), (), 9.0)
    for form in ("marked", "paper"):
        prompt = read_prompt(PROMPTS / f"{form}.toml")
        asked = messages(prompt, shown, "activations", "every {{word}}", [leveled("see| all")])
        text = asked[-1].content
        assert "every {{word}}" in text and (" all\t0" in text or "see all" in text)
        assert all(example.explanation in "".join(m.content for m in asked) for example in prompt.examples)
        again = "".join(m.content for m in messages(prompt, shown, "activations", "every", []))
        assert (
            "every"
            not in again.rpartition(of_example(prompt.examples[-1], "activations").excerpts[0].tokens[1])[2]
        )
    assert asked[-1].content.endswith("What unit 4 really reacts to:")


@given(st.text())
def test_whatever_is_written_is_read_as_different_sentences_or_refused(answer: str) -> None:
    found = sentences(answer, 10)
    assert not found or FEWEST <= len(found) <= 10
    assert len({same(one) for one in found}) == len(found)
    assert all(one.isprintable() and same(one) for one in found)


@pytest.mark.parametrize(
    "answer",
    [
        "1. A cat.\n2) Two cats!\n- Three.",
        "Sure, here are some:\n\n* A cat.\n* Two cats!\n* *Three.*\n* a cat",
        "<think>1. no\n2. no</think>A cat.\nTwo cats!\nThree.",
        "A cat. Two cats! Three.",
    ],
)
def test_sentences_are_numbered_lines_or_lines_or_sentences(answer: str) -> None:
    assert [same(one) for one in sentences(answer, 10)] == ["a cat", "two cats", "three"]


# Which texts are simulated


@given(st.integers(0, 2**32 - 1), st.integers(1, 120))
def test_of_many_texts_those_farthest_from_the_table_are_simulated(seed: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    truth = chance.exponential(size=(count, 4)).astype(np.float32)
    table = chance.exponential(size=(count, 4)).astype(np.float32)
    new = New("corpus", np.zeros((count, 4), np.int32), truth, tuple(map(str, range(count))))
    record = told()
    case = Case(Unit(record), record["explanations"][0], Evidence((), (), (), 9.0), "+", "activations")
    case.roles["0"] = "scores"  # an earlier round took that one
    found = case.unknown(new, lambda fresh: table[[int(name) for name in fresh.names]])
    assert len(found.names) <= CANDIDATES and "0" not in found.names
    if count - 1 <= CANDIDATES:
        assert len(found.names) == count - 1
        return
    over, under = (table - truth).max(1), (truth - table).max(1)
    for worst in (int(over[1:].argmax()) + 1, int(under[1:].argmax()) + 1):
        assert str(worst) in found.names
