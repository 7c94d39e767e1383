"""Explanations of tables of tokens: what is shown is the table, and nothing of the unit's excerpts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from assistants import Scripted, run, said, unit
from conftest import Run
from recorded import Blobs
from tiny_models import build, save

from nxtools.arrays import encode_rows, pack
from nxtools.assistant.asking import Asking, DryRun
from nxtools.explain.assistant import Explainer, Explaining
from nxtools.explain.table import TableLearner
from nxtools.pattern.fit import Budget
from nxtools.pattern.language import parse
from nxtools.pattern.lexicon import Lexicon
from nxtools.recordings.table import Column, Table, pack_table
from nxtools.store import Store
from nxtools.unit import Unit

TEXTS = [" the", " mast", " and", " sail", " fell", " keel", " rare", ""]
ROWS = [("evidence", "top", [(" the", 5.0), (" and", 0.0)]), ("evidence", "bottom", [(" fell", -2.0)])]


def column(values: list[float], count: list[int] | None = None) -> Column:
    """Means of the tokens of TEXTS."""
    blobs = Blobs()
    row, scale = encode_rows(np.array([values], np.float32))
    arrays = {"tokens": np.arange(len(values), dtype=np.int32), "row": row, "scale": scale}
    if count is not None:
        arrays["count"] = np.array(count, np.int64)
    return Column(Table(blobs.keep(pack_table([blobs.keep(pack(arrays))], blobs.open)), blobs.open), 0)


MEANS = column([0.0, 8.0, 0.1, 4.0, -6.0, 7.0, 8.0, 9.0], [900, 50, 400, 50, 60, 50, 1, 50])


def pattern_of(means: Column, sign: str = "+", **budget: Any) -> str:
    learner = TableLearner(Lexicon(TEXTS), means.table)
    return str(learner.explain(Unit(unit(ROWS, sign)), means, Budget(**budget))["text"])


def test_a_pattern_of_a_table_names_its_tokens_and_leaves_the_excerpts_alone() -> None:
    text = pattern_of(MEANS)
    levels = {
        str(atom.text): rule.level
        for rule in parse(text).rules
        for atom in rule.steps
        if len(rule.steps) == 1
    }
    assert levels[" mast"] >= levels[" keel"] > levels[" sail"] > 0
    assert levels[" mast"] > levels[" rare"]  # which was seen once
    assert " the" not in levels and " fell" not in levels
    (first,) = parse(pattern_of(MEANS, literals=1)).rules
    assert [atom.text for atom in first.steps] == [" mast"]


def test_the_other_side_is_explained_by_what_lies_below_zero() -> None:
    (rule,) = parse(pattern_of(MEANS, "-", literals=1)).rules
    assert [atom.text for atom in rule.steps] == [" fell"] and rule.level < 0


def asked(store: Store, how: dict[str, Any], rows: Any = ROWS, sign: str = "+") -> tuple[list[Any], Scripted]:
    assistant = Scripted(lambda payload: said("Explanation: parts of a ship"))
    explainer = Explainer(Explaining(Asking(assistant), view="tokens", **how))
    (out,) = run(explainer.step, [unit(rows, sign)], store)
    return out["explanations"], assistant


def test_a_model_is_shown_the_strongest_tokens_of_the_table_in_place_of_those_of_excerpts(
    tmp_path: Path,
) -> None:
    """A mean counts as if its token had been seen once more at 0: 8 · 50/51, 7 · 50/51, 8 · 1/2, 4 · 50/51.
    The texts are those of the line alone, since there is no pool: what has none cannot be shown."""
    rows = [*ROWS, ("validation", "random", [(text, 0.0) for text in TEXTS[1:7]])]
    with Store(tmp_path) as store:
        (entry,), assistant = asked(store, {"source": "corpus", "table_of": lambda unit, name: MEANS}, rows)
        number = {text: id for id, text in Unit(unit(rows)).vocabulary.items()}
    assert entry["by"]["view"] == "tokens" and entry["by"]["from"] == "corpus"
    shown = assistant.asked[0].messages[-1].content  # type: ignore[union-attr]
    by_text = {
        text: MEANS.values[id] * MEANS.count[id] / (MEANS.count[id] + 1) for text, id in number.items()
    }
    best = sorted((text for text in by_text if by_text[text] > 0), key=lambda text: -by_text[text])
    levels = [int(10 * by_text[text] / by_text[best[0]]) for text in best]
    expected = [f"{text} {level}" for text, level in zip(best, levels, strict=True) if level]
    assert expected and "\n".join(expected) in shown


def test_the_prompt_depends_on_the_table_and_a_dry_run_counts_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        prompts = []
        for means in (MEANS, column([9.0, 8.0])):
            how = {"source": "weights", "table_of": lambda unit, name, means=means: means}
            prompts.append(asked(store, how)[1].asked[0].messages)  # type: ignore[union-attr]
        assert prompts[0] != prompts[1]
        dry = DryRun()
        assistant = Scripted(lambda payload: said("x"))
        how = {"source": "weights", "table_of": lambda unit, name: column([7.0, 3.0])}
        explainer = Explainer(Explaining(Asking(assistant, dry), view="tokens", **how))  # type: ignore[arg-type]
        run(explainer.step, [unit(ROWS)], store)
    assert dry.calls == 1 and not assistant.asked


def test_without_the_table_there_is_an_error_and_no_call(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        (entry,), assistant = asked(store, {"source": "corpus"}, sign="+-")
    assert entry["error"]["kind"] == "no-table" and "nx-record --tables corpus" in entry["error"]["message"]
    assert not assistant.asked


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(build("llama", seed=3), tmp_path_factory.mktemp("subject"))


def test_a_pipe_of_patterns_of_both_tables(run: Run, subject: Path) -> None:
    text = "\n\n".join(f"the cat {n} sat on the mat {n * 7} and the dog {n * 13}" for n in range(90))
    cut = "--context 8 --excerpt 8 --document-tokens 8 --units 0:3,1:5"
    recorded = run(
        f"nx-record --subject {subject} {cut} --tables corpus,weights - | nx-top > units.jsonl",
        stdin=text.encode(),
    )
    assert recorded.returncode == 0, recorded.stderr
    explain = "nx-explain --view tokens --from corpus units.jsonl | nx-explain --view tokens --from weights"
    done = run(f"set -o pipefail; {explain} | nx-score --baselines none | tee scored.jsonl")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        entries = orjson.loads(line)["explanations"]
        assert [entry["by"]["from"] for entry in entries] == ["corpus", "weights"]
        assert all(rule.context == () for entry in entries for rule in parse(entry["text"]).rules)
        assert all(entry["scores"][0]["top_and_random"] is not None for entry in entries)
    again = run(f"set -o pipefail; {explain} --offline | nx-score --baselines none --offline")
    assert again.returncode == 0 and again.stdout == done.stdout

    bare = run("jq -c 'del(.tables.weights)' units.jsonl | nx-explain --view tokens --from weights")
    assert bare.returncode == 1 and b"2 failed" in bare.stderr
    kinds = [orjson.loads(line)["explanations"][0]["error"]["kind"] for line in bare.stdout.splitlines()]
    assert kinds == ["no-table"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--from corpus", "--from corpus shows a table of tokens: it goes with --view tokens"),
        ("--view tokens", "--view is for llama:FILE.gguf"),
        ("--view tokens --from weights --text '\" a\" (3)'", "--from is for llama:FILE.gguf"),
    ],
)
def test_options_that_do_not_fit_are_said(run: Run, options: str, message: str) -> None:
    done = run(f"nx-explain {options}")
    assert done.returncode == 2 and message in done.stderr.decode()
