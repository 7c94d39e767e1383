"""nx-view --text and --try: what units do on texts that somebody gives, against passes of our own."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_models
import torch
from browsing import browser, watched
from conftest import Run
from numpy.typing import NDArray
from rich.cells import cell_len
from tiny_models import LAYERS, NEURONS, build

from nxtools.commands.view import main as nx_view
from nxtools.subject.identity import weights_fingerprint
from nxtools.view.texts import Ran, Watch, Watched, in_text, share, side

Record = dict[str, Any]
Floats = NDArray[np.float32]

TEXT = "the cat sat on the mat, and the dog"
LONG = " ".join([TEXT] * 3)
ESCAPE = "the \x1b[31mcat\u202e"
CONTEXT = 16
EACH = 3


@pytest.fixture(scope="module")
def model() -> Any:
    return build("gpt2", seed=3)


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(model, tmp_path_factory.mktemp("subject"))


def unit_line(folder: Path, layer: int, index: int, *, bos: int | None = None, **other: Any) -> Record:
    unit = {"subject": str(folder), "fingerprint": weights_fingerprint(folder), "site": "mlp"}
    chance = np.random.default_rng([layer, index])
    stats = {"max": round(float(chance.uniform(0.5, 3)), 3), "min": -0.25}
    return {
        "kind": "unit",
        "v": 1,
        "unit": unit | {"layer": layer, "index": index, "sign": "+-" if index % 7 == 3 else "+"},
        "recorded": {"dtype": "float32", "context": CONTEXT, "bos": bos, "plans": []},
        "stats": stats,
        "excerpts": [],
        "explanations": [
            {
                "id": "e",
                "text": '" the" (10); " cat" or like "dog" (5)' if index == 1 else '" the" (10); "a" (5)',
                "by": {"explainer": "pattern"},
                "scale": 2.0,
                "scores": [{"method": "correlation", "simulator": "pattern", "top_and_random": 0.25}],
            }
        ],
    } | other


@pytest.fixture(scope="module")
def units(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All units of the tiny model: one is dead, and one of a run with another context."""
    records = [unit_line(folder, layer, index) for layer in range(LAYERS) for index in range(NEURONS)]
    records[5]["dead"] = True
    records[6]["recorded"] = records[6]["recorded"] | {"context": 8}
    path = tmp_path_factory.mktemp("units") / "units.jsonl"
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is asked of the subject once is in here for all tests."""
    return tmp_path_factory.mktemp("store")


def viewed(store: Path, *words: object) -> int:
    """Runs the command in this process, which has torch."""
    with pytest.raises(SystemExit) as end:
        nx_view.main(["-q", "--cache", str(store), *map(str, words)])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture(scope="module")
def found(store: Path, units: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """What --json says of the texts."""
    out = tmp_path_factory.mktemp("found") / "found.jsonl"
    texts = [word for text in (TEXT, LONG, ESCAPE) for word in ("--text", text)]
    assert viewed(store, *texts, "--json", "--each", EACH, "-o", out, units) == 0
    return [orjson.loads(line) for line in out.read_bytes().splitlines()]


def activations(model: Any, ids: list[int]) -> Floats:
    """(layers, tokens, neurons) of one context, from hooks of our own."""
    rows: list[Floats] = []
    hooks = [
        block.mlp.c_proj.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0][0].numpy()))
        for block in model.transformer.h
    ]
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return np.stack(rows)


# From text to units


@pytest.mark.parametrize("which", [0, 1])
def test_under_each_token_stand_the_units_whose_share_of_their_maximum_is_highest(
    which: int, found: list[Record], model: Any, folder: Path
) -> None:
    text = found[which]
    ids = text["ids"]
    assert text["tokens"] == [tiny_models.tokenizer().decode([token]) for token in ids]
    pieces = [activations(model, ids[at : at + CONTEXT]) for at in range(0, len(ids), CONTEXT)]
    assert len(pieces) == (1 if which == 0 else 2 if len(ids) <= 2 * CONTEXT else len(pieces))
    values = np.concatenate(pieces, axis=1).transpose(0, 2, 1).reshape(LAYERS * NEURONS, len(ids))
    lines = [unit_line(folder, layer, index) for layer in range(LAYERS) for index in range(NEURONS)]
    above, below = (np.array([one["stats"][name] for one in lines])[:, None] for name in ("max", "min"))
    shares = np.where(values >= 0, values / above, values / -below)
    both = np.array([one["unit"]["sign"] == "+-" for one in lines])
    strength = np.where(both[:, None], np.abs(shares), shares)
    strength[[5, 6]] = -1  # dead, and of another run
    assert text["of"] == LAYERS * NEURONS - 2
    names = [f"{layer}:{index}" for layer in range(LAYERS) for index in range(NEURONS)]
    listed = text["units"]
    for place in range(len(ids)):
        shown = [listed[unit]["address"] for unit in text["under"][place]]
        if place % CONTEXT == 0:
            assert shown == []
            continue
        assert shown == [names[unit] for unit in np.argsort(-strength[:, place])[:EACH]]
    for unit in listed:
        row = names.index(unit["address"])
        first = np.arange(len(ids)) % CONTEXT == 0
        got, given = (np.array(unit[name], float) for name in ("values", "shares"))
        np.testing.assert_array_equal(np.isnan(got), first)
        np.testing.assert_allclose(got[~first], values[row, ~first], rtol=0, atol=2e-3)
        np.testing.assert_allclose(given[~first], shares[row, ~first], rtol=5e-3, atol=2e-3)
        assert unit["score"] == {"name": "top_and_random", "value": 0.25, "low": None, "high": None}
    counted = np.arange(len(ids)) % CONTEXT != 0
    best = np.argsort(-strength[:, counted].max(axis=1))[:10]
    assert [listed[unit]["address"] for unit in text["strongest"]] == [names[unit] for unit in best]


def test_a_token_in_front_is_run_and_not_shown(store: Path, folder: Path, model: Any, tmp_path: Path) -> None:
    (tmp_path / "units.jsonl").write_bytes(orjson.dumps(unit_line(folder, 2, 3, bos=0)) + b"\n")
    out = tmp_path / "out.jsonl"
    assert viewed(store, "--text", TEXT, "--json", "-o", out, tmp_path / "units.jsonl") == 0
    text = orjson.loads(out.read_bytes())
    expected = activations(model, [0, *text["ids"]])[2, 1:, 3]
    np.testing.assert_allclose(text["units"][0]["values"], expected, rtol=0, atol=2e-3)


def test_sides_have_shares_of_their_own() -> None:
    def watched_(sign: str, above: float, below: float) -> Watched:
        return Watched("a", "0:0", 0, 0, sign, above, below, None, "", None)

    values = np.array([1.0, -1.0, np.nan], np.float32)
    shares = share(watched_("+-", 2.0, 4.0), values)
    assert shares[:2].tolist() == [0.5, -0.25] and np.isnan(shares[2])
    assert side(watched_("+-", 2.0, 4.0), shares)[:2].tolist() == [0.5, 0.25]
    assert side(watched_("+", 2.0, 4.0), shares)[:2].tolist() == [0.5, -0.25]
    assert side(watched_("-", 2.0, 4.0), shares)[:2].tolist() == [-0.5, 0.25]


def test_pieces_of_a_text_are_one_row_again() -> None:
    pieces = np.arange(12, dtype=np.float32).reshape(2, 1, 6)
    row = in_text(pieces, [6, 4], None)
    assert np.isnan(row[0, [0, 6]]).all()
    assert row[0, [1, 5, 7, 9]].tolist() == [1, 5, 7, 9] and row.shape == (1, 10)
    assert in_text(pieces, [6, 4], 0).tolist() == [[1, 2, 3, 4, 5, 7, 8, 9]]


def test_units_of_another_run_are_left_out_and_counted(folder: Path) -> None:
    watch = Watch(3)
    watch.add("a", unit_line(folder, 0, 0))
    watch.add("b", unit_line(folder, 0, 1, bos=0))
    watch.add("c", {"unit": {"layer": 0, "index": 2}})
    assert (watch.units, watch.left_out) == (1, 2)
    assert Ran.of({"unit": {"fingerprint": "f"}, "recorded": {"context": 0, "bos": None}}) is None


def test_units_without_a_maximum_are_none_that_fire(store: Path, folder: Path, tmp_path: Path) -> None:
    silent, out = tmp_path / "silent.jsonl", tmp_path / "found.jsonl"
    silent.write_bytes(orjson.dumps(unit_line(folder, 0, 0, stats={})) + b"\n")
    assert viewed(store, "--text", TEXT, "--json", "-o", out, silent) == 0
    said = orjson.loads(out.read_bytes())
    assert (said["units"], said["strongest"], said["of"]) == ([], [], 0)
    assert said["under"] == [[] for _ in said["tokens"]]


# In the terminal


def test_the_terminal_shows_it_in_80_columns_and_no_torch_is_loaded_again(
    run: Run, found: list[Record], store: Path, units: Path, tmp_path: Path
) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "torch.py").write_text("raise SystemExit('torch was asked for')")
    without = {"PYTHONPATH": str(tmp_path / "without"), "NXTOOLS_CACHE": str(store)}
    command = f"nx-view --text '{TEXT}' --text $'the \\x1b[31mcat\\u202e' --each {EACH}"
    done = run(f"{command} < {units}", env=without | {"LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode() == "nx-view: 1 units of another subject or run are left out of texts\n"
    shown = done.stdout.decode()
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert "\x1b" not in shown and "\u202e" not in shown
    for text in (found[0], found[2]):
        for listed in text["under"]:
            for unit in listed:
                assert text["units"][unit]["address"] in shown
    assert "Units that fire most  of 118" in shown
    other = run(f"nx-view --text 'something else' {units}", env=without)
    assert b"torch was asked for" in other.stderr
    offline = run(f"nx-view --offline --text 'something else' {units}", env=without)
    assert offline.returncode == 1 and b"--offline was given" in offline.stdout


def test_what_does_not_go_together_is_said(run: Run, units: Path) -> None:
    for words, message in {
        f"--text a --try 0:1 {units}": "--text and --try exclude each other",
        f"--json {units}": "--json goes with --text or --try",
        f"--each 3 {units}": "--each goes with --text",
        f"--text ' ' {units}": "--text takes a text",
        f"--try nine {units}": "--try takes LAYER:INDEX",
        "--try 0:1": "--try reads sentences from stdin",
    }.items():
        done = run(f"nx-view {words}", stdin=b"a sentence\n")
        assert done.returncode == 2 and message in done.stderr.decode(), words
    for words, message in {
        f"--try 9:1 {units}": "there is no unit 9:1",
        f"--try 0:1 {units} < /dev/null": "there are no sentences on stdin",
    }.items():
        done = run(f"nx-view {words}", stdin=b"a sentence\n")
        assert done.returncode == 3 and message in done.stderr.decode(), words


# One unit on sentences


Try = Callable[[str, str], tuple[int, Any]]


@pytest.fixture
def tried(store: Path, units: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Runs --try in this process."""

    def run(unit: str, sentences: str) -> tuple[int, Any]:
        (tmp_path / "sentences").write_text(sentences, encoding="utf-8")
        with (tmp_path / "sentences").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            status = viewed(store, "--try", unit, "--json", "-o", tmp_path / "tried.jsonl", units)
        return status, orjson.loads((tmp_path / "tried.jsonl").read_bytes())

    return run


def test_a_unit_is_tried_on_sentences(
    tried: Try, run: Run, store: Path, units: Path, model: Any, tmp_path: Path
) -> None:
    status, found = tried("1:4", f"{TEXT}\n\n{LONG}")
    assert status == 0
    first, second = found["sentences"]
    expected = activations(model, first["ids"])[1, :, 4]
    assert first["values"][0] is None
    np.testing.assert_allclose(first["values"][1:], expected[1:], rtol=0, atol=2e-3)
    shares = np.array(first["values"][1:]) / np.where(expected[1:] < 0, 0.25, found["unit"]["max"])
    np.testing.assert_allclose(first["shares"][1:], shares, rtol=1e-2, atol=1e-3)
    said = {" the": 2.0, "a": 1.0}
    assert first["expected"][1:] == [said.get(token, 0.0) for token in first["tokens"][1:]]
    assert second["text"] == LONG and len(second["expected"]) == len(second["ids"])

    drawn = run(f"nx-view --try 1:4 {units} < {tmp_path}/sentences", env={"NXTOOLS_CACHE": str(store)})
    assert drawn.returncode == 0, drawn.stderr
    lines = drawn.stdout.decode().splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert [line[:8] for line in lines if line.startswith("   true ")] == ["   true "] * 2


def test_what_cannot_be_said_of_a_unit_has_a_reason(tried: Try) -> None:
    status, found = tried("1:1", TEXT)
    assert status == 0
    assert "like" in found["unsaid"] and "expected" not in found["sentences"][0]
    status, found = tried("0:5", TEXT)
    assert (status, found["error"]["kind"]) == (1, "never-fires")


# In the report and from a server


def test_the_report_has_a_page_of_texts(
    found: list[Record], store: Path, units: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    assert viewed(store, "--text", TEXT, "--text", ESCAPE, "--each", EACH, "-o", report, units) == 0
    with browser() as opened:
        page = opened.new_page()
        page.set_default_timeout(10_000)
        seen = watched(page)
        page.goto(report.as_uri())
        page.get_by_role("link", name="Text to units").click()
        page.wait_for_selector("#under")
        for place, listed in enumerate(found[0]["under"]):
            column = page.locator("ol.under > li").nth(place)
            addresses = [found[0]["units"][unit]["address"] for unit in listed]
            assert column.locator("a b").all_inner_texts() == addresses
        page.get_by_role("link", name=re.compile("cat⟨U")).click()
        page.wait_for_selector(".given a[aria-current] >> text=cat⟨U")
        assert page.locator("#strongest [role=option]").count() == 10 * len(found[2]["tokens"])
        first = page.locator("ol.under a").first
        address = first.locator("b").inner_text()
        first.click()
        page.wait_for_selector(f"h1:text-is('Unit {address}')")
        assert page.locator("#try").count() == 0, "nobody can run the subject here"
        assert seen == []


@pytest.fixture
def served(found: list[Record], store: Path, units: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    from nxtools.commands import _view_serve

    told: list[str] = []
    servers: list[Any] = []
    ready = threading.Event()
    listening: Callable[..., Any] = _view_serve._listening

    def listen(*given: Any) -> Any:
        servers.append(listening(*given))
        return servers[-1]

    def announce(url: str) -> None:
        told.append(url)
        ready.set()

    monkeypatch.setattr(_view_serve, "_listening", listen)
    monkeypatch.setattr(_view_serve, "_announce", announce)
    thread = threading.Thread(target=viewed, args=(store, "--serve", "--port", 0, "--each", EACH, units))
    thread.start()
    assert ready.wait(30)
    yield told[0]
    servers[0].shutdown()
    thread.join(30)


def test_a_server_answers_what_is_typed(served: str, found: list[Record], units: Path) -> None:
    def asked(name: str, question: Any) -> Any:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{served}answers/{name}", orjson.dumps(question), headers)
        return orjson.loads(urllib.request.urlopen(request, timeout=60).read())

    assert asked("text", {"text": TEXT}) == found[0]
    tried = asked("try", {"address": "1:4", "text": f"{TEXT}\n\nthe dog"})
    assert [sentence["text"] for sentence in tried["sentences"]] == [TEXT, "the dog"]
    assert "no unit 9:9" in asked("try", {"address": "9:9", "text": TEXT})["error"]["message"]
    with pytest.raises(urllib.error.HTTPError):
        asked("text", {"text": 7})
    with browser() as opened:
        page = opened.new_page()
        page.set_default_timeout(10_000)
        page.goto(f"{served}#/text")
        page.get_by_label("A text").fill(TEXT)
        page.keyboard.press("Enter")
        page.wait_for_selector("#under")
        assert page.locator("ol.under > li").count() == len(found[0]["tokens"])
        page.locator("ol.under a").first.click()
        page.locator("#try textarea").fill("the dog\nthe cat")
        page.locator("#try button").click()
        page.wait_for_selector("#try .excerpt >> nth=1")
