"""llama.cpp as an assistant: the real library on real files with random weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked import answered_logs, ask, number_logs, prompts, tokens_once
from gguf_model import CHAT, Vocabulary, byte_level, sentencepiece, write_gguf

from nxtools.assistant.llama import LlamaAssistant
from nxtools.assistant.open import open_assistant
from nxtools.assistant.protocol import Completion, Message, Slot, Slots
from nxtools.assistant.slots import lay_out
from nxtools.errors import ModelError
from nxtools.stage import Ask, Failure, Loop, Question, Step
from nxtools.store import Store
from nxtools.stream import Record

llama_cpp = pytest.importorskip("llama_cpp")

VOCABULARIES = {"byte-level": byte_level, "sentencepiece": sentencepiece}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, Callable[[], Vocabulary]] = VOCABULARIES
    return {name: write_gguf(folder / f"{name}.gguf", vocabulary=make()) for name, make in made.items()}


def opened(path: Path, store: Store, **options: str) -> LlamaAssistant:
    options = {"n_threads": "1"} | options  # small calls would mostly wait for each other
    assistant = open_assistant(f"llama:{path}", store, options=options)
    assert isinstance(assistant, LlamaAssistant)
    return assistant


def plain_logits(path: Path, ids: tuple[int, ...]) -> Any:
    """Logits (tokens, vocabulary) of a prompt read from its beginning, by llama-cpp-python's own class."""
    model = llama_cpp.Llama(str(path), n_ctx=1024, logits_all=True, n_threads_batch=1, verbose=False)
    model.eval(list(ids))
    return np.array(model.scores[: len(ids)])


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("options", [{}, {"n_batch": "7"}], ids=["large calls", "small calls"])
def test_answers_are_those_of_whole_prompts(
    files: dict[str, Path], store: Store, name: str, options: dict[str, str]
) -> None:
    assistant = opened(files[name], store, **options)
    asked = prompts(3, 3)
    answers = ask(assistant, asked)
    tokens = assistant.tokenizer.tokens
    compared = 0
    for payload, answer in list(zip(asked, answers, strict=True))[::4]:
        prompt = lay_out(payload, tokens)
        shared = len(prompt.ids) - len(prompt.excerpt)
        logits = plain_logits(files[name], prompt.ids)[[shared + place for place in prompt.reads]]
        found, wanted = answered_logs(answer), number_logs(logits, tokens.numbers)
        known = ~np.isnan(found)
        assert np.abs(found - wanted)[known].max() < 1e-2
        assert answer["top"] == tokens.top and len(answer["mass"]) == len(prompt.reads)
        compared += int(known.sum())
    assert compared > 50


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_each_token_is_read_once(files: dict[str, Path], store: Store, at_once: int) -> None:
    assistant = opened(files["byte-level"], store, n_batch="64")
    asked = prompts(5, 4)
    answers = ask(assistant, asked, at_once=at_once)
    laid_out = [lay_out(one, assistant.tokenizer.tokens) for one in asked]
    assert assistant.effort.evaluated == tokens_once(laid_out)
    assert assistant.effort.loads == 1
    alone = opened(files["byte-level"], store)
    assert np.nanmax(np.abs(answered_logs(ask(alone, asked[7:8])[0]) - answered_logs(answers[7]))) < 1e-2


def test_an_answer_given_up_half_way_leaves_no_trace(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store, n_batch="32")
    asked = prompts(3, 3)
    asks = [Ask("", Question("simulate.test", 1, {}, assistant, one)) for one in asked]
    answers = assistant.answer(lambda wanted: asks)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    again = ask(assistant, asked)
    fresh = ask(opened(files["byte-level"], store, n_batch="32"), asked)
    assert again == fresh


def test_other_instructions_take_the_place_of_the_first(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store)
    first, second = prompts(2, 2), prompts(2, 2, examples=3)
    mixed = [one for pair in zip(first, second, strict=True) for one in pair]
    answers = ask(assistant, mixed)
    assert answers[1::2] == ask(opened(files["byte-level"], store), second)


def test_a_prompt_without_slots_has_nothing_to_say(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store)
    assert ask(assistant, [Slots(("a",), ("b",), ("c",))]) == [{"probabilities": [], "mass": [], "top": 10}]


def test_where_memory_is_short_calls_are_smaller(
    files: dict[str, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nxtools.assistant import llama_library

    asked = prompts(3, 3)
    wanted = ask(opened(files["byte-level"], store), asked)
    real = llama_library.Memory

    def poor(model: Any, *, batch: int, **others: Any) -> Any:
        if batch > 128:
            raise ModelError("no memory")
        return real(model, batch=batch, **others)

    monkeypatch.setattr(llama_library, "Memory", poor)
    found = ask(opened(files["byte-level"], store), asked)
    for one, other in zip(found, wanted, strict=True):
        assert np.nanmax(np.abs(answered_logs(one) - answered_logs(other))) < 1e-2


# What does not fit


def test_prompts_that_are_too_long_stop_the_run_before_the_model_is_loaded(
    files: dict[str, Path], store: Store
) -> None:
    assistant = opened(files["byte-level"], store, n_ctx="100")
    with pytest.raises(
        ModelError, match=r"takes \d+ tokens \(instructions and examples \d+.*context has 100"
    ):
        ask(assistant, prompts(2, 2))
    assert assistant.effort.loads == 0


def test_one_explanation_that_is_too_long_is_its_own_failure(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store, n_ctx="400")
    good, other = prompts(1, 2)
    failure, answer = ask(assistant, [Slots(good.prefix, ("words " * 300,), good.excerpt), other])
    assert isinstance(failure, Failure) and failure.kind == "context" and failure.stage == "simulate"
    assert "explanation" in failure.message and answer["mass"]


def test_a_completion_needs_room_for_its_answer(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store, n_ctx="50")
    with pytest.raises(ModelError, match="the answer up to 60; the context has 50"):
        ask(assistant, [written("Hello", max_tokens=60)])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, store: Store) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"broken.gguf.*cannot load"):
        ask(opened(broken, store), prompts(1, 1))


# Completions


def written(text: str, **settings: Any) -> Completion:
    return Completion(
        **{"messages": (Message("user", text),), "temperature": 0.0, "max_tokens": 8} | settings
    )


def test_without_temperature_the_likeliest_tokens_are_written(files: dict[str, Path], store: Store) -> None:
    path = files["byte-level"]
    texts = ["The cat knows", "The cat", "Something else that is longer than the others"]
    answers = ask(opened(path, store), [written(text) for text in texts])
    model = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False)
    for text, answer in zip(texts, answers, strict=True):
        said = model.create_completion(text, max_tokens=8, temperature=0)
        assert answer["text"].rstrip("�") == said["choices"][0]["text"].rstrip("�")
        assert answer["tokens_in"] == said["usage"]["prompt_tokens"]


def test_a_draw_is_the_same_each_time_and_unlike_the_others(files: dict[str, Path], store: Store) -> None:
    drawn = [written("The cat", temperature=1.0, draw=draw) for draw in range(20)]
    assistant = opened(files["byte-level"], store)
    texts = [answer["text"] for answer in ask(assistant, drawn)]
    assert len(set(texts)) == 20
    prompt = len(assistant.tokenizer.chat.ids(drawn[0].messages))
    assert assistant.effort.evaluated <= prompt + 20 * 8  # the prompt is read once, for all of them
    assert texts == [answer["text"] for answer in ask(opened(files["byte-level"], store), drawn, at_once=3)]


def test_what_prompts_begin_with_is_read_once(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store)
    asked = [written("Many words about cats. " * 20 + str(number), max_tokens=1) for number in range(40)]
    ask(assistant, asked)
    prompt = len(assistant.tokenizer.chat.ids(asked[0].messages))
    assert assistant.effort.evaluated < prompt + 40 * 10


def test_an_answer_is_held_to_a_grammar_or_a_schema(files: dict[str, Path], store: Store) -> None:
    numbers = {
        "type": "array",
        "items": {"$ref": "#/$defs/n"},
        "minItems": 3,
        "maxItems": 3,
        "$defs": {"n": {"type": "integer", "enum": list(range(11))}},
    }
    one, other, ten = ask(
        opened(files["sentencepiece"], store),
        [
            written("x", grammar='root ::= "yes" | "no"'),
            written("x", schema=numbers, max_tokens=40, temperature=1.0),
            written("x", grammar="root ::= [0-9]{10}", max_tokens=40),
        ],
    )
    assert one["text"] in ("yes", "no") and one["finish"] == "stop"
    values = [int(value) for value in other["text"].strip("[] \n").split(",")]
    assert len(values) == 3 and set(values) <= set(range(11))
    assert len(ten["text"]) == 10 and ten["text"].isdigit()
    with pytest.raises(ModelError, match="grammar"):
        ask(opened(files["sentencepiece"], store), [written("x", grammar="root ::= (")])


def test_log_probabilities_come_with_each_token(files: dict[str, Path], store: Store) -> None:
    (answer,) = ask(opened(files["byte-level"], store), [written("The cat knows", logprobs=2000)])
    assert len(answer["tokens"]) == answer["tokens_out"] == 8
    for token in answer["tokens"]:
        assert max(token["logprobs"].values()) == token["logprobs"][token["text"]]  # temperature 0
    assert "".join(token["text"] for token in answer["tokens"][:1]) in answer["text"]
    total = sum(np.exp(list(answer["tokens"][0]["logprobs"].values())))
    assert 0.9 < total <= 1.001  # some tokens have the same text


def test_an_answer_ends_where_it_is_told_to(files: dict[str, Path], store: Store) -> None:
    assistant = opened(files["byte-level"], store)
    (whole,) = ask(assistant, [written("The cat knows", max_tokens=20)])
    stop = whole["text"][5:8]
    (cut,) = ask(assistant, [written("The cat knows", max_tokens=20, stop=(stop,))])
    assert cut["text"] == whole["text"][: whole["text"].find(stop)] and cut["finish"] == "stop"
    assert whole["finish"] == "length" and cut["tokens_out"] < whole["tokens_out"]


def test_the_chat_template_of_the_file_is_used(tmp_path: Path, store: Store) -> None:
    assistant = opened(write_gguf(tmp_path / "chat.gguf", chat=CHAT), store)
    assert assistant.has("chat")
    (answer,) = ask(assistant, [written("Hello<|endoftext|>")])
    plain = opened(write_gguf(tmp_path / "plain.gguf"), store)
    assert not plain.has("chat")
    said = "<|endoftext|>user\nHello<|endoftext|>\n<|endoftext|>assistant\n"
    wanted = [*assistant.tokenizer.tokens.piece("Hello<|endoftext|>")]
    assert 0 not in wanted and answer["tokens_in"] > len(wanted) + 2
    assert ask(plain, [written(said)])[0]["tokens_in"] > answer["tokens_in"]  # there all of it is text


def test_a_model_whose_template_knows_no_system_message_is_asked_all_the_same(
    tmp_path: Path, store: Store
) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT
    assistant = opened(write_gguf(tmp_path / "chat.gguf", chat=refuses), store)
    turns = (Message("system", "Be brief."), Message("user", "Hello"))
    merged = (Message("user", "Be brief.\n\nHello"),)
    one, other = ask(assistant, [Completion(messages, 0.0, 8) for messages in (turns, merged)])
    assert one == other


# With the loop and the store


def simulation(engine: Any, payload: Slots) -> Step:
    excerpt = [getattr(piece, "filler", piece) for piece in payload.excerpt]
    fields = {
        "identity": engine.identity(),
        "prompt": [*map(str, payload.prefix), *payload.explanation, *excerpt],
    }
    answers = yield [Question("simulate.test", 1, fields, engine, payload)]
    return {"answer": answers[0]}


def test_what_is_known_after_a_long_prefix_is_kept_for_the_next_run(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nxtools.assistant.llama_prefix.WORTH", 0.0)
    asked = prompts(4, 3)
    path = files["byte-level"]
    with Store(tmp_path / "store") as store:
        first, second = opened(path, store), opened(path, store, n_batch="64")
        ask(first, asked[:6])
        found = ask(second, asked[6:])
        laid_out = [lay_out(one, second.tokenizer.tokens) for one in asked[6:]]
        prefix = laid_out[0].prefix
        assert second.effort.evaluated == tokens_once(laid_out) - len(prefix)
        for one, other in zip(found, ask(opened(path, Store(tmp_path / "2")), asked[6:]), strict=True):
            assert np.nanmax(np.abs(answered_logs(one) - answered_logs(other))) < 1e-2
        other_model = opened(write_gguf(tmp_path / "other.gguf", seed=1), store)
        ask(other_model, asked[:1])
        assert other_model.effort.evaluated > len(prefix)
        # One that was lost, or does not fit, is read again.
        digest = store.put_blob(b"nothing" * 1000, kind="prefix")
        for wrong in (digest, "0" * 64):
            store.remember(name_of_state(path, store, prefix), wrong)
            third = opened(path, store)
            again = ask(third, asked[6:])
            assert third.effort.evaluated == tokens_once(laid_out)
            assert again[0]["mass"] == pytest.approx(found[0]["mass"], rel=1e-2)


def name_of_state(path: Path, store: Store, prefix: tuple[int, ...]) -> str:
    return opened(path, store)._states._name(prefix)


def test_a_second_run_loads_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(3, 2)
    units: list[Record] = [{"n": n} for n in range(len(asked))]

    def run() -> tuple[LlamaAssistant, list[Record]]:
        with Store(tmp_path / "store") as store:
            assistant = opened(files["byte-level"], store)
            assert assistant.has("slots") and assistant.context() == 8192
            loop = Loop(iter(units), lambda unit: simulation(assistant, asked[int(unit["n"])]), store)
            return assistant, list(loop)

    first, answers = run()
    monkeypatch.setattr("nxtools.assistant.llama_library.Model", None)
    second, again = run()
    assert (first.effort.loads, second.effort.loads, second.effort.evaluated) == (1, 0, 0)
    assert again == answers and len(answers) == 6


def test_the_identity_is_that_of_the_file_and_of_what_changes_answers(
    files: dict[str, Path], tmp_path: Path, store: Store
) -> None:
    path = files["byte-level"]
    copied = tmp_path / "copied.gguf"
    copied.write_bytes(path.read_bytes())
    identity = opened(path, store).identity()
    assert identity == opened(copied, store, n_threads="3", n_ctx="512", n_gpu_layers="3").identity()
    others = [
        opened(files["sentencepiece"], store).identity(),
        opened(path, store, rope_freq_base="500000").identity(),
        opened(write_gguf(tmp_path / "other.gguf", seed=1), store).identity(),
    ]
    for one, other in itertools.combinations([identity, *others], 2):
        assert one != other


def test_a_rope_base_reaches_the_model(files: dict[str, Path], store: Store) -> None:
    asked = prompts(1, 1)
    (usual,) = ask(opened(files["byte-level"], store), asked)
    (other,) = ask(opened(files["byte-level"], store, rope_freq_base="1000000"), asked)
    assert np.abs(np.array(usual["mass"]) - other["mass"]).max() > 1e-4


def test_excerpts_may_hold_the_words_of_the_prompt(files: dict[str, Path], store: Store) -> None:
    excerpt = (
        "<end>",
        "\t",
        Slot("unknown"),
        "\n",
        "unknown",
        "\t",
        Slot("unknown"),
        "\n",
        "10",
        "\t",
        Slot("unknown"),
    )
    (answer,) = ask(opened(files["byte-level"], store), [Slots(("Numbers.\n",), ("Cats.\n",), excerpt)])
    assert len(answer["probabilities"]) == len(answer["mass"]) == 3
