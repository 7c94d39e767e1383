"""From recordings to unit lines: merging, dealing, statistics, and what does not belong together."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from recorded import (
    Blobs,
    activations,
    known_subject,
    last_eight,
    merged,
    passages,
    plan_of,
    recording_lines,
    unit_lines,
)

from nxtools.errors import InputError, UsageError
from nxtools.recordings.deal import Counts
from nxtools.recordings.lines import rounded
from nxtools.recordings.pool import Pool
from nxtools.recordings.run import Run, check_line
from nxtools.records import SETS
from nxtools.subject.excerpts import Plan
from nxtools.subject.load import Subject
from nxtools.subject.recorder import Keep

Record = dict[str, Any]

MANY = Counts(top=4, spread=6, random=5)
MOMENTS = ("mean", "variance", "skewness", "kurtosis")


def recorded(plan: Plan, subject: Subject | None = None, **settings: Any) -> tuple[list[Record], Blobs]:
    blobs = Blobs()
    return recording_lines(subject or known_subject(), plan, blobs, **settings), blobs


# Merging


@settings(max_examples=10, deadline=None)
@given(
    batches=st.sampled_from([1, 2, 5, 12, 25]),
    order=st.randoms(use_true_random=False),
    paper=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_shards_in_any_order_merge_into_the_same_units(
    batches: int, order: Any, paper: bool, seed: int
) -> None:
    plan = plan_of(passages(60, seed=seed), seed=seed, context=16)
    keep = Keep(top=20, spread=2)
    wanted = {"evidence": MANY, "validation": MANY, "held_out": MANY}
    whole = unit_lines(*recorded(plan, keep=keep), paper=paper, **wanted)
    lines, blobs = recorded(plan, keep=keep, batches=batches)
    order.shuffle(lines)
    parts = unit_lines(lines, blobs, paper=paper, **wanted)
    assert len(whole) == len(parts) == 12
    for one, other in zip(whole, parts, strict=True):
        for name in MOMENTS:
            assert other["stats"].pop(name) == pytest.approx(one["stats"].pop(name), rel=1e-9)
        for line in (one, other):  # where the pool's rows lie is another matter, see below
            line.pop("pool", None)
        assert one == other


def test_the_pool_of_any_shards_is_the_same_pool() -> None:
    plan = plan_of(passages(60))
    found = []
    for batches in (None, 7):
        lines, blobs = recorded(plan, batches=batches)
        unit = unit_lines(lines, blobs)[4]
        found.append(Pool(unit["pool"]["blob"], blobs.open))
        assert unit["pool"]["column"] == 4
    one, other = found
    for name in SETS:
        assert one.excerpts(name) == other.excerpts(name) and one.documents_of(name) == other.documents_of(
            name
        )
        np.testing.assert_array_equal(one.ids(name), other.ids(name))
        np.testing.assert_array_equal(one.activations(4, name), other.activations(4, name))


def test_the_pool_holds_the_activations_of_its_excerpts() -> None:
    plan = plan_of(passages(60), context=16)
    values = activations(known_subject(), plan)[1]
    lines, blobs = recorded(plan)
    place = {f"{name:016x}": number for number, name in enumerate(plan.id.tolist())}
    for unit in unit_lines(lines, blobs)[6:]:
        pool = Pool(unit["pool"]["blob"], blobs.open)
        assert pool.sizes == np.bincount(plan.set, minlength=3).tolist()
        assert pool.vocabulary[7] == " 7" and pool.embedding is None
        for number, name in enumerate(SETS):
            places = np.array([place[excerpt] for excerpt in pool.excerpts(name)])
            assert (plan.set[places] == number).all() and len(places) == (20, 10, 10)[number]
            np.testing.assert_array_equal(pool.ids(name), plan.ids(places))
            np.testing.assert_array_equal(pool.counted(name), plan.counted(places))
            truth = values[places, :, unit["unit"]["index"]]
            found = pool.activations(unit["pool"]["column"], name)
            np.testing.assert_allclose(found, truth, atol=np.nanmax(np.abs(truth)) * 2.0**-11)
            assert (np.isnan(found) == ~pool.counted(name)).all()


def test_the_same_line_twice_is_once() -> None:
    lines, blobs = recorded(plan_of(passages(60)), batches=5)
    assert unit_lines([*lines, *lines[:3]], blobs) == unit_lines(lines, blobs)


# Unit lines


def test_a_line_shows_excerpts_with_their_activations() -> None:
    plan = plan_of(passages(60))
    values = activations(known_subject(), plan)
    lines, blobs = recorded(plan)
    place = {f"{name:016x}": number for number, name in enumerate(plan.id.tolist())}
    units = unit_lines(lines, blobs, evidence=MANY)
    assert [(u["unit"]["layer"], u["unit"]["index"]) for u in units] == list(np.ndindex(2, 6))
    for unit in units:
        assert unit["unit"]["subject"] == "known" and unit["unit"]["fingerprint"] == "sha256:0"
        assert unit["unit"]["sign"] == ("+-" if unit["unit"]["layer"] == 0 else "+")
        for excerpt in unit["excerpts"]:
            where = place[excerpt["id"]]
            assert excerpt["document"] == plan.documents[plan.document[where]]
            assert excerpt["start"] == plan.start[where]
            assert excerpt["set"] == SETS[plan.set[where]]
            assert excerpt["ids"] == plan.ids(np.array([where]))[0].tolist()
            assert excerpt["tokens"] == [f" {token}" for token in excerpt["ids"]]
            truth = values[unit["unit"]["layer"]][where, :, unit["unit"]["index"]]
            shown = np.array(excerpt["activations"], np.float32)
            assert excerpt["activations"][0] is None and np.isnan(truth[0])
            np.testing.assert_allclose(shown, truth, atol=np.nanmax(np.abs(truth)) * 1e-3)


def test_picks_come_in_order_with_ranks() -> None:
    for unit in unit_lines(*recorded(plan_of(passages(60))), evidence=Counts(top=4, bottom=2, random=3)):
        picks = [(e["set"], e["pick"], e["rank"]) for e in unit["excerpts"]]
        sides = [("top", 4), ("bottom", 2)] if unit["unit"]["sign"] == "+-" else [("top", 4)]
        expected = [("evidence", pick, rank) for pick, k in [*sides, ("random", 3)] for rank in range(k)]
        assert picks[: len(expected)] == expected
        peaks = [np.nanmax(np.array(e["activations"], float)) for e in unit["excerpts"][:4]]
        assert peaks == sorted(peaks, reverse=True)


def test_activations_have_four_digits_of_the_largest() -> None:
    rows = np.array([[1234.5678, -0.04, np.nan], [0.00012345678, -0.0, 0.0], [0.0, 0.0, np.nan]], np.float32)
    short = rounded(rows)
    np.testing.assert_array_equal(
        short, np.array([[1235, 0, np.nan], [0.0001235, 0, 0], [0, 0, np.nan]], np.float32)
    )
    assert not np.signbit(short).any()


def test_only_the_units_asked_for_are_written() -> None:
    lines, blobs = recorded(plan_of(passages(60)), batches=5)
    asked = {0: [3, 1], 1: [5]}
    lines = [line | {"units": asked[line["layer"]]} for line in lines]
    found = [(u["unit"]["layer"], u["unit"]["index"]) for u in unit_lines(lines, blobs)]
    assert found == [(0, 1), (0, 3), (1, 5)]


# Statistics


def test_statistics_are_those_of_all_tokens() -> None:
    plan = plan_of(passages(80))
    truth = activations(known_subject(), plan)
    for unit in unit_lines(*recorded(plan, batches=3)):
        values = truth[unit["unit"]["layer"]][:, 1:, unit["unit"]["index"]].astype(np.float64)
        stats = unit["stats"]
        assert stats["tokens"] == values.size
        expected = {
            "mean": values.mean(),
            "variance": values.var(),
            "skewness": scipy.stats.skew(values, axis=None),
            "kurtosis": scipy.stats.kurtosis(values, axis=None, fisher=False),
            "max": values.max(),
        }
        if unit["unit"]["sign"] == "+-":
            expected["min"] = values.min()
        for name, value in expected.items():
            assert stats[name] == pytest.approx(value, rel=5e-6), name
        assert ("minima" in stats) == (unit["unit"]["sign"] == "+-")


def test_histograms_count_every_excerpt() -> None:
    plan = plan_of(passages(80))
    truth = activations(known_subject(), plan)
    for unit in unit_lines(*recorded(plan)):
        values = truth[unit["unit"]["layer"]][:, 1:, unit["unit"]["index"]]
        maxima = unit["stats"]["maxima"]
        assert maxima["below"] + sum(maxima["counts"]) == plan.size
        edges = [*maxima["edges"], np.inf]
        for low, high, count in zip(edges[:-1], edges[1:], maxima["counts"], strict=True):
            height = values.max(axis=1)
            high = high if high != np.inf else maxima["edges"][-1] * 1.5
            assert count == ((height >= low) & (height < high)).sum()


def test_the_share_of_active_tokens_is_estimated_without_bias() -> None:
    subject = known_subject()
    exact: dict[tuple[int, int], float] = {}
    estimates = defaultdict(list)
    for seed in range(30):
        plan = plan_of(passages(120), seed=seed)
        for number, values in activations(subject, plan).items():
            counted = values[:, 1:]
            for unit in range(6):
                share = (counted[:, :, unit] > 0.3 * counted[:, :, unit].max()).mean()
                exact[number, unit] = float(share)
        for unit in unit_lines(*recorded(plan, keep=Keep(top=1, spread=3)), **ONE_TOP):
            estimates[unit["unit"]["layer"], unit["unit"]["index"]].append(unit["stats"]["active"])
    check_unbiased(exact, estimates)


ONE_TOP = {"evidence": Counts(top=1), "validation": Counts(top=1), "held_out": Counts(top=1)}


def check_unbiased(exact: dict[Any, float], estimates: dict[Any, list[float]]) -> None:
    """Means over seeds lie around the truth as their standard errors say."""
    scores = []
    for name, truth in exact.items():
        found = np.array(estimates[name])
        error = found.std(ddof=1) / np.sqrt(len(found))
        scores.append((found.mean() - truth) / error)
    assert abs(np.array(scores)).max() < 4.5
    assert abs(np.mean(scores)) < 4 / np.sqrt(len(scores))
    assert len(scores) >= 12


# Dealing


@st.composite
def settings_of_a_deal(draw: st.DrawFn) -> dict[str, Any]:
    counts = st.builds(
        Counts,
        top=st.integers(0, 5),
        bottom=st.none() | st.integers(0, 5),
        spread=st.integers(0, 9),
        random=st.integers(0, 9),
    )
    return {
        "wanted": {name: draw(counts) for name in ("evidence", "validation", "held_out")},
        "cut": {
            "seed": draw(st.integers(0, 20)),
            "context": draw(st.sampled_from([8, 16])),
            "windows": draw(st.sampled_from(["all", "one"])),
            "draw": draw(st.sampled_from([None, 100])),
            "pool": draw(st.sampled_from([(20, 10, 10), (0, 4, 0), (500, 500, 500)])),
        },
        "vocabulary": draw(st.sampled_from([3, 30])),  # near duplicates are common among few tokens
        "sign": draw(st.sampled_from([None, "+", "-", "+-"])),
        "paper": draw(st.booleans()),
    }


def learned_and_scored(units: list[Record], blobs: Blobs, *, pools: bool) -> list[dict[str, set[str]]]:
    """Of each unit the documents by set: those of its excerpts, and of its pool."""
    found = []
    for unit in units:
        documents: dict[str, set[str]] = {name: set() for name in SETS}
        for excerpt in unit["excerpts"]:
            documents[excerpt["set"]].add(excerpt["document"])
        if pools and "pool" in unit:
            pool = Pool(unit["pool"]["blob"], blobs.open)
            for name in SETS:
                documents[name] |= set(pool.documents_of(name))
        found.append(documents)
    return found


@settings(max_examples=30, deadline=None)
@given(settings_of_a_deal())
def test_no_document_is_both_learned_from_and_scored_on(options: dict[str, Any]) -> None:
    plan = plan_of(passages(80, vocabulary=options["vocabulary"]), **options["cut"])
    lines, blobs = recorded(plan, sign=options["sign"], keep=Keep(top=20, spread=2), vocabulary=30)
    units = unit_lines(lines, blobs, paper=options["paper"], **options["wanted"])
    values = activations(known_subject(), plan)
    assert len(units) == 12
    for unit, documents in zip(units, learned_and_scored(units, blobs, pools=True), strict=True):
        assert not documents["evidence"] & documents["validation"]
        assert not documents["evidence"] & documents["held-out"]
        assert not documents["validation"] & documents["held-out"]
        names = [excerpt["id"] for excerpt in unit["excerpts"]]
        assert len(set(names)) == len(names)
        check_near_duplicates(unit, plan, values[unit["unit"]["layer"]][:, :, unit["unit"]["index"]])
        if options["paper"]:
            assert unit["protocol"] == "paper" and "pool" not in unit


def check_near_duplicates(unit: Record, plan: Plan, values: NDArray[np.float32]) -> None:
    """values: (excerpts, tokens). No two tops, or bottoms, have the same last eight tokens up to the peak."""
    place = {f"{name:016x}": number for number, name in enumerate(plan.id.tolist())}
    for pick, side in (("top", 1), ("bottom", -1)):
        shown = [place[e["id"]] for e in unit["excerpts"] if e["pick"] == pick]
        keys = [last_eight(plan, where, int(np.nanargmax(side * values[where]))) for where in shown]
        assert len(set(keys)) == len(keys)


def test_near_duplicates_between_sets_are_counted() -> None:
    plan = plan_of(passages(80, vocabulary=3))
    lines, blobs = recorded(plan)
    run = Run(lines, blobs.open, blobs.keep)
    list(run.units(dict.fromkeys(SETS, Counts(top=5)), paper=False))
    assert run.near_duplicates > 0


def test_counts_are_met_where_there_is_enough() -> None:
    wanted = {
        "evidence": Counts(top=5, random=7),
        "validation": Counts(top=2),
        "held_out": Counts(0, 0, 0, 4),
    }
    for unit in unit_lines(*recorded(plan_of(passages(80)), keep=Keep(20)), **wanted):
        tally: dict[tuple[str, str], int] = defaultdict(int)
        for excerpt in unit["excerpts"]:
            tally[excerpt["set"], excerpt["pick"]] += 1
        expected = {("evidence", "top"): 5, ("evidence", "random"): 7, ("validation", "top"): 2}
        if unit["unit"]["sign"] == "+-":
            expected |= {("evidence", "bottom"): 5, ("validation", "bottom"): 2}
        assert tally == expected | {("held-out", "random"): 4}


@pytest.mark.parametrize("pick", ["spread", "random"])
@pytest.mark.parametrize("bottom", [None, 0])
def test_estimates_from_what_is_drawn_have_no_bias(pick: str, bottom: int | None) -> None:
    """Of the sum of squares of all tokens: what is dealt earlier counts once, the rest by probability."""
    subject = known_subject(units=6)
    drawn = {"spread": 14} if pick == "spread" else {"random": 9}
    counts = Counts(top=3, bottom=bottom, **drawn)
    exact: dict[tuple[int, int], float] = {}
    estimates = defaultdict(list)
    text = passages(100)
    for seed in range(40):
        # The seed deals documents into sets as well: so all documents, whatever their set, make up the total.
        plan = plan_of(text, seed=seed, pool=(40, 40, 40))
        for number, values in activations(subject, plan).items():
            for unit in range(6):
                exact[number, unit] = float(np.square(values[:, 1:, unit].astype(np.float64)).sum())
        lines, blobs = recorded(plan, keep=Keep(top=5, spread=3))
        for line in unit_lines(lines, blobs, evidence=counts, validation=counts, held_out=counts):
            total = sum(weight(excerpt) * square(excerpt) for excerpt in line["excerpts"])
            estimates[line["unit"]["layer"], line["unit"]["index"]].append(total)
    check_unbiased(exact, estimates)


def weight(excerpt: Record) -> float:
    probability = excerpt["probability"]
    assert (probability is None) == (excerpt["pick"] in ("top", "bottom"))
    return 1.0 if probability is None else 1.0 / probability


def square(excerpt: Record) -> float:
    return float(np.nansum(np.square(np.array(excerpt["activations"], float))))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_a_probability_is_a_share(seed: int) -> None:
    plan = plan_of(passages(60, seed=seed), seed=seed)
    wanted = {"evidence": MANY, "validation": MANY, "held_out": MANY}
    for unit in unit_lines(*recorded(plan), **wanted):
        for excerpt in unit["excerpts"]:
            if excerpt["pick"] in ("spread", "random"):
                assert 0 < excerpt["probability"] <= 1


# The paper's protocol


def test_the_papers_ranks_go_round() -> None:
    plan = plan_of(passages(400, tokens=8))  # an excerpt is a document
    lines, blobs = recorded(plan, keep=Keep(top=20))
    values = activations(known_subject(), plan)[1]
    height = values[:, 1:].max(axis=1)
    for unit in unit_lines(lines, blobs, paper=True)[6:]:
        order = np.lexsort((plan.id, -height[:, unit["unit"]["index"]]))[:40]
        ranked = [f"{name:016x}" for name in plan.id[order].tolist()]
        shown = {(e["set"], e["pick"]): [] for e in unit["excerpts"]}
        for excerpt in unit["excerpts"]:
            shown[excerpt["set"], excerpt["pick"]].append(excerpt["id"])
        top = [name for name in ranked if any(name in names for names in shown.values())]
        tops = [name for name in top if any(name in shown.get((s, "top"), []) for s in SETS)]
        assert len(tops) == 20
        assert shown["evidence", "top"] == tops[0::4]
        assert shown["validation", "top"] == [name for rank, name in enumerate(tops) if rank % 4 in (1, 2)]
        assert shown["held-out", "top"] == tops[3::4]
        assert ("evidence", "random") not in shown
        assert len(shown["validation", "random"]) + len(shown["held-out", "random"]) <= 15


def test_the_papers_random_excerpts_are_drawn_from_all_text() -> None:
    found: list[str] = []
    for seed in range(12):
        plan = plan_of(passages(300, tokens=8), seed=seed, pool=(40, 40, 40))
        lines, blobs = recorded(plan, keep=Keep(top=20))
        sets = {f"{name:016x}": SETS[number] for name, number in zip(plan.id, plan.set, strict=True)}
        unit = unit_lines(lines, blobs, paper=True)[0]
        found += [sets[e["id"]] for e in unit["excerpts"] if e["pick"] == "random"]
    assert abs(found.count("evidence") / len(found) - 0.5) < 0.12


# Unusual units


def test_dead_and_constant_units_are_marked_and_stay() -> None:
    subject = known_subject()
    signed, plain = subject.model.layers  # type: ignore[misc]
    for known in (signed, plain):
        for table in (known.here, known.before):  # type: ignore[union-attr]
            table[:, 0] = 0.0  # nothing at all
            table[:, 1] = -abs(table[:, 1])  # nothing above zero
    signed.here[:, 2], signed.before[:, 2] = 0.3, 0.0  # type: ignore[union-attr, index, operator]
    units = unit_lines(*recorded(plan_of(passages(60)), subject))
    marks = [{name: unit.get(name) for name in ("dead", "constant")} for unit in units]
    assert marks[0] == {"dead": True, "constant": True}
    assert marks[1] == {"dead": None, "constant": None}  # its other side fires
    assert marks[2] == {"dead": None, "constant": True}
    assert marks[6] == marks[7] == {"dead": True, "constant": True}  # all zero behind the ReLU
    assert marks[3:6] + marks[8:] == [{"dead": None, "constant": None}] * 7
    constant = units[2]["stats"]
    assert constant["mean"] == pytest.approx(0.3) and constant["variance"] == 0
    assert constant["skewness"] is None and constant["kurtosis"] is None
    assert [e["pick"] for e in units[6]["excerpts"]] == ["random"] * 9


def test_a_layer_in_which_nothing_ever_fires() -> None:
    subject = known_subject(gated=[False])
    known = subject.model.layers[0]  # type: ignore[union-attr, index]
    known.here[:], known.before[:] = -1.0, -1.0
    units = unit_lines(*recorded(plan_of(passages(60)), subject, batches=4), evidence=MANY)
    assert [unit["dead"] for unit in units] == [True] * 6
    for unit in units:
        assert {excerpt["pick"] for excerpt in unit["excerpts"]} == {"random"}
        assert unit["stats"]["max"] == 0 and unit["stats"]["active"] == 0


def test_a_unit_of_one_side_is_dead_by_that_side() -> None:
    subject = known_subject(gated=[True])
    known = subject.model.layers[0]  # type: ignore[union-attr, index]
    for table in (known.here, known.before):
        table[:, 0] = -abs(table[:, 0])
        table[:, 1] = abs(table[:, 1])
    plan = plan_of(passages(60))
    assert [u.get("dead") for u in unit_lines(*recorded(plan, subject, sign="+"))][:3] == [True, None, None]
    assert [u.get("dead") for u in unit_lines(*recorded(plan, subject, sign="-"))][:3] == [None, True, None]


def test_a_unit_with_values_that_are_not_finite_is_an_error() -> None:
    subject = known_subject()
    subject.model.layers[0].here[7, 2] = np.inf  # type: ignore[union-attr, index]
    plan = plan_of(passages(60))
    units = unit_lines(*recorded(plan, subject, batches=4))
    counted = activations(subject, plan)[0][:, 1:, 2]
    count = int((~np.isfinite(counted)).sum())
    assert units[2]["error"] == {
        "stage": "record",
        "kind": "non-finite",
        "message": f"{count} activations are not finite",
    }
    assert units[2]["stats"]["nonfinite"] == count
    assert not set(MOMENTS) & set(units[2]["stats"])
    assert [number for number, unit in enumerate(units) if "error" in unit] == [2]
    json.dumps(units, allow_nan=False)


# Several runs


def test_runs_over_different_text_merge_into_one() -> None:
    text = passages(120)
    whole = plan_of(text, pool=(20, 10, 10))
    blobs = Blobs()
    lines = [
        line
        for part in (text[:50], text[50:])
        for line in recording_lines(known_subject(), plan_of(part, pool=(20, 10, 10)), blobs, batches=4)
    ]
    found = merged(lines, blobs)
    expected = merged(*recorded(whole))
    for side in ("top", "bottom"):
        np.testing.assert_array_equal(found.histogram[side], expected.histogram[side])
        for one, other in ((found.lists[side], expected.lists[side]), (found.spread, expected.spread)):
            np.testing.assert_array_equal(one.cell, other.cell)
            np.testing.assert_array_equal(found.corpus.id[one.excerpt], whole.id[other.excerpt])
            np.testing.assert_array_equal(found.rows(one), expected.rows(other))
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.corpus.sizes.tolist() == expected.corpus.sizes.tolist()


def test_the_pool_of_several_runs_is_as_random_as_that_of_one() -> None:
    text = passages(200, tokens=16)
    small, large = plan_of(text[:30], pool=(10, 5, 5)), plan_of(text[30:], pool=(10, 5, 5))
    blobs = Blobs()
    lines = [line for p in (small, large) for line in recording_lines(known_subject(), p, blobs)]
    found = merged(lines, blobs)
    whole = plan_of(text, pool=(10, 5, 5))
    pooled = np.flatnonzero(whole.pool_rank >= 0)
    expected = set(whole.id[pooled].tolist())
    names = set(found.corpus.id[found.pool.excerpt].tolist())
    assert expected <= names  # and more where the runs have more to offer
    draw = dict(zip(whole.id.tolist(), whole.draw.tolist(), strict=True))
    for number in range(3):
        mine = [draw[name] for name in names if whole.set[whole.id == name][0] == number]
        every = whole.draw[whole.set == number]
        assert sorted(mine) == sorted(every.tolist())[: len(mine)]


def test_an_excerpt_that_two_runs_have_is_shown_once() -> None:
    text = passages(100, tokens=16, vocabulary=2)
    blobs = Blobs()
    plans = [plan_of(text[:50]), plan_of([t for t in text[50:] if t.text not in {p.text for p in text[:50]}])]
    lines = [line for plan in plans for line in recording_lines(known_subject(), plan, blobs, keep=Keep(20))]
    run = Run(lines, blobs.open, blobs.keep)
    wanted = dict.fromkeys(SETS, Counts(top=5, spread=9, random=9))
    units = [json.loads(line) for line in run.units(wanted, paper=False)]
    shared = set(plans[0].id.tolist()) & set(plans[1].id.tolist())
    assert run.repeated == len(shared) > 0
    for unit in units:
        names = [e["id"] for e in unit["excerpts"]]
        assert len(set(names)) == len(names)
        sets: dict[str, set[str]] = {}
        for plan in plans:
            for name, number in zip(plan.id.tolist(), plan.set.tolist(), strict=True):
                sets.setdefault(f"{name:016x}", set()).add(SETS[number])
        for excerpt in unit["excerpts"]:  # of several sets it is in the first
            assert excerpt["set"] == min(sets[excerpt["id"]], key=SETS.index)


def test_layers_recorded_one_by_one_are_one_stream() -> None:
    plan = plan_of(passages(60))
    lines, blobs = recorded(plan, batches=4)
    apart = [
        line | {"run": f"run of layer {line['layer']}", "last": line["shard"] == line["shards"] - 1}
        for line in lines
    ]
    assert unit_lines(apart, blobs) == unit_lines(lines, blobs)


# What does not belong together, or is not whole


def change(lines: list[Record], number: int, **fields: Any) -> list[Record]:
    return [line | fields if place == number else line for place, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"subject": {"name": "known", "fingerprint": "sha256:1"}},
            "different subjects: sha256:0 and sha256:1",
        ),
        ({"dtype": "float16"}, "different dtypes"),
        ({"site": "resid"}, "different sites"),
        ({"keep": [3, 2]}, "different numbers of excerpts to keep"),
        ({"vocabulary": "0" * 64}, "different vocabularies"),
        ({"sign": "-"}, "different signs"),
        ({"shards": 9}, "different numbers of shards"),
        ({"plan": "0" * 64}, "different plans"),
        ({"run": "another"}, "recorded twice over the same text"),
    ],
)
def test_recordings_that_do_not_belong_together(fields: Record, message: str) -> None:
    lines, blobs = recorded(plan_of(passages(60)), batches=4)
    with pytest.raises(InputError, match=message):
        unit_lines(change(lines, 2, **fields), blobs)


def test_another_name_for_the_same_subject_is_no_other_subject() -> None:
    lines, blobs = recorded(plan_of(passages(60)), batches=4)
    renamed = change(lines, 2, subject={"name": "copy", "fingerprint": "sha256:0"})
    assert unit_lines(renamed, blobs) == unit_lines(lines, blobs)


def test_the_same_documents_in_two_runs() -> None:
    text = passages(80)
    blobs = Blobs()
    lines = [
        line
        for part in (text[:50], text[40:])
        for line in recording_lines(known_subject(), plan_of(part), blobs)
    ]
    with pytest.raises(InputError, match="hold the same document"):
        unit_lines(lines, blobs)


def test_excerpts_of_different_lengths() -> None:
    text = passages(120, tokens=48)
    blobs = Blobs()
    plans = [plan_of(text[:60]), plan_of(text[60:], context=16, excerpt=16)]
    lines = [line for plan in plans for line in recording_lines(known_subject(), plan, blobs)]
    with pytest.raises(InputError, match="different lengths"):
        unit_lines(lines, blobs)


def test_a_missing_shard_and_a_missing_end() -> None:
    lines, blobs = recorded(plan_of(passages(60)), batches=20)
    shards = lines[0]["shards"]
    assert shards > 2
    with pytest.raises(InputError, match=f"shard 2 of {shards} of layer 0 is missing: the stream was cut"):
        unit_lines([line for line in lines if (line["shard"], line["layer"]) != (1, 0)], blobs)
    whole, blobs = recorded(plan_of(passages(60)))
    with pytest.raises(InputError, match="the last recording line is missing: the stream was cut"):
        unit_lines(whole[:1], blobs)
    assert len(unit_lines([line for line in whole if line["layer"] == 1], blobs)) == 6


def test_each_run_needs_its_end() -> None:
    text = passages(120)
    blobs = Blobs()
    parts = [recording_lines(known_subject(), plan_of(part), blobs) for part in (text[:60], text[60:])]
    with pytest.raises(InputError, match="last recording line is missing"):
        unit_lines([*parts[0][:1], *parts[1]], blobs)


def test_a_blob_that_is_gone_is_named_with_what_brings_it_back() -> None:
    text = passages(120)
    blobs = Blobs()
    lines = []
    for number, part in enumerate((text[:60], text[60:])):
        made = recording_lines(known_subject(), plan_of(part), blobs)
        lines += [line | {"command": f"nx-record part-{number}"} for line in made]
    gone = lines[2]["pool"][0]

    def opened(digest: str) -> memoryview:
        if digest == gone:
            raise InputError(f"the blob {digest} is not in the store")
        return blobs.open(digest)

    run = Run(lines, opened, blobs.keep)
    with pytest.raises(InputError, match=rf"{gone}.* \(bring it back with: nx-record part-1\)"):
        list(run.units(dict.fromkeys(SETS, Counts(top=1)), paper=False))


def test_more_than_was_recorded_cannot_be_shown() -> None:
    lines, blobs = recorded(plan_of(passages(60)))
    with pytest.raises(
        UsageError, match=r"9 top excerpts are wanted and recordings keep 5 .nx-record --top 9"
    ):
        unit_lines(lines, blobs, evidence=Counts(top=9))
    with pytest.raises(UsageError, match="20 top excerpts"):
        unit_lines(lines, blobs, paper=True)


def test_no_pool_is_no_pool() -> None:
    plan = plan_of(passages(60), pool=(0, 0, 0))
    for unit in unit_lines(*recorded(plan)):
        assert "pool" not in unit
        assert {e["pick"] for e in unit["excerpts"]} <= {"top", "bottom"}


@pytest.mark.parametrize("name", ["blob", "plan", "sign", "width", "pool", "vocabulary", "keep", "command"])
def test_a_line_that_lacks_something_is_no_recording(name: str) -> None:
    lines, _ = recorded(plan_of(passages(60)))
    check_line(lines[0])
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        check_line({key: value for key, value in lines[0].items() if key != name})


@pytest.mark.parametrize("text", ["top", "top=x", "best=3", "top=-1", "", "top=3,,random=1", "top=²"])
def test_counts_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--evidence takes picks and numbers"):
        Counts.parse(text, "--evidence")


def test_counts_as_they_are_typed() -> None:
    assert Counts.parse("top=20, spread=3,random=40", "--evidence") == Counts(20, None, 3, 40)
    assert Counts.parse("random=1", "--evidence") == Counts(top=0, random=1)
    assert Counts.parse("bottom=2", "--evidence") == Counts(top=0, bottom=2)
