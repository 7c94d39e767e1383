"""Explanations in other words, and their scores beside the originals'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from assistants import Scripted, failing, run, said, unit
from conftest import Run
from fault_server import FaultServer, chat

from nxtools.assistant.asking import Asking
from nxtools.explain.rewording import Reworder, Rewording, words_kept
from nxtools.store import Store
from nxtools.stream import dump

Record = dict[str, Any]

ROWS = [
    ("evidence", "top", [(" a", 0.0), (" mast", 5.0)]),
    ("held-out", "top", [(" mast", 4.0), (" a", 0.5), (" sea", 0.2)]),
    ("held-out", "random", [(" no", 0.5), (" mast", 3.0), (" a", 1.0)]),
]


def told(*entries: Record, sign: str = "+", index: int = 0) -> Record:
    explanations = [{"by": {"explainer": "person"}, **entry} for entry in entries]
    return {**unit(ROWS, sign, index), "explanations": explanations}


SHIPS = {"id": "one", "text": "parts of a ship", "scale": 5.0, "sign": "-", "view": "next-token"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def reworded(
    store: Store, script: Any, *entries: Record, abilities: Any = ("chat",)
) -> tuple[list[Record], Scripted]:
    assistant = Scripted(script, abilities)
    (out,) = run(Reworder(Rewording(Asking(assistant))).step, [told(*entries)], store)
    return out["explanations"], assistant


def test_a_rewording_stands_beside_the_original_and_is_simulated_like_it(store: Store) -> None:
    answer = "Two nouns fit.\nIn other words: pieces of a vessel"
    (original, other), assistant = reworded(store, lambda payload: said(answer), SHIPS)
    assert (original["text"], other["text"]) == ("parts of a ship", "pieces of a vessel")
    assert other["paraphrase_of"] == "one"
    assert [other[name] for name in ("scale", "sign", "view")] == [5.0, "-", "next-token"]
    assert other["words_kept"] == 0.5  # of and a
    assert other["usage"] == {"calls": 1, "tokens_in": 10, "tokens_out": 5}
    assert other["by"]["prompt"]["name"] == "paraphrase"
    (payload,) = assistant.asked
    assert payload.messages[-1].content == "Description: parts of a ship\nIn other words:"
    assert payload.stop == ()


def test_a_base_model_is_stopped_at_the_end_of_the_line(store: Store) -> None:
    (_, other), assistant = reworded(store, lambda payload: said(" pieces of a vessel"), SHIPS, abilities=())
    assert other["text"] == "pieces of a vessel"
    assert assistant.asked[0].stop == ("\n",)


def test_the_same_words_again_are_no_rewording(store: Store) -> None:
    answers = {0: "In other words: Parts of a SHIP.", 1: "In other words: pieces of a vessel"}
    (_, other), _ = reworded(store, lambda payload: said(answers[payload.draw]), SHIPS)
    assert other["text"] == "pieces of a vessel"
    assert other["usage"]["calls"] == 2
    (_, failed), _ = reworded(Store(store.path / "2"), lambda payload: said(answers[0]), SHIPS)
    assert failed["error"]["kind"] == "unparseable"
    assert failed["paraphrase_of"] == "one"


def test_patterns_and_rewordings_are_left_alone(store: Store) -> None:
    others = [
        {"id": "p", "text": '" mast" (10); "\\n"'},
        {"id": "q", "text": "bits of boats", "paraphrase_of": "x"},
        {"id": "r", "text": "one of several", "candidate": "false"},
        {"error": {"stage": "explain", "kind": "no-evidence", "message": ""}},
    ]
    out, assistant = reworded(store, lambda payload: said("never"), *others)
    assert len(out) == 4
    assert assistant.asked == assistant.tried == []


def test_what_failed_gives_way_and_what_was_reworded_is_not_asked_for_again(store: Store) -> None:
    answers = iter([failing(), said("In other words: pieces of a vessel")])
    reworder = Reworder(Rewording(Asking(Scripted(lambda payload: next(answers)))))
    (first,) = run(reworder.step, [told(SHIPS)], store)
    assert [e.get("text") for e in first["explanations"]] == ["parts of a ship", None]
    (second,) = run(reworder.step, [first], store)
    (third,) = run(reworder.step, [second], store)
    assert [e["text"] for e in second["explanations"]] == ["parts of a ship", "pieces of a vessel"]
    assert third == second


@pytest.mark.parametrize(
    ("text", "share"), [("ships' PARTS", 0.5), ("pieces", 0.0), ("of a of a", 1.0), ("…", 0.0)]
)
def test_the_share_of_words_that_were_kept(text: str, share: float) -> None:
    assert words_kept("parts of a ship", text) == share


def test_scores_of_rewordings_stand_beside_those_of_the_originals(run: Run) -> None:
    """One simulator understands only the explainer's own words; the summary shows it."""

    def answer(path: str, body: Record) -> Record:
        if path != "/v1/chat/completions":
            return {"error": {"message": "only chat"}, "status": 404}
        asked = body["messages"][-1]["content"]
        if asked.startswith("Description:"):
            return chat("In other words: what holds sails up")
        if "1: " not in asked:
            return chat("Hello!")
        tokens = [line.partition(": ")[2] for line in asked.splitlines() if line[:1].isdigit()]
        knows = "mastish" in asked
        numbers = {n: 9 if "mast" in t and knows else 2 * n % 5 for n, t in enumerate(tokens, 1)}
        return chat(orjson.dumps({str(n): level for n, level in numbers.items()}).decode())

    lines = b"".join(dump(told({"id": "m", "text": "mastish"}, index=n)) for n in range(3))
    with FaultServer(answer) as server:
        url = ("--base-url", server.url)
        both = run("nx-explain", "--explainer", "openai:m", *url, "--paraphrase", stdin=lines)
        scored = run("nx-score", "--simulator", "openai:m", *url, "--baselines", "none", stdin=both.stdout)
    assert (both.returncode, scored.returncode) == (0, 0), (both.stderr, scored.stderr)
    header = next(line for line in scored.stderr.decode().splitlines() if "mean" in line)
    assert header.split()[-2:] == ["explanation", "paraphrase"]
    for line in scored.stdout.splitlines():
        original, other = orjson.loads(line)["explanations"]
        assert other["paraphrase_of"] == original["id"]
        assert original["scores"][0]["top_and_random"] > 0.9 > other["scores"][0]["top_and_random"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "takes a language model"),
        (("--explainer", "openai:m", "--best"), "--best is for new explanations"),
        (("--explainer", "openai:m", "--text", "x"), "--text is for new explanations"),
    ],
)
def test_what_does_not_go_with_it(run: Run, options: tuple[str, ...], complaint: str) -> None:
    done = run("nx-explain", "--paraphrase", *options)
    assert done.returncode == 2
    assert complaint in done.stderr.decode()
