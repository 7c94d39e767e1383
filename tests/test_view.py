"""nx-view's report: what is on the page, and that nothing else can be. In a browser: test_view_browser.py."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import pty
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import UNITS, Run
from scipy import stats
from viewed import FIRES_ON, SCRIPT, everything, lines, unit

import nxtools.view
from nxtools.folded import folded
from nxtools.pattern.lexicon import Lexicon
from nxtools.stream import dump, well_formed
from nxtools.view.model import page, row
from nxtools.view.pack import TOGETHER, Packer
from nxtools.view.report import Addresses, Report
from nxtools.view.simulated import simulate_patterns

Record = dict[str, Any]
VENDOR = Path(nxtools.view.__file__).parent / "vendor"


@pytest.fixture(scope="module")
def made() -> list[Record]:
    return [well_formed(line) for line in lines()]


class Parsed(HTMLParser):
    """The elements of a document as a browser would find them, and what stands in each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and data.strip():
            self.inside.append((*self.elements[-1], data))


def reported(records: list[Record], title: str | None = None) -> str:
    report = Report(title)
    for record in records:
        report.add(record)
    return b"".join(report.pieces()).decode()


def parts(document: str) -> dict[str, Any]:
    found = Parsed(document).inside
    blocks = {str(attributes.get("id")): data for _, attributes, data in found if "type" in attributes}
    read = {
        name: orjson.loads(gzip.decompress(base64.b64decode(data)))
        for name, data in blocks.items()
        if name.startswith("part-")
    }
    return {"overview": orjson.loads(blocks["overview"]), **read}


# The document


def test_every_script_is_admitted_by_its_digest_and_nothing_is_loaded(made: list[Record]) -> None:
    document = Parsed(reported(made[:3]))
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in document.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == directives["connect-src"] == directives["base-uri"] == "'none'"
    assert "unsafe" not in policy
    run = [data for tag, attributes, data in document.inside if tag == "script" and "type" not in attributes]
    styles = [data for tag, _, data in document.inside if tag == "style"]

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert directives["script-src"].split() == [digest(text) for text in run]
    assert directives["style-src"].split() == [digest(text) for text in styles]
    places = [attributes.get(name) for _, attributes in document.elements for name in ("src", "href")]
    assert set(places) <= {None, "data:,"}


def test_hostile_strings_are_data(made: list[Record]) -> None:
    """The parser finds as many scripts and images with them as without."""
    harmless, hostile = (
        Parsed(reported(some, title)) for some, title in ((made[3:4], "t"), (made[:1], f"t{SCRIPT}"))
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    (body,) = [attributes for tag, attributes in hostile.elements if tag == "body"]
    assert body["data-title"] == f"t{SCRIPT}"


def test_the_libraries_are_those_that_were_published() -> None:
    named = re.findall(r"^\| `(\S+)` \|.*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M)
    assert {name for name, _ in named} == {path.name for path in VENDOR.glob("*.js")}
    for name, digest in named:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_the_same_units_give_the_same_bytes(made: list[Record]) -> None:
    assert reported(made[:40]) == reported(made[:40])


def test_packing_loses_nothing(made: list[Record]) -> None:
    """Undone here as the page does it, every unit is what the model says."""
    packer = Packer()
    pages = {str(place): page(record) for place, record in enumerate(made)}
    places = {address: packer.add(address, one) for address, one in pages.items()}
    chunks = [orjson.loads(gzip.decompress(base64.b64decode(chunk))) for chunk in packer.finished()]
    assert len(chunks) == -(-len(made) // TOGETHER)
    for address, one in pages.items():
        chunk = chunks[places[address]]
        found = chunk["pages"][address]
        for group in found["groups"]:
            for excerpt in group["excerpts"]:
                excerpt["tokens"] = [chunk["strings"][number] for number in chunk["texts"][excerpt["tokens"]]]
        assert found == orjson.loads(dump(one))


def test_rows_say_where_their_units_are(made: list[Record]) -> None:
    found = parts(reported(made))
    rows = found["part-rows"]
    assert [one["name"] for one in rows] == [f"{one['unit']['layer']}:{one['unit']['index']}" for one in made]
    for one in rows:
        assert one["address"] in found[f"part-units-{one['chunk']}"]["pages"]


def test_units_that_are_called_alike_have_different_addresses() -> None:
    def named(site: str, fingerprint: str) -> Record:
        return {"unit": {"site": site, "fingerprint": fingerprint, "layer": 2, "index": 41}}

    addresses = Addresses()
    same = [named("mlp", "sha256:1"), named("attention", "sha256:1"), named("mlp", "sha256:2")] * 2
    found = [addresses.of(record) for record in same]
    assert found[:2] == ["2:41", "attention/2:41"]
    assert len(set(found)) == len(found)


# The model


def test_what_a_unit_has_is_on_its_page(made: list[Record]) -> None:
    record = everything(unit(1, 7, FIRES_ON, sign="+-"))
    shown = page(record)
    assert shown["name"] == "1:7"
    assert [told["text"] for told in shown["explanations"]] == [e["text"] for e in record["explanations"]]
    revision = shown["explanations"][0]["revision"]
    assert (revision["current"], len(revision["versions"])) == (1, 2)
    assert revision["counterexamples"][0]["tokens"][-1] == " not"
    assert [(one["text"], one["fires"]) for one in revision["sentences"]] == [
        ("He did not.", True),
        ("A boat on the river.", False),
    ]
    assert {(group["pick"], group["set"]) for group in shown["groups"]} == {
        (pick, name)
        for pick in ("top", "bottom", "spread", "random")
        for name in ("evidence", "validation", "held-out")
    }
    assert sum(len(group["excerpts"]) for group in shown["groups"]) == len(record["excerpts"])
    for group in shown["groups"]:
        peaks = [max(abs(v) for v in e["activations"][1:]) for e in group["excerpts"]]
        assert group["pick"] != "spread" or peaks == sorted(peaks, reverse=True)
    assert set(shown["missing"]) == {"simulations", "baselines", "scores"}
    assert row(record)["gain"] == 0.125
    assert FIRES_ON in row(record)["tokens"]


def test_what_is_missing_is_said() -> None:
    bare = {
        "kind": "unit",
        "v": 1,
        "unit": {"layer": 0, "index": 0},
        "excerpts": [],
    }
    shown = page(bare)
    assert {
        "explanations", "simulations", "excerpts", "stats", "histogram", "tokens", "connections",
        "effects", "baselines", "scores", "revision",
    } == set(shown["missing"])  # fmt: skip
    assert all(sentence.endswith(".") for sentence in shown["missing"].values())
    assert "dead" in page(bare | {"dead": True})["missing"]["explanations"]
    assert row(bare | {"error": {"stage": "explain", "message": "no"}})["why"] == "explain: no"


def test_failures_are_no_zeros(made: list[Record]) -> None:
    """A score that is an error, or absent, has no value and says why."""
    told = {"id": "x", "text": "t", "by": {"explainer": "person"}}
    failed = {"method": "detection", "simulator": "m", "error": {"stage": "score", "message": "no answer"}}
    absent = {"method": "correlation", "top_and_random": None, "absent": {"top_and_random": "constant"}}
    shown = row(made[5] | {"explanations": [told | {"scores": [failed, absent]}]})
    assert [(score["value"], score["why"]) for score in shown["scores"]] == [
        (None, "score: no answer"),
        (None, "constant"),
    ]


def test_the_calibration_line_is_least_squares_on_validation(made: list[Record]) -> None:
    record = orjson.loads(dump(made[9]))
    simulate_patterns(record, lambda unit: Lexicon(unit.vocabulary))
    expected = {s["excerpt"]: s["expected"] for s in record["explanations"][0]["simulations"]}

    def pairs(which: str) -> np.ndarray[Any, Any]:
        return np.array(
            [
                (said, true)
                for e in record["excerpts"]
                if e["set"] == which
                for said, true in zip(expected[e["id"]], e["activations"], strict=True)
                if true is not None
            ]
        )

    line = page(record)["simulations"][0]["line"]
    fitted = stats.linregress(*pairs("validation").T)
    assert (line["set"], line["excerpts"], line["tokens"]) == ("validation", 6, 66)
    assert line["slope"] == pytest.approx(fitted.slope)
    assert line["intercept"] == pytest.approx(fitted.intercept)
    assert line["correlation"] == pytest.approx(stats.linregress(*pairs("held-out").T).rvalue)


def test_means_by_token_are_those_of_the_evidence(made: list[Record]) -> None:
    record = made[9]
    found = page(record)["tokens"]
    assert [one["mean"] for one in found["highest"]] == sorted(
        (one["mean"] for one in found["highest"]), reverse=True
    )
    for one in found["highest"]:
        values = [
            value
            for e in record["excerpts"]
            if e["set"] == "evidence"
            for token, value in zip(e["tokens"], e["activations"], strict=True)
            if token == one["token"] and value is not None
        ]
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert one["n"] == len(values) >= 2
        assert one["mean"] == pytest.approx(np.mean(values))
        assert one["margin"] == pytest.approx((high - low) / 2)


def test_patterns_are_run_as_nx_simulate_runs_them(run: Run, made: list[Record]) -> None:
    record = orjson.loads(dump(made[9]))
    done = run("nx-simulate", "-q", "--sets", "evidence,validation,held-out", stdin=dump(record))
    simulate_patterns(record, lambda unit: Lexicon(unit.vocabulary))
    (simulated,) = [orjson.loads(line) for line in done.stdout.splitlines()]
    by_excerpt = [
        {s["excerpt"]: s["expected"] for s in one["explanations"][0]["simulations"]}
        for one in (simulated, record)
    ]
    assert by_excerpt[0] == by_excerpt[1] != {}


def test_words_that_are_no_pattern_are_not_simulated(made: list[Record]) -> None:
    record = orjson.loads(dump(made[9]))
    record["explanations"] = [{"id": "x", "text": "words for boats", "by": {"explainer": "hf:model"}}]
    simulate_patterns(record, lambda unit: Lexicon(unit.vocabulary))
    assert page(record)["simulations"] == []
    record["explanations"][0]["by"] = {"explainer": "pattern"}
    simulate_patterns(record, lambda unit: Lexicon(unit.vocabulary))
    assert page(record)["simulations"][0]["failed"].startswith("simulate: ")


def test_the_start_page_has_the_figures_of_nx_summary(run: Run, made: list[Record]) -> None:
    scored = run("nx-score", "-q", stdin=b"".join(map(dump, made[5:45])))
    assert scored.returncode == 0, scored.stderr
    overview = parts(reported([folded(line) for line in scored.stdout.splitlines()]))["overview"]
    told = run("nx-summary", "--format", "json", stdin=scored.stdout)
    summary = {
        (one["series"], one["figure"], one["layer"]): one
        for one in map(orjson.loads, told.stdout.splitlines())
    }
    shown = {(one["series"], one["figure"], one["layer"]): one for one in overview["scores"]["rows"]}
    assert shown.keys() == summary.keys() != set()
    for key, one in shown.items():
        assert one == {name: summary[key][name] for name in one}
    for figure, of_series in overview["scores"]["histograms"].items():
        for label, histogram in of_series.items():
            assert sum(histogram["counts"]) == summary[label, figure, "all"]["units"]


# The command


def test_a_pipe_ends_in_a_report(run: Run) -> None:
    done = run(
        f"nx-explain -q {UNITS} | nx-score -q | nx-view - -o report.html && grep -c '<script' report.html"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"nx-view: 3 units\n"


def test_no_units_are_a_report_too(run: Run) -> None:
    done = run("nx-view", "-q", stdin=b"")
    assert (done.returncode, done.stderr) == (0, b"")
    assert parts(done.stdout.decode())["overview"]["counts"]["units"] == 0


def test_a_line_that_is_no_unit_is_named_and_no_report_is_left(run: Run) -> None:
    good = dump(lines()[9])
    done = run("nx-view - -o report.html; code=$?; ls; exit $code", stdin=good + b"{}\n")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"stdin:2" in done.stderr
    kept = run("nx-view", "-", "--keep-going", "-o", "kept.html", stdin=good + b"{}\n")
    assert kept.returncode == 1 and kept.stderr.endswith(b"nx-view: 1 units\n")


@pytest.mark.parametrize("fault", [{"activations": 3}, {"tokens": [1] * 12, "ids": None}, {"tokens": ["a"]}])
def test_excerpts_that_cannot_be_read_are_named(run: Run, fault: Record) -> None:
    good, bad = lines()[9:11]
    bad["excerpts"][-1] |= fault
    bad["explanations"] = []
    done = run("nx-view", stdin=dump(good) + dump(bad))
    assert (done.returncode, done.stdout) == (3, b"")
    assert re.match(rf"nx-view: stdin:2: excerpt .*{next(iter(fault))[:-1]}", done.stderr.decode())


def test_a_terminal_is_not_filled_with_html(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        ["nx-view", "-"], input=b"", stdout=theirs, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"-o report.html" in done.stderr
