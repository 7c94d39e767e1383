"""nx-contexts: cuts that are what they say, measured on a real subject, once; and figures that hold."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import transformers
from conftest import Ran, Run, shell
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import known_subject
from tiny_models import build, save, stories

from nxtools.contexts.curve import FULL, PRESERVED, Left, curve, rank, shortest
from nxtools.contexts.cuts import Cut, Peaks, cut
from nxtools.recordings.contexts import Contexts
from nxtools.stage import Ask, Failure, Question
from nxtools.store import Store
from nxtools.subject.ends import EndReader
from nxtools.unit import Unit

Record = dict[str, Any]


# The whole way


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path, Path]:
    """Units of a tiny subject, the subject, and the store that knows them; contexts hold two excerpts."""
    subject = save(build("llama"), tmp_path_factory.mktemp("subjects") / "tiny")
    text = stories(tmp_path_factory.mktemp("texts"), 40)
    pipe = (
        f"nx-record -q --subject {subject} --units 0:1,0:5,2:7,2:20 --context 32 --excerpt 16 --bos always "
        f"--pool 20,10,10 --document-tokens 100 --batch 4 {text} | nx-top -q"
    )
    cache = tmp_path_factory.mktemp("store") / "cache"
    return shell(pipe, cache).stdout, subject, cache


def read(data: bytes) -> list[Record]:
    return [orjson.loads(line) for line in data.splitlines()]


def counted(done: Ran) -> dict[str, int]:
    said = re.findall(r"(\d+) (answers computed|taken from the store)", done.stderr.decode())
    return {what.split()[-1]: int(count) for count, what in said}


def lines_of(records: list[Record]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def test_a_cut_context_is_run_as_it_is_described_and_only_once(
    run: Run, environment: dict[str, str], recorded: tuple[bytes, Path, Path]
) -> None:
    units, subject, cache = recorded
    shutil.copytree(cache, environment["NXTOOLS_CACHE"])
    command = f"nx-contexts --subject {subject} --lengths 1,3,20"
    begun = run(command, stdin=units.splitlines(keepends=True)[0])  # and killed, say
    done = run(command, stdin=units)
    assert done.returncode == 0, done.stderr
    assert counted(done)["store"] == counted(begun)["computed"] == 3
    assert counted(run("nx-contexts --lengths 1,2,3,20 --offline", stdin=units))["store"] == 12
    again = run(f"{command} --offline", stdin=units)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert counted(again) == {"store": 12} and b"texts run" not in again.stderr
    told = done.stderr.decode().splitlines()
    assert told[0].split()[-4:] == ["1", "3", "20", "full"] and sum(map(int, told[-2].split()[2:])) == 4
    model = transformers.AutoModel.from_pretrained(subject).eval()
    store = Store(environment["NXTOOLS_CACHE"])
    for record in read(done.stdout):
        assert_measured(record, model, Contexts(record["recorded"], store.open_blob))


def assert_measured(record: Record, model: Any, contexts: Contexts) -> None:
    """Shares on the line against passes of our own, one text at a time."""
    found, layer, index = record["contexts"], record["unit"]["layer"], record["unit"]["index"]
    site = model.layers[layer].mlp.down_proj
    seen: list[float] = []
    handle = site.register_forward_pre_hook(
        lambda module, inputs: seen.append(float(inputs[0][0, -1, index]))
    )
    sides = {"top": 1, "bottom": -1}
    for side in sides.keys() & found.keys():
        shown = [e for e in record["excerpts"] if (e["set"], e["pick"]) == ("evidence", side)]
        full, left, longer = 0.0, np.zeros(3), np.zeros(3, int)
        for excerpt in shown:
            values = [
                sides[side] * value if value is not None else -np.inf for value in excerpt["activations"]
            ]
            peak = int(np.argmax(values))
            context = [*contexts.before(excerpt["id"], 16).tolist(), *excerpt["ids"][: peak + 1]]
            full += values[peak]
            for place, tokens in enumerate((1, 3, 20)):
                if len(context) <= 1 + tokens:
                    left[place] += values[peak]
                    continue
                seen.clear()
                with torch.inference_mode():
                    model(torch.tensor([[context[0], *context[-tokens:]]]))
                left[place] += sides[side] * seen[0]
                longer[place] += 1
        assert found[side]["excerpts"] == len(shown)
        assert found[side]["cut"] == longer.tolist()
        assert longer[0] >= longer[2] > 0  # as some stand behind another excerpt
        assert np.allclose(found[side]["left"], left / full, atol=2e-3)
    handle.remove()


def test_units_that_cannot_be_asked_say_why(run: Run, recorded: tuple[bytes, Path, Path]) -> None:
    (unit, *_) = read(recorded[0])
    latent = {**unit, "unit": {**unit["unit"], "direction": {"blob": "0", "column": 1}}}
    unknown = {name: value for name, value in unit.items() if name != "recorded"}
    done = run("nx-contexts", stdin=lines_of([latent, unknown, {**unit, "dead": True}]))
    assert done.returncode == 1 and b"3 units: 2 failed" in done.stderr
    one, other, dead = read(done.stdout)
    assert one["contexts"]["error"]["kind"] == "no-neuron" and "has a direction" in done.stdout.decode()
    assert other["contexts"]["error"]["kind"] == "no-context" and "contexts" not in dead


def test_lengths_are_numbers_of_tokens(run: Run) -> None:
    for wrong in ("0,1", "full"):
        done = run(f"nx-contexts --lengths {wrong}")
        assert done.returncode == 2 and b"--lengths takes" in done.stderr
    assert run("nx-contexts --lengths 1,2,full").returncode == 0


# Cuts


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20), st.integers(1, 24))
def test_a_cut_keeps_the_first_position_and_the_last_tokens(ids: list[int], tokens: int) -> None:
    left = cut(np.array(ids, np.int32), tokens)
    if left is None:
        assert len(ids) <= tokens + 1
    else:
        assert left.tolist() == [ids[0], *ids[len(ids) - tokens :]] and len(left) < len(ids)


def test_peaks_stand_behind_all_that_the_subject_saw(units: list[Record]) -> None:
    """Without a BOS token the first token of the context stays; on both sides of a signed unit."""
    record = next(record for record in units if record["unit"]["sign"] == "+-")
    peaks = Peaks(Unit(record), lambda name, tokens: np.array([90, 91], np.int32))
    whole = {e["id"]: e for e in record["excerpts"] if e["set"] == "evidence" and e["pick"] != "random"}
    assert len(peaks.all) == len(whole) and {peak.side for peak in peaks.all} == {"top", "bottom"}
    asked = Cut("", "", "mlp", "float32", 0, 0, peaks, 1)
    for peak, text, excerpt in zip(peaks.all, asked.texts, whole.values(), strict=True):
        end = len(peak.context) - 3
        sign = 1 if peak.side == "top" else -1
        values = [sign * value for value in excerpt["activations"] if value is not None]
        assert peak.activation == pytest.approx(max(values)) == sign * excerpt["activations"][end]
        assert peak.context.tolist() == [90, 91, *excerpt["ids"][: end + 1]]
        assert text.tolist() == [90, excerpt["ids"][end]]
    answer = asked.answer(np.arange(len(whole), dtype=np.float32))
    for side, sign in (("top", 1), ("bottom", -1)):
        places = [place for place, peak in enumerate(peaks.all) if peak.side == side]
        assert answer[side]["left"].tolist() == [sign * place for place in places]
        assert answer[side]["cut"] == len(places)
    uncut = Cut("", "", "mlp", "float32", 0, 0, peaks, 99).answer(np.zeros(0, np.float32))
    assert all(of["left"].tolist() == of["full"].tolist() and of["cut"] == 0 for of in uncut.values())


def test_without_top_excerpts_there_is_no_curve() -> None:
    assert curve((1, 2), [{}, {}]) is None


# Reading the ends of texts


class Wanted:
    subject, fingerprint, site, dtype = "known", "sha256:0", "mlp", "float32"

    def __init__(self, layer: int, index: int, texts: np.ndarray) -> None:
        self.layer, self.index, self.texts = layer, index, texts

    def answer(self, activations: np.ndarray) -> list[float]:
        return list(activations.tolist())


def test_a_text_that_several_units_want_is_run_once_for_all_layers() -> None:
    subject = known_subject(units=4, gated=(True, True, True))
    chance = np.random.default_rng(0)
    texts = {tokens: chance.integers(30, size=(12, tokens)).astype(np.int32) for tokens in (2, 5)}
    wanted = [
        Wanted(layer, index, texts[tokens][layer : layer + 8])
        for tokens in texts
        for layer in range(3)
        for index in range(4)
    ]
    reader = EndReader("contexts", lambda first: subject)
    asks = [Ask(str(n), Question("contexts", 1, {}, reader, one)) for n, one in enumerate(wanted)]
    waiting = [asks, []]
    answers = {
        ask.digest: answer for batch in reader.answer(lambda n: waiting.pop(0)) for ask, answer in batch
    }
    for ask in asks:
        layer = subject.model.layers[ask.payload.layer]  # type: ignore[index, union-attr]
        with torch.inference_mode():
            values = layer.values(torch.from_numpy(ask.payload.texts).long())
        assert np.allclose(answers[ask.digest], values[:, -1, ask.payload.index].numpy())
    assert reader.asked == 2 * 3 * 4 * 8 and reader.texts <= 2 * 10


def test_units_that_the_subject_does_not_have_are_refused() -> None:
    reader = EndReader("contexts", lambda first: known_subject(units=6))
    mine, other, beyond = (Wanted(0, index, np.zeros((1, 2), np.int32)) for index in (0, 0, 6))
    other.fingerprint = "sha256:1"
    payloads = [mine, other, beyond]
    asks = [Ask(str(n), Question("contexts", 1, {}, reader, one)) for n, one in enumerate(payloads)]
    waiting = [asks, []]
    answers = {
        ask.digest: answer for batch in reader.answer(lambda n: waiting.pop(0)) for ask, answer in batch
    }
    assert isinstance(answers["0"], list)
    assert isinstance(answers["1"], Failure) and answers["1"].kind == "another-subject"
    assert isinstance(answers["2"], Failure) and answers["2"].kind == "no-such-unit"


# Figures


def test_the_interval_is_that_of_documents_drawn_anew() -> None:
    """The linearised error against a bootstrap over documents, which is smaller by √((n - 1)/n)."""
    chance = np.random.default_rng(0)
    documents = np.repeat(np.arange(30), 2)
    full = chance.uniform(5, 10, 60)
    left = Left(full, full * (0.6 + 0.1 * chance.standard_normal(30).repeat(2)), documents)
    drawn = chance.integers(30, size=(20_000, 30))
    of_left, of_full = (np.bincount(documents, values)[drawn].sum(1) for values in (left.left, left.full))
    low, high = left.interval or (0, 0)
    assert (low + high) / 2 == pytest.approx(left.share)
    half = 2.0452 * np.std(of_left / of_full) * np.sqrt(30 / 29)  # Student's t, 29 degrees of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


def test_one_document_has_no_interval_and_equal_shares_have_an_empty_one() -> None:
    full = np.array([2.0, 4.0])
    assert Left(full, full / 2, np.array([0, 0])).interval is None
    assert Left(full, full / 2, np.array([0, 1])).interval == pytest.approx((0.5, 0.5))


@settings(max_examples=50)
@given(st.lists(st.floats(-1, 2), min_size=1, max_size=6))
def test_the_shortest_length_is_where_all_longer_ones_are_enough(shares: list[float]) -> None:
    lengths = [2**n for n in range(len(shares))]
    found = shortest(lengths, shares)
    enough = [all(share >= PRESERVED for share in shares[n:]) for n in range(len(shares))]
    assert found == next((length for length, good in zip(lengths, enough, strict=True) if good), FULL)
    assert all(rank(one) < rank(other) for one, other in pairwise([*lengths, FULL]))
