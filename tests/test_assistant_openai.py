"""The API engine through the real openai client: what fails is asked again, what arrived never is."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from assistants import unit
from fault_server import PASSING, FaultServer, chat, plain

from nxtools.assistant.asking import Asking, DryRun
from nxtools.assistant.openai_api import OpenAIAssistant
from nxtools.assistant.protocol import Completion, Message, Number, Passage, Slot, Slots
from nxtools.errors import ModelError, UsageError
from nxtools.explain.assistant import Explainer, Explaining
from nxtools.stage import Ask, Failure, Loop, Question
from nxtools.store import Store

QUICK = {"timeout": 0.5, "retries": 4}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "NXTOOLS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own backoff, a hundred times faster."""
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 0.08)


def asking(text: str, draw: int = 0, **more: Any) -> Completion:
    return Completion((Message("user", text),), temperature=1.0, max_tokens=60, draw=draw, **more)


def run(assistant: OpenAIAssistant, payloads: list[Any]) -> list[Any]:
    """Answers in the order of the payloads, as the loop would store them."""
    asks = [Ask(str(n), Question("t", 1, {}, assistant, payload)) for n, payload in enumerate(payloads)]
    waiting, answers = list(asks), {}

    def pull(wanted: int) -> list[Ask]:
        taken, waiting[:] = waiting[:wanted], waiting[wanted:]
        return taken

    for batch in assistant.answer(pull):
        answers |= {ask.digest: answer for ask, answer in batch}
    return [answers[ask.digest] for ask in asks]


def echo_last(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return chat(body["messages"][-1]["content"][::-1])


def test_a_completion_is_asked_as_it_stands_and_its_tokens_are_counted() -> None:
    with FaultServer(echo_last) as server:
        assistant = OpenAIAssistant("m", server.url, {"top_p": 0.5})
        (answer,) = run(assistant, [asking("abc", draw=3, stop=("\n",))])
    assert answer["text"] == "cba"
    assert (answer["tokens_in"], answer["tokens_out"], answer["model"]) == (11, 7, "m-2")
    assert (assistant.calls, assistant.tokens_in, assistant.tokens_out) == (1, 11, 7)
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "abc"}],
        "temperature": 1.0,
        "max_tokens": 60,
        "stop": ["\n"],
        "seed": 3,
        "top_p": 0.5,
    }


def test_a_base_model_is_sent_one_text() -> None:
    with FaultServer(lambda path, body: plain(" on")) as server:
        assistant = OpenAIAssistant("m", server.url, {"endpoint": "completions"})
        payload = Completion((Message("system", "one"), Message("user", "two")), 0.0, 5)
        (answer,) = run(assistant, [payload])
    assert answer["text"] == " on"
    assert server.requests[0][0] == "/v1/completions"
    assert server.requests[0][1]["prompt"] == "one\n\ntwo"
    assert "seed" not in server.requests[0][1]
    assert not assistant.has("chat")


@pytest.mark.parametrize("fault", PASSING)
def test_what_fails_for_a_passing_reason_is_asked_again(fault: str) -> None:
    with FaultServer(echo_last, lambda n: fault if n == 1 else None, stall=0.8) as server:
        assistant = OpenAIAssistant("m", server.url, {**QUICK, "jobs": 1})
        answers = run(assistant, [asking(text) for text in ("ab", "cd", "ef")])
    assert [answer["text"] for answer in answers] == ["ba", "dc", "fe"]
    assert len(server.requests) == 4
    assert len(set(server.whole)) == len(server.whole) == 3


def test_retry_after_is_honoured() -> None:
    """The server asks for more patience than the client's own backoff has."""
    with FaultServer(echo_last, lambda n: "429" if n == 0 else None) as server:
        began = time.monotonic()
        run(OpenAIAssistant("m", server.url, QUICK), [asking("x")])
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("500", "http-500"), ("429", "http-429"), ("400", "refused"), ("cut", "connection"),
     ("half", "malformed"), ("not-json", "malformed"), ("two-choices", "malformed")],
)  # fmt: skip
def test_what_keeps_failing_is_a_failure_of_that_ask_alone(fault: str, kind: str) -> None:
    def when_bad(number: int) -> str | None:
        return fault if "bad" in str(server.requests[number][1]["messages"]) else None

    with FaultServer(echo_last, when_bad) as server:
        first, second, third = run(
            OpenAIAssistant("m", server.url, {**QUICK, "jobs": 1}), [asking("a"), asking("bad"), asking("b")]
        )
    assert (first["text"], third["text"]) == ("a", "b")
    assert isinstance(second, Failure)
    assert second.kind == kind


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_what_can_never_work_ends_the_run_at_once(status: str) -> None:
    with FaultServer(echo_last, lambda number: status) as server:
        assistant = OpenAIAssistant("m", server.url, {**QUICK, "jobs": 2})
        with pytest.raises(ModelError, match=status):
            run(assistant, [asking(str(n)) for n in range(50)])
    assert len(server.requests) <= 4


def test_no_server_is_an_error_that_says_so() -> None:
    with FaultServer(echo_last) as server:
        pass
    assistant = OpenAIAssistant("m", server.url, {"retries": 0, "identity": "x"})
    with pytest.raises(ModelError, match="cannot be reached"):
        run(assistant, [asking("a")])


def test_answers_that_arrived_come_before_the_error_that_ends_the_run() -> None:
    with FaultServer(echo_last, lambda number: "401" if number >= 3 else None) as server:
        assistant = OpenAIAssistant("m", server.url, {**QUICK, "jobs": 1})
        waiting = [Ask(str(n), Question("t", 1, {}, assistant, asking("ab"))) for n in range(9)]
        seen = []
        with pytest.raises(ModelError):
            for batch in assistant.answer(lambda wanted: [waiting.pop(0)] if waiting else []):
                seen += batch
    assert len(seen) == 3


def test_calls_are_under_way_together_but_no_more_than_asked_for() -> None:
    def slowly(path: str, body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05)
        return echo_last(path, body)

    with FaultServer(slowly) as server:
        began = time.monotonic()
        run(OpenAIAssistant("m", server.url, {"jobs": 5}), [asking(str(n)) for n in range(40)])
        took = time.monotonic() - began
    assert server.most == 5
    assert took < 40 * 0.05


def test_an_ask_that_comes_late_does_not_wait_for_those_under_way() -> None:
    """A pipe's next unit may arrive while calls are under way: connections that are free take it."""
    release = threading.Event()

    def slowly(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "first" in str(body):
            release.wait(5)
        return echo_last(path, body)

    with FaultServer(slowly) as server:
        assistant = OpenAIAssistant("m", server.url)
        late = [Ask("0", Question("t", 1, {}, assistant, asking("first"))), None]
        late += [Ask("1", Question("t", 1, {}, assistant, asking("second")))]

        def pull(wanted: int) -> list[Ask]:
            ask = late.pop(0) if late else None
            return [] if ask is None else [ask]

        order = []
        for batch in assistant.answer(pull):
            order += [ask.digest for ask, _ in batch]
            release.set()
    assert sorted(order) == ["0", "1"]
    assert order[0] == "1"


def test_no_more_calls_than_admitted() -> None:
    with FaultServer(echo_last) as server:
        answers = run(OpenAIAssistant("m", server.url, {"max-calls": 2}), [asking(str(n)) for n in range(5)])
    assert len(server.requests) == 2
    assert [isinstance(a, Failure) and a.kind for a in answers] == [False, False] + ["max-calls"] * 3


def test_fields_that_a_model_refuses_go_by_their_other_name() -> None:
    def picky(path: str, body: dict[str, Any]) -> dict[str, Any]:
        for field in ("max_tokens", "seed"):
            if field in body:
                return {"error": {"message": f"Unsupported parameter: '{field}'", "param": field}}
        return echo_last(path, body)

    with FaultServer(picky) as server:
        assistant = OpenAIAssistant("m", server.url, {"jobs": 1})
        answers = run(assistant, [asking("ab"), asking("cd")])
    assert [answer["text"] for answer in answers] == ["ba", "dc"]
    assert server.requests[-1][1]["max_completion_tokens"] == 60
    assert len(server.requests) == 4  # learned once


def test_a_server_whose_model_knows_no_system_message_is_asked_without() -> None:
    def gemma(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["messages"][0]["role"] == "system":
            return {"error": {"message": "System role not supported"}}
        return echo_last(path, body)

    with FaultServer(gemma) as server:
        assistant = OpenAIAssistant("m", server.url, {"jobs": 1})
        payload = Completion((Message("system", "ab"), Message("user", "cd")), 0.0, 5)
        answers = run(assistant, [payload, payload])
    assert [answer["text"] for answer in answers] == ["dc\n\nba"] * 2
    assert len(server.requests) == 3  # learned once


# Several draws in one call


def draws(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """As many choices as are wanted, each with its number behind the text; the last one first."""
    answer = echo_last(path, body)
    (choice,) = answer["choices"]
    answer["choices"] = [
        {
            **choice,
            "index": n,
            "message": {"role": "assistant", "content": f"{choice['message']['content']}{n}"},
        }
        for n in reversed(range(body.get("n", 1)))
    ]
    return answer


def test_draws_of_one_prompt_are_one_call_and_share_what_it_cost() -> None:
    wanted = [asking("ab", draw) for draw in range(3)] + [asking("cd"), asking("ef", 5, logprobs=2)]
    with FaultServer(draws) as server:
        assistant = OpenAIAssistant("m", server.url, {"jobs": 1})
        answers = run(assistant, wanted)
    assert [answer["text"] for answer in answers] == ["ba0", "ba1", "ba2", "dc0", "fe0"]
    assert [body.get("n") for _, body in server.requests] == [3, None, None]
    assert [body.get("seed") for _, body in server.requests] == [None, 0, 5]
    assert [answer["tokens_in"] for answer in answers[:3]] == [4, 4, 3]
    assert [answer["tokens_out"] for answer in answers[:3]] == [3, 2, 2]
    assert [answer.get("together") for answer in answers] == [3, 3, 3, None, None]
    assert (assistant.calls, assistant.tokens_in) == (3, 33)


def test_without_temperature_there_is_nothing_to_draw() -> None:
    with FaultServer(draws) as server:
        payload = Completion((Message("user", "a"),), 0.0, 5)
        run(OpenAIAssistant("m", server.url), [payload, Completion(payload.messages, 0.0, 5, draw=1)])
    assert [body.get("n") for _, body in server.requests] == [None, None]


@pytest.mark.parametrize(("gives", "sent"), [(1, [4, None, None, None, None]), (2, [4, None, None, None])])
def test_a_server_that_gives_fewer_is_asked_for_the_others_one_by_one(gives: int, sent: list[Any]) -> None:
    def few(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return draws(path, body | {"n": min(gives, body.get("n", 1))})

    with FaultServer(few) as server:
        assistant = OpenAIAssistant("m", server.url, {"jobs": 1})
        answers = run(assistant, [asking("ab", draw) for draw in range(4)] + [asking("cd")])
    assert [answer["text"] for answer in answers] == [f"ba{n}" for n in range(gives)] + ["ba0"] * (
        4 - gives
    ) + ["dc0"]
    assert [body.get("n") for _, body in server.requests] == sent
    seeds = [body.get("seed") for _, body in server.requests]
    assert seeds == [None, *range(gives, 4), 0]  # no draw that was answered is asked for again


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_several_is_asked_for_each(status: int) -> None:
    def picky(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "n" in body:
            return {"error": {"message": "n must be 1"}, "status": status}
        return echo_last(path, body)

    with FaultServer(picky) as server:
        answers = run(
            OpenAIAssistant("m", server.url, {**QUICK, "jobs": 1}),
            [asking(text, draw) for text in ("ab", "cd") for draw in range(3)],
        )
    assert [answer["text"] for answer in answers] == ["ba"] * 3 + ["dc"] * 3
    assert [body.get("n") for _, body in server.requests] == [3, None, None, None, None, None, None]


@pytest.mark.parametrize("fault", PASSING)
def test_several_draws_through_faults(fault: str) -> None:
    """Twice as many choices as were wanted, or none, are no answer."""
    with FaultServer(draws, lambda n: fault if n == 0 else None, stall=0.8) as server:
        assistant = OpenAIAssistant("m", server.url, {**QUICK, "jobs": 1})
        answers = run(assistant, [asking("ab", draw) for draw in range(3)])
    assert [answer["text"] for answer in answers] == ["ba0", "ba1", "ba2"]
    assert len(server.requests) == 2


def test_what_never_comes_whole_is_asked_for_one_by_one() -> None:
    with FaultServer(draws, lambda n: "two-choices" if n < 3 else None) as server:
        answers = run(OpenAIAssistant("m", server.url, {"jobs": 1}), [asking("ab", n) for n in range(2)])
    assert [answer["text"] for answer in answers] == ["ba0", "ba0"]
    assert [body.get("n") for _, body in server.requests] == [2, 2, 2, None, None]


def test_of_several_draws_only_the_missing_ones_are_asked_for(tmp_path: Path) -> None:
    """Each draw is an answer of its own in the store."""

    def guesses(path: str, body: dict[str, Any]) -> dict[str, Any]:
        number = len(server.requests)
        answer = draws(path, body)
        for choice in answer["choices"]:
            choice["message"]["content"] = f"Explanation: guess {number} {choice['index']}"
        return answer

    def explained(candidates: int) -> list[dict[str, Any]]:
        how = Explaining(Asking(OpenAIAssistant("m", server.url)), form="marked", candidates=candidates)
        line = unit([("evidence", "top", [(" a", 1.0), (" b", 0.0)])])
        with Store(tmp_path / "store") as store:
            (out,) = Loop(iter([line]), Explainer(how).step, store)
        return list(out["explanations"])

    with FaultServer(guesses) as server:
        few, more = explained(3), explained(5)
    assert [body.get("n") for _, body in server.requests] == [3, 2]
    assert [e["text"] for e in few] == [f"guess 1 {n}" for n in range(3)]
    assert [e["text"] for e in more] == [e["text"] for e in few] + ["guess 2 0", "guess 2 1"]
    assert few[0]["usage"] == {"calls": 1, "tokens_in": 11, "tokens_out": 7}
    assert more[0]["usage"] == {"calls": 2, "tokens_in": 22, "tokens_out": 14}


def test_a_dry_run_counts_draws_of_one_prompt_as_a_call(tmp_path: Path) -> None:
    dry = DryRun()
    how = Explaining(Asking(OpenAIAssistant("gpt"), dry), form="marked", candidates=3)
    lines = [unit([("evidence", "top", [(text, 1.0), (" b", 0.0)])]) for text in (" a", " c")]
    with Store(tmp_path / "store") as store:
        list(Loop(iter(lines), Explainer(how).step, store))
    assert dry.calls == 2
    assert dry.tokens_out == 2 * 3 * 200


# Who it is


def test_a_local_server_is_asked_what_it_serves_and_a_hosted_one_is_not() -> None:
    with FaultServer(echo_last, served=("weights-a",)) as server:
        first = OpenAIAssistant("default", server.url).identity()
        assert first == OpenAIAssistant("default", server.url).identity()
        assert server.asked_for_models == 2
        assert server.requests == []
    assert first["server"] == {"id": "weights-a"}
    assert OpenAIAssistant("gpt").identity()["server"] is None  # no call: it would fail here


def test_an_identity_of_ones_own_needs_no_server() -> None:
    found = OpenAIAssistant("m", "http://127.0.0.1:9/v1", {"identity": "seven", "top_k": 5}).identity()
    assert found == {"engine": "openai", "identity": "seven", "endpoint": "chat", "options": {"top_k": 5}}


def test_settings_of_the_calls_are_no_part_of_the_identity() -> None:
    one, other = (OpenAIAssistant("m", None, {"jobs": jobs, "timeout": 9}).identity() for jobs in (1, 8))
    assert one == other
    assert one != OpenAIAssistant("m", None, {"top_k": 5}).identity()


def test_keys_go_where_they_belong_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's key is not for whoever stands behind --base-url; what a server repeats is not passed on."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai")

    def tell(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"error": {"message": f"your key is {server.headers[-1]['authorization']}"}}

    with FaultServer(tell) as server:
        run(OpenAIAssistant("m", server.url), [asking("a")])
        assert "sk-for-openai" not in str(server.headers)
        monkeypatch.setenv("NXTOOLS_API_KEY", "secret-for-here")
        assistant = OpenAIAssistant("m", server.url)
        (failed,) = run(assistant, [asking("a")])
        assert server.headers[-1]["authorization"] == "Bearer secret-for-here"
        monkeypatch.delenv("NXTOOLS_API_KEY")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        run(OpenAIAssistant("m"), [asking("a")])
        assert server.headers[-1]["authorization"] == "Bearer sk-for-openai"
    assert "secret" not in str(failed) + str(assistant.identity())
    assert failed.kind == "refused"


@pytest.mark.parametrize("url", ["127.0.0.1:80", "http://user:pass@host/v1", "ftp://host"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as found:
        OpenAIAssistant("m", url)
    assert "pass" not in str(found.value)


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="jobs"):
        OpenAIAssistant("m", None, {"jobs": "many"})
    with pytest.raises(UsageError, match="endpoint"):
        OpenAIAssistant("m", None, {"endpoint": "both"})


# What it can do

WORDS = ["unknown", "10", "\t", "\n"]  # a tokenizer: these, or else single characters


def split(text: str, words: list[str] = WORDS) -> Iterator[str]:
    while text:
        token = next((word for word in words if text.startswith(word)), text[0])
        yield token
        text = text[len(token) :]


def spread(seen: str) -> dict[str, float]:
    """A made-up model's distribution over the next token, which depends on all that was seen."""
    seed = hashlib.sha256(seen.encode()).digest()
    weights = {token: 1 + seed[place] for place, token in enumerate(["0", "3", "10", "a", "b", "\n"])}
    total = sum(weights.values())
    return {token: math.log(weight / total) for token, weight in weights.items()}


def completions(shift: int = 0, words: list[str] = WORDS, bos: bool = True) -> Any:
    """A server with echo, whose log-probabilities may be shifted against the tokens."""

    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path != "/v1/completions":
            return {"error": {"message": "chat only"}}
        text = body["prompt"]
        if not body["echo"]:
            return plain("a", [("a", spread(text))])
        tokens = (["<s>"] if bos else []) + list(split(text, words)) + ["a"]
        seen, found = "", []
        for token in tokens:
            found.append(spread(seen) if seen or token != tokens[0] else None)
            seen += "" if token == "<s>" else token
        if not shift:
            return plain("".join(tokens), list(zip(tokens, found, strict=True)))
        moved = found[-shift:] + found[:-shift] if shift > 0 else found[-shift:] + [spread(seen)] * -shift
        return plain("".join(tokens), list(zip(tokens, moved, strict=True)))

    return answer


SLOTS = Slots(
    prefix=("Numbers follow.\n",),
    explanation=("cats\n",),
    excerpt=("a", "\t", Slot("unknown"), "\n", "b", "\t", Slot("unknown"), "\n"),
)


@pytest.mark.parametrize("shift", [0, 1, -1])
@pytest.mark.parametrize("bos", [True, False])
def test_slots_read_what_a_prompt_that_ends_there_would_give(shift: int, bos: bool) -> None:
    with FaultServer(completions(shift, bos=bos)) as server:
        assistant = OpenAIAssistant("m", server.url)
        assert assistant.has("slots")
        assert assistant.has("slots")
        assert len(server.requests) == 2  # remembered
        (answer,) = run(assistant, [SLOTS])
    for place, prompt in enumerate(["Numbers follow.\ncats\na\t", "Numbers follow.\ncats\na\tunknown\nb\t"]):
        numbers = {t: math.exp(p) for t, p in spread(prompt).items() if t in ("0", "3", "10")}
        mass = sum(numbers.values())
        assert answer["mass"][place] == pytest.approx(mass, abs=1e-3)
        row = answer["probabilities"][place]
        assert sum(row) == pytest.approx(1)
        assert [row[0], row[3], row[10]] == pytest.approx(
            [numbers[n] / mass for n in ("0", "3", "10")], abs=1e-3
        )


def test_an_echo_that_says_something_else_is_not_trusted() -> None:
    with FaultServer(completions(shift=3)) as server:
        assert not OpenAIAssistant("m", server.url).has("slots")


@pytest.mark.parametrize(("words", "top"), [(WORDS, 10), (["unknown", "\t", "\n"], 9)])
def test_where_digits_are_split_ten_is_written_and_read_as_nine(words: list[str], top: int) -> None:
    """The mass on "1" would else hold the tens."""
    prompt = Slots(("one\t", Number(1), "\nten\t", Number(10), "\n"), ("cats\n",), ("a\t", Slot("unknown")))
    with FaultServer(completions(words=words)) as server:
        (answer,) = run(OpenAIAssistant("m", server.url), [prompt])
    assert server.requests[-1][1]["prompt"] == f"one\t1\nten\t{top}\ncats\na\tunknown"
    assert answer["top"] == top
    assert (answer["probabilities"][0][10] > 0) == (top == 10)
    assert sum(answer["probabilities"][0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shift", [0, 1, -1])
@pytest.mark.parametrize("bos", [True, False])
def test_a_passage_is_as_likely_as_the_echo_says_wherever_it_says_so(shift: int, bos: bool) -> None:
    passage = Passage("Numbers follow.\n", "ab3\n10ba\n")
    with FaultServer(completions(shift, bos=bos)) as server:
        (answer,) = run(OpenAIAssistant("m", server.url), [passage])
    read, expected = passage.before, []
    for token in split(passage.text, WORDS):
        expected.append(spread(read)[token])
        read += token
    assert answer["logprobs"] == pytest.approx(expected[1:], abs=1e-4)  # of all but the first


def test_a_passage_of_which_a_token_is_not_listed_is_a_failure() -> None:
    """Where the echo is shifted, only the likeliest tokens are: nothing is made of the others."""

    def rare(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = completions(-1, bos=False)(path, body)
        for row in answer["choices"][0]["logprobs"]["top_logprobs"]:
            if row is not None and "rare" in body["prompt"]:
                row.pop("b", None)
        return answer

    with FaultServer(rare) as server:
        found, failed = run(
            OpenAIAssistant("m", server.url), [Passage("a\n", "ab\n"), Passage("rare\n", "ab\n")]
        )
    assert len(found["logprobs"]) == 2
    assert isinstance(failed, Failure) and failed.kind == "passages"
    assert "--with-option logprobs=N" in failed.message


def test_slots_without_an_echo_are_a_failure() -> None:
    with FaultServer(echo_last, lambda number: "404") as server:
        (failed,) = run(OpenAIAssistant("m", server.url), [SLOTS])
    assert isinstance(failed, Failure)
    assert failed.kind == "slots"


@pytest.mark.parametrize("fault", ["500", "404", "400"])
def test_a_server_that_fails_when_tried_out_cannot_do_it(fault: str) -> None:
    with FaultServer(completions(), lambda number: fault) as server:
        assert not OpenAIAssistant("m", server.url, QUICK).has("slots")


@pytest.mark.parametrize("fault", ["429", "503", "cut"])
def test_a_server_that_is_busy_when_tried_out_is_tried_again(fault: str) -> None:
    """What it can do is kept in the store: a passing failure must not stand there for good."""
    with FaultServer(completions(), lambda number: fault if number < 3 else None) as server:
        assert OpenAIAssistant("m", server.url, QUICK).has("slots")
    with (
        FaultServer(completions(), lambda number: fault if number else None) as server,
        pytest.raises(ModelError, match="could not be tried out"),
    ):
        OpenAIAssistant("m", server.url, {"timeout": 0.5, "retries": 0}).has("slots")


def test_abilities_are_tried_and_not_believed() -> None:
    def able(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "grammar" in body:
            return chat("<7>")
        if "response_format" in body:
            return chat('{"number": 7}')
        return chat("Hi", [("Hi", {"Hi": -0.1, "Oh": -3.0})] if body.get("logprobs") else None)

    for answer, expected in ((able, True), (lambda path, body: chat("Hello!"), False)):
        with FaultServer(answer) as server:
            assistant = OpenAIAssistant("m", server.url)
            found = {ability: assistant.has(ability) for ability in ("grammar", "schema", "logprobs")}
        assert found == dict.fromkeys(found, expected)


def test_logprobs_of_what_is_written() -> None:
    tokens = [("4", {"4": -0.5, "5": -1.0}), ("\n", {"\n": -0.1})]
    with FaultServer(lambda path, body: chat("4\n", tokens)) as server:
        (answer,) = run(OpenAIAssistant("m", server.url), [asking("a", logprobs=5)])
    assert server.requests[0][1]["top_logprobs"] == 5
    assert answer["tokens"] == [
        {"text": "4", "logprobs": {"4": -0.5, "5": -1.0}},
        {"text": "\n", "logprobs": {"\n": -0.1}},
    ]


# Ctrl-C

INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have their background jobs ignore it
from nxtools.assistant.openai_api import OpenAIAssistant
from nxtools.assistant.protocol import Completion, Message
from nxtools.stage import Ask, Question
assistant = OpenAIAssistant("m", sys.argv[1], {"jobs": 4})
asks = [Ask(str(n), Question("t", 1, {}, assistant, Completion((Message("user", str(n)),), 1.0, 9)))
        for n in range(1000)]
try:
    for batch in assistant.answer(lambda wanted: [asks.pop(0)]):
        for ask, answer in batch:
            print(ask.digest, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_loses_no_answer_that_is_paid_for() -> None:
    def slowly(path: str, body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return echo_last(path, body)

    with FaultServer(slowly) as server:
        root = Path(__file__).parent.parent
        child = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.url], stdout=subprocess.PIPE, cwd=root, text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert child.stdout is not None
        first = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        printed = (first + child.stdout.read()).split()
        assert child.wait(20) == 0
    assert printed[-1] == "interrupted"
    assert len(printed) - 1 == len(server.requests) < 1000
