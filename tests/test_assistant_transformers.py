"""transformers as an assistant: real models with random weights, each family that subjects come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asked import answered_logs, ask, number_logs, prompts, tokens_once
from assistants import unit
from gguf_model import CHAT, byte_level, sentencepiece, write_folder, write_gguf
from tiny_models import FAMILIES, build, save

from nxtools.assistant.asking import Asking
from nxtools.assistant.open import open_assistant
from nxtools.assistant.protocol import Completion, Message, Slot, Slots
from nxtools.assistant.slots import lay_out
from nxtools.assistant.transformer import TransformersAssistant, choose
from nxtools.errors import ModelError, UsageError
from nxtools.simulate.assistant import Simulating, Simulator
from nxtools.stage import Failure, Loop
from nxtools.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "small")


def opened(folder: Path, store: Store, **options: str) -> TransformersAssistant:
    assistant = open_assistant(f"hf:{folder}", store, options={"device": "cpu", "n_threads": "1"} | options)
    assert isinstance(assistant, TransformersAssistant)
    return assistant


def plain_logits(assistant: TransformersAssistant, ids: tuple[int, ...]) -> Any:
    """Logits (tokens, vocabulary) of a prompt that is read whole, without a cache."""
    with torch.inference_mode():
        return assistant._model.model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def short_prompts() -> list[Slots]:
    """Two explanations with three excerpts each, for models of 64 positions."""
    made = []
    for topic in ("cats", "the dog"):
        for words in (["on", " the"], ["10", " mat", " cat", "x"], ["\n"]):
            excerpt = [piece for word in words for piece in (word, "\t", Slot("?"), "\n")]
            made.append(Slots(("the cat sat\t", "3"), (f"on {topic}\n",), tuple(excerpt)))
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_whole_prompts(family: str, tmp_path: Path, store: Store) -> None:
    assistant = opened(save(build(family), tmp_path / family), store)
    asked = short_prompts()
    answers = ask(assistant, asked)
    tokens = assistant.tokenizer.tokens
    laid_out = [lay_out(one, tokens) for one in asked]
    assert assistant.effort.evaluated == tokens_once(laid_out)
    assert assistant.effort.loads == 1
    compared = 0
    for prompt, answer in zip(laid_out, answers, strict=True):
        shared = len(prompt.ids) - len(prompt.excerpt)
        logits = plain_logits(assistant, prompt.ids)[[shared + place for place in prompt.reads]]
        found, wanted = answered_logs(answer), number_logs(logits, tokens.numbers)
        known = ~np.isnan(found)
        assert np.abs(found - wanted)[known].max() < 1e-3
        compared += int(known.sum())
    assert compared > 20


@pytest.mark.parametrize("at_once", [1, 4, 1000])
@pytest.mark.parametrize("batch", ["40", "4096"])
def test_answers_do_not_depend_on_how_work_was_batched(
    folder: Path, store: Store, at_once: int, batch: str
) -> None:
    assistant = opened(folder, store, n_batch=batch)
    asked = prompts(3, 4)
    answers = ask(assistant, asked, at_once=at_once)
    assert assistant.effort.evaluated == tokens_once(
        [lay_out(one, assistant.tokenizer.tokens) for one in asked]
    )
    alone = ask(opened(folder, store), asked[5:6])[0]
    assert np.nanmax(np.abs(answered_logs(alone) - answered_logs(answers[5]))) < 1e-3


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_it_says_what_llama_cpp_says(make: Any, tmp_path: Path, store: Store) -> None:
    pytest.importorskip("llama_cpp")
    llama = open_assistant(f"llama:{write_gguf(tmp_path / 'm.gguf', vocabulary=make())}", store)
    hf = opened(write_folder(tmp_path / "m", vocabulary=make()), store)
    asked = prompts(2, 2)
    for one, other in zip(ask(llama, asked), ask(hf, asked), strict=True):
        difference = answered_logs(one) - answered_logs(other)
        assert one["top"] == other["top"] and np.nanmax(np.abs(difference)) < 5e-2  # it keeps keys in 16 bits


def test_logits_are_made_only_where_they_are_read(folder: Path, store: Store) -> None:
    assistant = opened(folder, store)
    asked = prompts(1, 3)
    seen: list[int] = []
    unembedding = assistant._model.model.get_output_embeddings()
    unembedding.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    ask(assistant, asked)
    assert sum(seen) == sum(isinstance(piece, Slot) for one in asked for piece in one.excerpt)


# Completions


def written(text: str, **settings: Any) -> Completion:
    return Completion(
        **{"messages": (Message("user", text),), "temperature": 0.0, "max_tokens": 8} | settings
    )


def test_without_temperature_it_writes_what_generate_writes(folder: Path, store: Store) -> None:
    assistant = opened(folder, store)
    texts = ["The cat knows", "The cat", "Something else"]
    for text, answer in zip(texts, ask(assistant, [written(text) for text in texts]), strict=True):
        ids = torch.tensor([assistant.tokenizer.chat.ids((Message("user", text),))])
        made = assistant._model.model.generate(ids, do_sample=False, max_new_tokens=8, pad_token_id=0)
        assert answer["text"] == assistant._decode(made[0, ids.shape[1] :].tolist())
        assert answer["tokens_in"] == ids.shape[1]


def test_a_draw_is_the_same_each_time_and_unlike_the_others(folder: Path, store: Store) -> None:
    drawn = [written("The cat", temperature=1.0, draw=draw) for draw in range(10)]
    assistant = opened(folder, store)
    texts = [answer["text"] for answer in ask(assistant, drawn)]
    assert len(set(texts)) == 10
    prompt = len(assistant.tokenizer.chat.ids(drawn[0].messages))
    assert assistant.effort.evaluated <= prompt + 10 * 8
    assert texts == [answer["text"] for answer in ask(opened(folder, store), drawn, at_once=3)]


def test_draws_follow_the_distribution_at_a_temperature() -> None:
    random = np.random.default_rng(0)
    logits = np.log(np.array([0.5, 0.25, 0.25]))
    drawn = np.bincount([choose(logits, 1.0, random) for _ in range(4000)]) / 4000
    assert np.allclose(drawn, [0.5, 0.25, 0.25], atol=0.03)
    sharper = np.bincount([choose(logits, 0.5, random) for _ in range(4000)]) / 4000
    assert np.allclose(sharper, [2 / 3, 1 / 6, 1 / 6], atol=0.03)


def test_rows_that_are_done_leave_the_others_alone(folder: Path, store: Store) -> None:
    asked = [written("The cat", temperature=1.0, draw=draw, max_tokens=1 + draw % 5) for draw in range(10)]
    together = ask(opened(folder, store), asked)
    assert [answer["tokens_out"] for answer in together] == [1 + draw % 5 for draw in range(10)]
    assert together == [ask(opened(folder, store), [one])[0] for one in asked]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_written_side_by_side_do_not_see_each_other(
    family: str, tmp_path: Path, store: Store
) -> None:
    """Of different lengths, with a common beginning and without; several draws of one among them."""
    folder = save(build(family), tmp_path / family)
    begun = [" the cat", " the cat sat on the mat", " the cat sat", " the dog"]
    for texts in (begun, ["on the mat", *begun]):
        asked = [written(text, logprobs=3) for text in texts]
        asked += [written(text, temperature=1.0, draw=draw) for text in texts[:2] for draw in range(3)]
        together = ask(opened(folder, store), asked)
        alone = opened(folder, store, n_batch="3")
        for answer, payload in zip(together, asked, strict=True):
            (single,) = ask(alone, [payload])
            assert answer["text"] == single["text"]
            assert answer["tokens_in"] == single["tokens_in"]
            for token, other in zip(answer.get("tokens", ()), single.get("tokens", ()), strict=True):
                shared = token["logprobs"].keys() & other["logprobs"].keys()
                assert shared
                assert all(abs(token["logprobs"][t] - other["logprobs"][t]) < 1e-3 for t in shared)


def test_prompts_of_different_lengths_are_written_in_the_same_calls(folder: Path, store: Store) -> None:
    assistant = opened(folder, store)
    model = assistant._model.model
    rows: list[int] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: rows.append(len(args[0])), with_kwargs=True)
    texts = ["The cat sat", "The cat knows", "The cat is not here", "The cat"]
    answers = ask(assistant, [written(text, max_tokens=6) for text in texts])
    assert [answer["tokens_out"] for answer in answers] == [6] * 4
    assert rows == [1, *[4] * 6]  # what they share; the rest of all prompts, and five more tokens of each
    prompts = [assistant.tokenizer.chat.ids((Message("user", text),)) for text in texts]
    shared = len(prompts[-1]) - 1
    assert assistant.effort.evaluated == shared + sum(len(ids) - shared for ids in prompts) + 4 * 5


def test_what_keeps_a_window_is_not_padded(tmp_path: Path, store: Store) -> None:
    """Padding would push tokens out of it."""
    folder = save(build("mistral", sliding_window=8), tmp_path / "window")
    texts = [" the cat sat on the mat the cat sat", " the cat sat on the mat the dog", " the cat sat on"]
    assistant = opened(folder, store)
    together = ask(assistant, [written(text) for text in texts])
    assert not assistant._model.can_pad(assistant._model.empty())
    for text, answer in zip(texts, together, strict=True):
        ids = assistant.tokenizer.chat.ids((Message("user", text),))
        for _ in range(8):
            ids += (int(plain_logits(assistant, ids)[-1].argmax()),)
        assert answer["text"] == assistant._decode(ids[-8:])


def test_an_answer_ends_where_it_is_told_to(folder: Path, store: Store) -> None:
    assistant = opened(folder, store)
    (whole,) = ask(assistant, [written("The cat knows", max_tokens=20)])
    stop = whole["text"][5:8]
    (cut,) = ask(assistant, [written("The cat knows", max_tokens=20, stop=(stop,))])
    assert cut["text"] == whole["text"][: whole["text"].find(stop)] and cut["finish"] == "stop"


def test_log_probabilities_come_with_each_token(folder: Path, store: Store) -> None:
    (answer,) = ask(opened(folder, store), [written("The cat knows", logprobs=3)])
    assert len(answer["tokens"]) == 8
    for token in answer["tokens"]:
        assert max(token["logprobs"].values()) == token["logprobs"][token["text"]] <= 0


def test_the_chat_template_is_used(tmp_path: Path, store: Store, folder: Path) -> None:
    chatty = opened(write_folder(tmp_path / "chatty", chat=CHAT), store)
    assert chatty.has("chat") and not opened(folder, store).has("chat")
    assert chatty.identity() != opened(folder, store).identity()  # the same weights, another template
    ids = chatty.tokenizer.chat.ids([Message("user", "Hello<|endoftext|>")])
    assert ids.count(0) == 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError("can't allocate memory")])
def test_where_memory_is_short_calls_are_smaller(folder: Path, store: Store, error: Any) -> None:
    asked = [*prompts(2, 6), *[written(f"The {word}", temperature=1.0) for word in ("cat", "dog", "tree")]]
    wanted = ask(opened(folder, store), asked)
    assistant = opened(folder, store)
    most = 250

    def poor(module: Any, args: Any, kwargs: Any) -> None:
        if args[0].numel() > most:
            raise error

    assistant._model.model.register_forward_pre_hook(poor, with_kwargs=True)
    found = ask(assistant, asked)
    assert assistant._batch < assistant._most
    for one, other in zip(found[:12], wanted[:12], strict=True):
        assert np.nanmax(np.abs(answered_logs(one) - answered_logs(other))) < 1e-2
    assert [one["text"] for one in found[12:]] == [one["text"] for one in wanted[12:]]
    most = 1
    with pytest.raises(ModelError, match="does not fit on the device"):
        ask(assistant, prompts(1, 1)[:1])


# With the loop and the store


@pytest.mark.parametrize("method", ["all-at-once", "generate"])
def test_a_second_run_loads_no_model_and_asks_nothing(
    method: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("held-out", "top", [(" the", 0.0), (" cat", 5.0)]), ("held-out", "random", [(" a", 0.1)])]
    told = {"id": "e", "text": "animals", "scale": 5.0, "by": {"explainer": "someone"}}

    def simulate() -> tuple[TransformersAssistant, dict[str, Any], Any]:
        with Store(tmp_path / "store") as store:
            assistant = opened(folder, store)
            simulator = Simulator(Simulating(Asking(assistant), method, examples=1))
            line = unit(rows) | {"explanations": [dict(told)]}
            loop = Loop(iter([line]), lambda record: simulator.step(record, ["held-out"]), store)
            (out,) = loop
            return assistant, out, loop.counts

    first, out, counts = simulate()
    assert (first.effort.loads, counts.failed) == (1, 0)
    assert first.effort.evaluated > 100
    monkeypatch.setattr("nxtools.assistant.transformer_library.Model", None)
    monkeypatch.setattr("nxtools.subject.load.load_tokenizer", None)
    second, again, counts = simulate()
    assert again == out
    assert (second.effort.loads, second.effort.evaluated, second.effort.written) == (0, 0, 0)
    assert (counts.computed, counts.failed) == (0, 0)


# What cannot be done


def test_prompts_that_are_too_long_stop_the_run_before_the_model_is_loaded(
    folder: Path, store: Store
) -> None:
    assistant = opened(folder, store, n_ctx="100")
    with pytest.raises(ModelError, match="the context has 100"):
        ask(assistant, prompts(2, 2))
    assert assistant.effort.loads == 0


def test_one_explanation_that_is_too_long_is_its_own_failure(folder: Path, store: Store) -> None:
    good, other = prompts(1, 2)
    long = Slots(good.prefix, ("words " * 300,), good.excerpt)
    failure, answer = ask(opened(folder, store, n_ctx="400"), [long, other])
    assert isinstance(failure, Failure) and failure.kind == "context" and answer["mass"]


def test_answers_cannot_be_held_to_a_grammar(folder: Path, store: Store) -> None:
    assistant = opened(folder, store)
    assert not assistant.has("grammar") and assistant.has("slots")
    with pytest.raises(ModelError, match="grammar"):
        ask(assistant, [written("x", grammar='root ::= "x"')])


def test_what_names_no_assistant_is_said_so(folder: Path, store: Store) -> None:
    for wrong in ("gpt", "llama:", f"lama:{folder}"):
        with pytest.raises(UsageError, match="names no assistant"):
            open_assistant(wrong, store)
    with pytest.raises(UsageError, match="base-url"):
        open_assistant(f"hf:{folder}", store, base_url="http://127.0.0.1")
    with pytest.raises(ModelError, match="no such"):
        open_assistant(f"hf:{folder}/nowhere", store)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr("nxtools.assistant.open.find_spec", lambda package: None)
    with pytest.raises(ModelError, match=r"nxtools\[llama\]"):
        open_assistant("llama:model.gguf", store)


def test_the_identity_names_weights_tokenizer_and_dtype(folder: Path, tmp_path: Path, store: Store) -> None:
    identity = opened(folder, store).identity()
    assert identity == opened(folder, store, n_batch="7").identity()
    assert identity["dtype"] == "float32"
    assert identity != opened(folder, store, dtype="bfloat16").identity()
    assert identity != opened(write_folder(tmp_path / "other", seed=1), store).identity()
