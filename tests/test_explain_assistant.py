"""Explanations by language models: what they are shown, how answers are read, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from assistants import Scripted, failing, run, said, unit
from hypothesis import given
from hypothesis import strategies as st

from nxtools.assistant.asking import Asking, DryRun
from nxtools.assistant.prompts import leveled, read_prompt
from nxtools.assistant.protocol import Completion
from nxtools.errors import UsageError
from nxtools.explain.asked import read
from nxtools.explain.assistant import FORMS, PROMPTS, Explainer, Explaining
from nxtools.explain.showing import VIEWS
from nxtools.store import Store

Record = dict[str, Any]

SHIPS = [(" the", 0.0), (" mast", 5.0), (" and", None), (" sail", 2.6), (" fell", -3.0), ("\n", 0.1)]
CALM = [(" a", 0.0), (" calm", -1.0), (" day", 0.0)]
ROWS = [
    ("evidence", "top", SHIPS),
    ("evidence", "bottom", CALM),
    ("evidence", "random", [(" no", 0.0), (" thing", 0.0)]),
    ("validation", "top", SHIPS),
    ("validation", "random", CALM),
    ("held-out", "top", [(" secret", 9.0)]),
]

MARKED, PAPER = (read_prompt(PROMPTS / f"{form}.toml") for form in ("marked", "paper"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def explained(
    store: Store, script: Any, *, rows: Any = ROWS, sign: str = "+", abilities: Any = ("chat",), **how: Any
) -> tuple[list[Record], Scripted]:
    assistant = Scripted(script, abilities)
    explainer = Explainer(Explaining(Asking(assistant), **how))
    (out,) = run(explainer.step, [unit(rows, sign)], store)
    return out["explanations"], assistant


def shown(assistant: Scripted) -> str:
    """The last message of the first prompt."""
    assert isinstance(assistant.asked[0], Completion)
    return assistant.asked[0].messages[-1].content


def test_a_chat_model_reads_text_in_which_firing_tokens_are_marked(store: Store) -> None:
    (entry,), assistant = explained(store, lambda payload: said("Explanation: parts of a ship"))
    assert entry["text"] == "parts of a ship"
    assert entry["scale"] == 5.0
    assert "sign" not in entry
    assert "Excerpt 1:  the<< mast>> and<< sail>> fell\\n" in shown(assistant)
    assert "Strengths: mast 10, sail 5" in shown(assistant)
    roles = [message.role for message in assistant.asked[0].messages]
    assert roles == ["system", *["user", "assistant"] * 4, "user"]


def test_a_base_model_reads_tables_and_writes_on(store: Store) -> None:
    (entry,), assistant = explained(store, lambda payload: said(" parts of a ship"), abilities=())
    assert entry["text"] == "parts of a ship"
    assert entry["by"]["prompt"]["name"] == "paper"
    (message,) = assistant.asked[0].messages
    table = " the\t0\n mast\t10\n and\t0\n sail\t5\n fell\t0\n\\n\t0\n<end>"
    assert table in message.content
    assert message.content.endswith("What unit 5 reacts to:")
    assert assistant.asked[0].stop == ("\n",)


@pytest.mark.parametrize(("zeros", "again"), [(7, False), (9, True)])
def test_few_nonzero_numbers_are_shown_once_more(store: Store, zeros: int, again: bool) -> None:
    """Below a share of 20%: 2 of 9 are above, 2 of 11 below."""
    pairs = [(" x", 1.0), (" y", 2.0)] + [(" z", 0.0)] * zeros
    _, assistant = explained(
        store, lambda payload: said(" x"), abilities=(), rows=[("evidence", "top", pairs)]
    )
    ours = shown(assistant).rpartition("Unit 5")[2]
    assert ("<start>\n x\t5\n y\t10\n<end>" in ours) == again


def test_only_evidence_is_shown(store: Store) -> None:
    for view in VIEWS:
        _, assistant = explained(store, lambda payload: said("Explanation: x"), view=view)
        assert "secret" not in str(assistant.asked[0].messages)


def test_next_tokens_stand_where_the_activation_before_them_was(store: Store) -> None:
    (entry,), assistant = explained(
        store, lambda payload: said("Explanation: x"), view="next-token", abilities=()
    )
    assert " mast\t0\n and\t10\n sail\t0\n fell\t5\n\\n\t0\n<end>" in shown(assistant)
    assert entry["view"] == "next-token"


def test_the_view_of_tokens_has_no_excerpts(store: Store) -> None:
    _, assistant = explained(store, lambda payload: said("Explanation: x"), view="tokens")
    assert "\n mast 10\n sail 5" in shown(assistant)
    assert "Excerpt" not in shown(assistant)


def test_contrast_adds_what_the_unit_is_silent_on(store: Store) -> None:
    _, assistant = explained(store, lambda payload: said("Explanation: x"), view="contrast")
    assert " no thing" in shown(assistant)


def test_each_sign_is_explained_on_its_own(store: Store) -> None:
    def by_side(payload: Completion) -> Record:
        return said(
            "Explanation: calm" if "<< calm>>" in payload.messages[-1].content else "Explanation: ships"
        )

    entries, assistant = explained(store, by_side, sign="+-")
    assert [(e["sign"], e["text"], e["scale"]) for e in entries] == [("+", "ships", 5.0), ("-", "calm", 1.0)]
    assert len(assistant.asked) == 2
    assert entries[0]["id"] != entries[1]["id"]


def test_a_side_that_never_fires_is_no_error_but_a_unit_that_never_fires_is_one(store: Store) -> None:
    entries, _ = explained(
        store, lambda payload: said("Explanation: x"), sign="+-", rows=[("evidence", "top", SHIPS)]
    )
    assert [e["sign"] for e in entries] == ["+"]
    entries, assistant = explained(store, lambda payload: said("x"), rows=[("evidence", "top", CALM)])
    assert entries[0]["error"]["kind"] == "no-evidence"
    assert assistant.asked == []


# Reading answers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Explanation: words for ships", "words for ships"),
        ("They are all nautical.\n\nExplanation: “words for ships”", "words for ships"),
        ('Explanation: "words for ships"', "words for ships"),
        ("**Explanation:** *words for ships*", "words for ships"),
        ("words for ships", "words for ships"),
        ("<think>Explanation: no</think>Explanation: words for ships", "words for ships"),
        ("the template opened it</think>\nwords for ships", "words for ships"),
    ],
)
def test_answers_that_can_be_read(answer: str, text: str) -> None:
    assert read(MARKED, answer) == [text]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "  \n",
        "…?!",
        "<think>it never ends",
        "Explanation:",
        "First thoughts.\n\nSecond thoughts.",
        "x" * 700,
        "bell\x07",
    ],
)
def test_answers_that_cannot(answer: str) -> None:
    assert read(MARKED, answer) == []


@given(st.text())
def test_whatever_is_answered_is_read_or_refused(answer: str) -> None:
    for prompt in (MARKED, PAPER):
        for wanted in (1, 3):
            found = read(prompt, answer, wanted=wanted)
            assert len(found) <= wanted
            assert all(text.strip() and "<think>" not in text for text in found)


def test_an_answer_that_cannot_be_read_is_an_error_after_further_draws(store: Store) -> None:
    (entry,), assistant = explained(store, lambda payload: said("<think>hm", finish="length"))
    assert "text" not in entry
    assert entry["error"]["kind"] == "unparseable"
    assert "cut off" in entry["error"]["message"]
    assert [ask.draw for ask in assistant.asked] == [0, 1, 2]


def test_a_further_draw_may_do(store: Store) -> None:
    (entry,), _ = explained(store, lambda payload: said("" if payload.draw == 0 else "Explanation: ships"))
    assert entry["text"] == "ships"
    assert entry["usage"] == {"calls": 2, "tokens_in": 20, "tokens_out": 10}
    again, other = explained(store, lambda payload: said("never asked"))
    assert again == [entry]
    assert other.asked == other.tried == []


def test_a_failed_call_is_an_error_and_is_asked_again_by_the_next_run(store: Store) -> None:
    (entry,), _ = explained(store, lambda payload: failing())
    assert (entry["error"]["stage"], entry["error"]["kind"]) == ("explain", "http-500")
    (entry,), assistant = explained(store, lambda payload: said("Explanation: ships"))
    assert entry["text"] == "ships"
    assert len(assistant.asked) == 1


def test_an_error_of_the_run_before_gives_way(store: Store) -> None:
    answers = iter([failing(), said("Explanation: ships")])
    explainer = Explainer(Explaining(Asking(Scripted(lambda payload: next(answers)))))
    (first,) = run(explainer.step, [unit(ROWS)], store)
    (second,) = run(explainer.step, [first], store)
    assert [e.get("text") for e in second["explanations"]] == ["ships"]


# Candidates


def test_candidates_are_draws_and_equal_ones_are_one(store: Store) -> None:
    entries, assistant = explained(
        store, lambda payload: said(f"Explanation: guess {payload.draw // 2}"), candidates=4
    )
    assert [e["text"] for e in entries] == ["guess 0", "guess 1"]
    assert len({str(ask.messages) for ask in assistant.asked}) == 1
    assert len(assistant.asked) == 4


def test_diverse_candidates_come_in_lists_under_other_examples(store: Store) -> None:
    def lists(payload: Completion) -> Record:
        return said("\n".join(f"{n}. guess {payload.draw}-{n}" for n in range(1, 6)))

    entries, assistant = explained(store, lists, candidates=8, diverse=True)
    assert [e["text"] for e in entries][:6] == [f"guess 0-{n}" for n in range(1, 6)] + ["guess 1-1"]
    assert len(entries) == 8
    assert len({ask.messages[1].content for ask in assistant.asked}) == len(assistant.asked) == 2


def test_the_best_candidate_is_chosen_on_validation(store: Store) -> None:
    """A simulator that predicts the truth for one of the candidates only."""
    sets: list[str] = []

    def simulate(of: Any, entry: Record, which: str) -> Any:
        yield []
        sets.append(which)
        truth = of.shown(which).table.activations
        sense = 1.0 if entry["text"] == "guess 2" else -1.0
        return [
            {"by": {}, "excerpt": name, "expected": [None if v != v else sense * v for v in row]}
            for name, row in zip(of.shown(which).excerpts, truth.tolist(), strict=True)
        ]

    (entry,), _ = explained(
        store, lambda payload: said(f"Explanation: guess {payload.draw}"), candidates=4, best=simulate
    )
    assert entry["text"] == "guess 2"
    assert entry["validation"] == 1.0
    assert entry["candidates"] == 4
    assert set(sets) == {"validation"}


def test_where_nothing_can_be_compared_the_first_candidate_says_so(store: Store) -> None:
    def simulate(of: Any, entry: Record, which: str) -> Any:
        yield []
        return []

    (entry,), _ = explained(
        store, lambda payload: said(f"Explanation: guess {payload.draw}"), candidates=2, best=simulate
    )
    assert (entry["text"], entry["validation"]) == ("guess 0", None)
    assert entry["absent"]["validation"]


# Prompts


def test_a_prompt_of_ones_own_is_another_question(store: Store, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text((PROMPTS / "marked.toml").read_text(encoding="utf-8").replace("You study", "We study"))
    (first,), _ = explained(store, lambda payload: said("Explanation: x"))
    (second,), assistant = explained(store, lambda payload: said("Explanation: x"), prompt=own)
    assert len(assistant.asked) == 1
    assert assistant.asked[0].messages[0].content.startswith("We study")
    assert first["by"]["prompt"]["sha256"] != second["by"]["prompt"]["sha256"]
    assert second["by"]["prompt"]["name"] == "mine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("instructions = ", "is not TOML"),
        ("[[examples]]\nexcerpts = []", "is no prompt"),
        ('instructions = "{{nonsense}}"\nform = "marked"', "nonsense"),
        ("instructions = 5", "is no prompt"),
        ('form = "marked"', "has no 'instructions'"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said(store: Store, tmp_path: Path, text: str, complaint: str) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        explained(store, lambda payload: said("x"), prompt=own)


def test_what_stands_in_the_text_is_not_taken_for_the_prompt(store: Store) -> None:
    odd = [("{{excerpts}}", 3.0), ("<end>", 1.0), ("\t", 0.0), ("\ufffd", 0.5)]
    for form in FORMS:
        _, assistant = explained(
            store, lambda payload: said("Explanation: x"), rows=[("evidence", "top", odd)], form=form
        )
        assert "{{excerpts}}" in shown(assistant)
        assert "\\t" in shown(assistant)


def test_examples_are_written_on_one_line() -> None:
    found = leveled("She| has| a=3| =| 1=|x=10")
    assert found.tokens == ("She", " has", " a", " =", " 1=", "x")
    assert found.levels == (0, 0, 3, 0, 0, 10)


def test_fewer_examples_when_asked(store: Store) -> None:
    _, assistant = explained(store, lambda payload: said("Explanation: x"), examples=1)
    assert len(assistant.asked[0].messages) == 4


# Without asking


def test_a_dry_run_counts_and_asks_nobody(store: Store) -> None:
    assistant, dry = Scripted(lambda payload: said("x")), DryRun()
    explainer = Explainer(Explaining(Asking(assistant, dry), candidates=3))
    run(explainer.step, [unit(ROWS, index=n) for n in range(2)], store)
    assert dry.calls == 3  # the two units show the same, and are asked about once
    assert dry.tokens_in > 1000
    assert assistant.asked == assistant.tried == []


def test_names_in_records_are_no_places_on_this_machine() -> None:
    assistant = Scripted(lambda payload: said("x"))
    for said_name, name in (("llama:/a/b/q4.gguf", "llama:q4.gguf"), ("hf:Qwen/Qwen2.5", "hf:Qwen/Qwen2.5")):
        assistant.name = said_name
        assert Asking(assistant).name == name
