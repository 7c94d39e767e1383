"""nx-convert: what others wrote as unit lines that our commands read, and back, number by number."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import orjson
import pytest
import zstandard
from conftest import UNITS, Run
from foreign import Record
from hypothesis import HealthCheck, given, settings

from nxtools.errors import InputError
from nxtools.interop import neuronpedia, sources
from nxtools.interop.fields import Fields
from nxtools.interop.neuron_explainer import Importer, exported
from nxtools.records import SETS, check_unit
from nxtools.stream import dump

patient = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def imported(objects: list[Record]) -> list[Record]:
    """Units of a stream with these objects, written down and read again."""
    importer = Importer("gpt2-xl", "mlp")
    found = [("a:1", one["dataclass_name"], Fields(orjson.loads(orjson.dumps(one)))) for one in objects]
    units = [importer._unit(neuron, members) for neuron, members in importer._by_neuron(iter(found), True)]
    for unit in units:
        check_unit(unit)
    return [orjson.loads(dump(unit)) for unit in units]


def again(objects: list[Record]) -> list[bytes]:
    return [data for unit in imported(objects) for _, data in exported(unit)]


@given(foreign.neuron_records)
@patient
def test_a_neuron_record_comes_back_byte_for_byte(record: Record) -> None:
    assert again([record]) == [orjson.dumps(record)]
    assert again([foreign.second_dialect(record)]) == [orjson.dumps(record)]


@given(foreign.neuron_records, foreign.simulation_results)
@patient
def test_simulation_results_come_back_byte_for_byte(record: Record, results: Record) -> None:
    results["neuron_id"] = record["neuron_id"]
    wanted = [orjson.dumps(record), orjson.dumps(results) + b"\n"]
    assert again([record, results]) == wanted
    assert again([foreign.second_dialect(one) for one in (record, results)]) == wanted


@given(foreign.neuron_records, foreign.simulation_results)
@patient
def test_a_text_is_in_one_set_and_what_was_simulated_is_held_out(record: Record, results: Record) -> None:
    results["neuron_id"] = record["neuron_id"]
    (unit,) = imported([record, results])
    homes: dict[tuple[str, ...], set[str]] = {}
    for excerpt in unit["excerpts"]:
        homes.setdefault(tuple(excerpt["tokens"]), set()).add(excerpt["set"])
    assert all(len(sets) == 1 for sets in homes.values())
    simulated = {
        tuple(one["simulation"]["tokens"])
        for explanation in results["scored_explanations"]
        for one in explanation["scored_simulation"]["scored_sequence_simulations"]
    }
    for tokens, sets in homes.items():
        assert not simulated or (sets == {SETS[2]}) == (tokens in simulated)


# The paper's files through the commands


def neuron(index: int = 7, layer: Any = 3) -> tuple[Record, Record]:
    """A neuron that fires on " not", as a record and as results that simulate four of its excerpts."""
    rng = np.random.default_rng(index)
    texts = [[str(rng.integers(1000)) for _ in range(9)] for _ in range(35)]

    def record(text: list[str], fires: bool) -> Record:
        values = rng.normal(scale=0.1, size=len(text)).tolist()
        if fires:
            text[5], values[5] = " not", float(rng.uniform(3, 6))
        return {"tokens": text, "activations": values, "dataclass_name": "ActivationRecord"}

    tops, randoms = [record(t, True) for t in texts[:20]], [record(t, False) for t in texts[20:]]
    name = {"layer_index": layer, "neuron_index": index, "dataclass_name": "NeuronId"}
    made = {
        "neuron_id": name,
        "random_sample": randoms,
        "random_sample_by_quantile": [[tops[0]], [randoms[0]]],
        "quantile_boundaries": [0.5],
        "mean": 0.1,
        "variance": 1,
        "skewness": None,
        "kurtosis": 3.5,
        "most_positive_activation_records": tops,
        "dataclass_name": "NeuronRecord",
    }
    sequences = [
        {
            "simulation": {
                "tokens": one["tokens"],
                "expected_activations": [10 if token == " not" else 0.5 for token in one["tokens"]],
                "activation_scale": "simulated_normalized_activations",
                "distribution_values": [],
                "distribution_probabilities": [],
                "uncalibrated_simulation": None,
                "dataclass_name": "SequenceSimulation",
            },
            "true_activations": one["activations"],
            "ev_correlation_score": 0.9,
            "rsquared_score": 0.8,
            "absolute_dev_explained_score": 0.7,
            "dataclass_name": "ScoredSequenceSimulation",
        }
        for one in [tops[2], tops[6], randoms[1], randoms[4]]
    ]
    simulation = {
        "scored_sequence_simulations": sequences,
        "ev_correlation_score": 0.95,
        "rsquared_score": 0.9,
        "absolute_dev_explained_score": 0.8,
        "dataclass_name": "ScoredSimulation",
    }
    explanation = {
        "explanation": "the word not",
        "scored_simulation": simulation,
        "dataclass_name": "ScoredExplanation",
    }
    results = {
        "neuron_id": name,
        "scored_explanations": [explanation],
        "dataclass_name": "NeuronSimulationResults",
    }
    return made, results


def public(folder: Path, count: int = 3) -> dict[str, bytes]:
    """A folder like that of the public data set; what is in it."""
    files = {}
    for index in range(count):
        record, results = neuron(index)
        files[f"collated-activations/3/{index}.json"] = orjson.dumps(record)
        files[f"explanations/3/{index}.jsonl"] = orjson.dumps(results) + b"\n"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_public_explanations_are_scored_and_go_back_unchanged(run: Run, tmp_path: Path) -> None:
    files = public(tmp_path / "public")
    pipe = f"nx-convert -q --from neuron-explainer --subject gpt2-xl {tmp_path / 'public'} | tee units.jsonl"
    done = run(f"{pipe} | nx-explain -q | nx-score -q --baselines none")
    assert (done.returncode, done.stderr) == (0, b"")
    scored = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [unit["unit"]["index"] for unit in scored] == [0, 1, 2]
    for unit in scored:
        theirs, ours = unit["explanations"]
        assert (theirs["text"], ours["by"]["explainer"]) == ("the word not", "pattern")
        (score,) = theirs["scores"]
        shown = {e["id"]: e for e in unit["excerpts"]}
        rows = [(shown[s["excerpt"]]["activations"], s["expected"]) for s in theirs["simulations"]]
        known = np.corrcoef(np.concatenate([t for t, _ in rows]), np.concatenate([p for _, p in rows]))
        assert score["simulator"] == "neuron-explainer" and score["excerpts"] == 4
        assert score["top_and_random"] == pytest.approx(known[0, 1], abs=1e-4)
        assert ours["scores"][0]["top_and_random"] > 0.9
    assert run("nx-convert", "-q", "--to", "neuron-explainer", "-o", "back", "units.jsonl").returncode == 0
    assert contents(tmp_path / "here" / "back") == files


@pytest.mark.parametrize("explained", [False, True])
def test_the_papers_deal_where_nothing_was_simulated(explained: bool) -> None:
    results = neuron()[1]
    results["scored_explanations"][0]["scored_simulation"]["scored_sequence_simulations"] = []
    (unit,) = imported([neuron()[0], *([results] if explained else [])])
    assert len(unit.get("explanations", [])) == explained
    by_tokens = {tuple(e["tokens"]): (e["set"], e["pick"], e["rank"]) for e in unit["excerpts"]}
    record = neuron()[0]
    tops = [by_tokens[tuple(r["tokens"])] for r in record["most_positive_activation_records"]]
    assert [home for home, _, _ in tops[:8]] == ["evidence", "validation", "validation", "held-out"] * 2
    randoms = [by_tokens[tuple(r["tokens"])] for r in record["random_sample"]]
    assert [home for home, _, _ in randoms[:6]] == ["validation", "validation", "held-out"] * 2
    assert [rank for home, _, rank in tops if home == "held-out"] == list(range(5))
    assert unit["stats"] == {"mean": 0.1, "variance": 1, "kurtosis": 3.5}


def test_our_units_become_records_and_results_with_known_scores(run: Run) -> None:
    """t = 0 1 0 4 0 and p = 0 2 0 9 1, by hand: Σ(t-p)² = 27 of Σt² = 17, Σ|t-p| = 7 of Σ|t| = 5."""
    unit = {
        "kind": "unit",
        "v": 1,
        "unit": {"layer": 2, "index": 5},
        "excerpts": [
            {"id": "x", "tokens": list("abcdef"), "activations": [None, 0, 1, 0, 4, 0], "pick": "top"}
            | {"set": "held-out"}
        ],
        "explanations": [
            {"text": "?", "simulations": [{"by": {}, "excerpt": "x", "expected": [7, 0, 2, 0, 9, 1]}]}
        ],
    }
    done = run("nx-convert", "-q", "--to", "neuron-explainer", stdin=dump(unit))
    record, results = (orjson.loads(line) for line in done.stdout.splitlines())
    assert record["most_positive_activation_records"][0]["activations"] == [None, 0, 1, 0, 4, 0]
    scored = results["scored_explanations"][0]["scored_simulation"]
    for found in (scored, scored["scored_sequence_simulations"][0]):
        assert found["ev_correlation_score"] == pytest.approx(
            np.corrcoef([0, 1, 0, 4, 0], [0, 2, 0, 9, 1])[0, 1], abs=1e-9
        )
        assert found["rsquared_score"] == pytest.approx(1 - 27 / 17, abs=1e-12)
        assert found["absolute_dev_explained_score"] == pytest.approx(1 - 7 / 5, abs=1e-12)


def test_our_excerpts_go_there_and_back_with_every_number(run: Run) -> None:
    there, back = "nx-convert -q --to neuron-explainer", "nx-convert -q --from neuron-explainer"
    done = run(f"{there} {UNITS} | {back}")
    assert (done.returncode, done.stderr) == (0, b"")
    for line, found in zip(UNITS.read_bytes().splitlines(), done.stdout.splitlines(), strict=True):
        ours, theirs = orjson.loads(line), orjson.loads(found)
        names = ("tokens", "activations")
        for pick in ("top", "random"):
            wanted = [[e[name] for name in names] for e in ours["excerpts"] if e["pick"] == pick]
            shown = [[e[name] for name in names] for e in theirs["excerpts"] if e["pick"] == pick]
            assert sorted(map(str, shown)) == sorted(map(str, wanted))
        moments = ("mean", "variance", "skewness", "kurtosis")
        assert theirs["stats"] == {name: ours["stats"][name] for name in moments if name in ours["stats"]}


# Files that cannot be trusted

RECORD = {"dataclass_name": "NeuronRecord", "neuron_id": {"layer_index": 0, "neuron_index": 1}}
EXCERPT = {"tokens": ["a"], "activations": [1.0]}
BAD: dict[str, tuple[Any, str]] = {
    "no object": ([1], "a record is an object"),
    "no type": ({}, "the field 'dataclass_name' is missing"),
    "another type": ({"dataclass_name": "Other"}, "this is a 'Other', neither a NeuronRecord nor"),
    "no name": ({"dataclass_name": "NeuronRecord"}, "the field 'neuron_id' is missing"),
    "a layer that is none": (
        RECORD | {"neuron_id": {"layer_index": "one", "neuron_index": 1}},
        "the field 'neuron_id.layer_index' is 'one', not a number from 0",
    ),
    "no excerpts": (RECORD, "the field 'most_positive_activation_records' is missing"),
    "a token that is none": (
        RECORD | {"most_positive_activation_records": [EXCERPT, EXCERPT | {"tokens": [3]}]},
        "the field 'most_positive_activation_records[1].tokens[0]' is an integer, not a string",
    ),
    "an activation that is none": (
        RECORD | {"most_positive_activation_records": [EXCERPT | {"activations": ["1"]}]},
        "the field 'most_positive_activation_records[0].activations[0]' is a string, not a number or null",
    ),
    "too few activations": (
        RECORD | {"most_positive_activation_records": [EXCERPT | {"activations": []}]},
        "'most_positive_activation_records[0]' has 1 tokens, 0 activations, which should be as many",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_named_by_file_line_and_field(run: Run, tmp_path: Path, what: str) -> None:
    value, message = BAD[what]
    (tmp_path / "bad.jsonl").write_bytes(b"\n" + orjson.dumps(value) + b"\n" + orjson.dumps(neuron()[0]))
    done = run("nx-convert", "--from", "neuron-explainer", tmp_path / "bad.jsonl")
    assert (done.returncode, done.stdout) == (3, b"")
    said = done.stderr.decode()
    assert said.startswith(f"nx-convert: {tmp_path / 'bad.jsonl'}:2: ") and message in said
    assert said.count("\n") == 1
    done = run("nx-convert", "-q", "--keep-going", "--from", "neuron-explainer", tmp_path / "bad.jsonl")
    assert done.returncode == 1 and done.stdout.count(b"\n") == 1 and b"; skipped" in done.stderr


def test_packed_files_are_unpacked_piece_by_piece_and_only_so_far(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = orjson.dumps(neuron()[0])
    for name, packed in {
        "a.json.gz": gzip.compress(data[:500]) + gzip.compress(data[500:]),
        "b.json.zst": zstandard.compress(data),
    }.items():
        (tmp_path / name).write_bytes(packed)
        assert list(sources.lines(str(tmp_path / name))) == [(f"{tmp_path / name}:1", data)]
    for name, packed, message in [
        ("cut.gz", gzip.compress(data)[:-20], "stops before its end"),
        ("broken.gz", gzip.compress(data)[:-8] + b"?" * 8, "damaged gzip data"),
    ]:
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(InputError, match=message):
            list(sources.lines(str(tmp_path / name)))
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 22)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b" " * (1 << 26)))
    with pytest.raises(InputError, match="longer than"):
        list(sources.lines(str(tmp_path / "bomb.gz")))


def test_files_of_any_names_meet_by_neuron(run: Run, tmp_path: Path) -> None:
    pairs = [neuron(index) for index in range(3)]
    for name, place in (("records", 0), ("results", 1)):
        lines = [orjson.dumps(pair[place]) + b"\n" for pair in pairs]
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(lines))
    convert = ["nx-convert", "-q", "--from", "neuron-explainer"]
    apart = run(*convert, tmp_path / "records.jsonl", tmp_path / "results.jsonl").stdout
    stream = b"".join(orjson.dumps(one) + b"\n" for pair in pairs for one in pair)
    assert apart == run(*convert, stdin=stream).stdout and apart.count(b"\n") == 3


def test_lines_that_cannot_be_written_are_named(run: Run, tmp_path: Path) -> None:
    (unit,) = imported([neuron()[0]])
    lost = unit | {"excerpts": unit["excerpts"][1:]}
    spoiled = unit | {"excerpts": [unit["excerpts"][0] | {"tokens": ["a"]}]}
    other = unit | {"unit": unit["unit"] | {"site": "attention"}}
    for units, line, message in [
        ([unit, lost], 2, "there is no excerpt"),
        ([spoiled], 1, "the field 'excerpts[0]' has 1 tokens, 9 activations"),
        ([unit, unit, other], 2, "another unit has become collated-activations/3/7.json already"),
    ]:
        given = b"".join(map(dump, units))
        done = run("nx-convert", "--to", "neuron-explainer", "-o", "out", stdin=given)
        assert done.returncode == 3
        assert done.stderr.decode().startswith(f"nx-convert: stdin:{line}: {message}"), done.stderr
    done = run(
        "nx-convert", "-q", "--keep-going", "--to", "neuron-explainer", "-o", "out", stdin=dump(lost) * 2
    )
    assert (done.returncode, done.stderr.count(b"; skipped")) == (1, 2)


def test_usage(run: Run) -> None:
    for words in ([], ["--from", "delphi", "--to", "neuronpedia"]):
        done = run("nx-convert", *words)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    done = run("nx-convert", "--from", "neuron-explainer", ".")
    assert done.returncode == 3 and b"there is no .json or .jsonl" in done.stderr


# Neuronpedia


@given(foreign.neuronpedia_lines())
@patient
def test_neuronpedias_lines_come_back_with_every_field(given: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "batch-0.jsonl")
        path.write_bytes(b"".join(map(dump, given)))
        units = [orjson.loads(dump(unit)) for unit in neuronpedia.Importer("mlp").units([str(path)])]
    for unit in units:
        check_unit(unit)
    back = [dump(one) for unit in units for lines in neuronpedia.exported(unit).values() for one in lines]
    options = orjson.OPT_SORT_KEYS
    assert sorted(orjson.dumps(orjson.loads(line), option=options) for line in back) == sorted(
        orjson.dumps(one, option=options) for one in given
    )


def batches(folder: Path, count: int = 3) -> list[Record]:
    """Features that fire on " not", in the folders of an export."""
    lines: dict[str, list[Record]] = {"features": [], "activations": [], "explanations": []}
    for index in range(count):
        named = {"modelId": "gpt2-small", "layer": "6-res-jb", "index": str(index)}
        lines["features"].append(named | {"maxActApprox": 6.5, "frac_nonzero": 0.01})
        lines["explanations"].append(named | {"description": '" not" (10)', "typeName": "np_max-act"})
        for record in neuron(index)[0]["most_positive_activation_records"]:
            values = {"tokens": record["tokens"], "values": record["activations"], "maxValueTokenIndex": 5}
            lines["activations"].append(named | values)
    for kind, found in lines.items():
        path = folder / "v1" / "gpt2-small" / "6-res-jb" / kind / "batch-0.jsonl.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(b"".join(map(dump, found))))
    return [one for found in lines.values() for one in found]


def lines_in(folder: Path) -> list[Record]:
    paths = sorted(folder.rglob("*.gz"), key=lambda path: sources.natural(str(path)))
    return [orjson.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_neuronpedias_features_are_explained_and_go_back(run: Run, tmp_path: Path) -> None:
    given = batches(tmp_path / "export")
    pipe = f"nx-convert -q --from neuronpedia {tmp_path / 'export'} | tee units.jsonl | nx-explain -q"
    done = run(f"{pipe} | nx-score -q --baselines none")
    assert (done.returncode, done.stderr) == (0, b"")
    for index, unit in enumerate(orjson.loads(line) for line in done.stdout.splitlines()):
        assert unit["unit"] == {
            "subject": "gpt2-small",
            "fingerprint": "imported:gpt2-small",
            "site": "res-jb",
            "layer": 6,
            "index": index,
            "sign": "+",
        }
        assert {e["set"] for e in unit["excerpts"]} == set(SETS)
        theirs, ours = unit["explanations"]
        assert (theirs["by"], ours["by"]["explainer"]) == (
            {"explainer": "neuronpedia", "type": "np_max-act"},
            "pattern",
        )
        assert ours["scores"][0]["top_only"] > 0.9
    assert run("nx-convert -q --to neuronpedia -o back units.jsonl").returncode == 0
    back = lines_in(tmp_path / "here" / "back")
    assert sorted(map(dump, back), key=len) != [] and len(back) == len(given)
    assert {orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in back} == {
        orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in given
    }


def test_our_units_become_features_with_their_scores(run: Run, tmp_path: Path) -> None:
    done = run(f"nx-explain -q {UNITS} | nx-score -q | nx-convert -q --to neuronpedia")
    assert done.returncode == 0, done.stderr
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    first = orjson.loads(UNITS.read_bytes().splitlines()[0])
    about = {"modelId": "made-up", "layer": "0-mlp", "index": "7"}
    mine = [line for line in lines if about.items() <= line.items()]
    assert mine[0] == about | {"maxActApprox": 6.2}
    assert mine[1]["values"] == first["excerpts"][0]["activations"]
    assert (mine[1]["maxValue"], mine[1]["maxValueTokenIndex"], mine[1]["minValue"]) == (6.2, 2, -1.9)
    (score,) = mine[-1]["scores"]
    assert (score["explanationScoreTypeName"], score["explanationScoreModelName"]) == (
        "nxtools_correlation",
        "pattern",
    )
    assert orjson.loads(score["jsonDetails"])["top_and_random"] == score["value"]


def test_a_batch_is_never_written_over(tmp_path: Path) -> None:
    exporter = neuronpedia.Exporter()
    unit = {"excerpts": [], "unit": {"subject": "m", "site": "a", "layer": 0, "index": 1}}
    other = unit | {"unit": unit["unit"] | {"site": "b"}}
    found = [name for one in (unit, other, unit) for name, _ in exporter.add(one)]
    found += [name for name, _ in exporter.finish()]
    assert found == [f"v1/m/0-{s}/features/batch-{n}.jsonl.gz" for s, n in (("a", 0), ("b", 0), ("a", 1))]


def test_names_of_others_stay_inside_the_folder(run: Run, tmp_path: Path) -> None:
    unit = {"kind": "unit", "v": 1, "excerpts": []}
    unit["unit"] = {"subject": "../../x/..", "site": "/etc", "layer": 0, "index": 1}
    done = run("nx-convert", "-q", "--to", "neuronpedia", "-o", "out", stdin=dump(unit))
    assert done.returncode == 0
    assert list(contents(tmp_path / "here")) == ["out/v1/-..-x-../0--etc/features/batch-0.jsonl.gz"]
