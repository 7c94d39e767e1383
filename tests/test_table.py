"""The corpus table: every unit's mean by token over the evidence, and over nothing else."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import Blobs, activations, known_subject, passages, plan_of, recording_lines, unit_lines
from tiny_models import build

from nxtools.recordings.table import Table
from nxtools.records import SETS
from nxtools.subject.excerpts import Plan, set_of
from nxtools.subject.load import Subject
from nxtools.subject.sites import mlp_sites
from nxtools.subject.table import by_index, by_product
from nxtools.subject.text import Passage

Record = dict[str, Any]

SHORT = 2.0**-10  # float16 keeps eleven bits of a mean, in units of the unit's largest


def table_of(lines: list[Record], blobs: Blobs, layer: int = 0) -> Table:
    unit = next(unit for unit in unit_lines(lines, blobs) if unit["unit"]["layer"] == layer)
    return Table(unit["tables"]["corpus"]["blob"], blobs.open)


def by_hand(plan: Plan, values: Any) -> dict[int, tuple[int, np.ndarray]]:
    """Token to (count, mean (units,)), in the most obvious way."""
    seen: dict[int, list[np.ndarray]] = {}
    for place in np.flatnonzero(plan.set == SETS.index("evidence")):
        for token, value in zip(plan.ids(np.array([place]))[0], values[place], strict=True):
            if not np.isnan(value).any():
                seen.setdefault(int(token), []).append(value.astype(np.float64))
    return {token: (len(found), np.mean(found, axis=0)) for token, found in seen.items() if len(found) > 1}


def check(table: Table, expected: dict[int, tuple[int, np.ndarray]]) -> None:
    assert table.tokens.tolist() == sorted(expected)
    assert table.count.tolist() == [expected[token][0] for token in sorted(expected)]
    means = np.stack([expected[token][1] for token in sorted(expected)])
    for unit in range(means.shape[1]):
        tolerance = SHORT * np.abs(means[:, unit]).max() + 1e-9
        np.testing.assert_allclose(table.values(unit), means[:, unit], rtol=0, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([8, 16]), st.sampled_from([None, 1, 3]))
def test_it_has_the_mean_of_each_token_that_the_evidence_has_twice(
    seed: int, masked: bool, context: int, batches: int | None
) -> None:
    plan = plan_of(passages(50, vocabulary=200, seed=seed), masked_first=masked, context=context)
    subject = known_subject(vocabulary=200, seed=seed % 7)
    blobs = Blobs()
    lines = recording_lines(subject, plan, blobs, batches=batches, vocabulary=200, tables=True)
    for layer, values in activations(subject, plan).items():
        check(table_of(lines, blobs, layer), by_hand(plan, values))


def test_a_trained_architecture_s_table_is_the_mean_of_its_activations() -> None:
    model = build("llama").base_model
    subject = Subject(model, torch.device("cpu"), "float32", mlp_sites(model))
    plan = plan_of(passages(40, vocabulary=300))
    blobs = Blobs()
    lines = recording_lines(subject, plan, blobs, vocabulary=300, tables=True, bos=0)
    for layer, values in activations(subject, plan, bos=0).items():
        check(table_of(lines, blobs, layer), by_hand(plan, values))


def test_shards_of_any_size_in_any_order_give_the_same_table() -> None:
    plan, subject = plan_of(passages(80)), known_subject()
    whole, parts = Blobs(), Blobs()
    one = table_of(recording_lines(subject, plan, whole, tables=True), whole)
    lines = recording_lines(subject, plan, parts, batches=2, tables=True)
    many, turned = table_of(lines, parts), table_of(lines[::-1], parts)
    assert one.tokens.tolist() == many.tokens.tolist() and one.count.tolist() == many.count.tolist()
    for unit in range(6):
        largest = np.abs(one.values(unit)).max()
        np.testing.assert_allclose(one.values(unit), many.values(unit), rtol=0, atol=SHORT * largest)
        np.testing.assert_array_equal(many.values(unit), turned.values(unit))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_is_learned_from_other_sets(seed: int) -> None:
    """Other documents in validation and held-out leave the table as it is."""
    text = passages(60, seed=seed)
    evidence = [passage for passage in text if in_evidence(passage)]
    others = [passage for passage in text if not in_evidence(passage)]
    strange = [p for p in passages(80, vocabulary=15, seed=seed + 1) if not in_evidence(p)]
    subject, tables = known_subject(), []
    for documents in (evidence + others, evidence + strange):
        blobs = Blobs()
        tables.append(table_of(recording_lines(subject, plan_of(documents), blobs, tables=True), blobs))
    one, two = tables
    assert one.tokens.tolist() == two.tokens.tolist() and one.count.tolist() == two.count.tolist()
    for unit in range(6):
        largest = np.abs(one.values(unit)).max()
        np.testing.assert_allclose(one.values(unit), two.values(unit), rtol=0, atol=SHORT * largest)


def in_evidence(passage: Passage) -> bool:
    return SETS[set_of(sha256(passage.text.encode()).hexdigest()[:16], seed=0)] == "evidence"


def test_without_tables_nothing_is_different() -> None:
    plan, subject = plan_of(passages(60)), known_subject()
    without, having = Blobs(), Blobs()
    lines = recording_lines(subject, plan, without)
    tabled = recording_lines(subject, plan, having, tables=True)
    assert lines == [{k: v for k, v in line.items() if k != "tables"} for line in tabled]
    assert "tables" not in unit_lines(lines, without)[0]


def test_recordings_of_which_one_has_no_table_have_none_and_say_so() -> None:
    from nxtools.recordings.deal import Counts
    from nxtools.recordings.run import Run

    plan, blobs = plan_of(passages(60)), Blobs()
    lines = recording_lines(known_subject(), plan, blobs, batches=2, tables=True)
    del lines[0]["tables"]
    run = Run(lines, blobs.open, blobs.keep)
    units = list(run.units(dict.fromkeys(SETS, Counts(top=1, random=1)), paper=False))
    assert run.partial == {"corpus"}
    assert [b'"tables"' in unit for unit in units] == [False] * 6 + [True] * 6


def test_runs_over_different_text_have_one_table() -> None:
    blobs, subject = Blobs(), known_subject()
    plans = [plan_of(passages(60, seed=seed)) for seed in (1, 2)]
    parts = [recording_lines(subject, plan, blobs, tables=True) for plan in plans]
    table = table_of(parts[0] + parts[1], blobs)
    found = [by_hand(plan, activations(subject, plan)[0]) for plan in plans]
    expected = {}
    for token in found[0].keys() | found[1].keys():
        of_both = [one[token] for one in found if token in one]
        count = sum(n for n, _ in of_both)
        expected[token] = (count, sum(n * mean for n, mean in of_both) / count)
    check(table, expected)


def test_permuting_units_permutes_the_table() -> None:
    plan = plan_of(passages(60))
    usual, permuted = known_subject(), known_subject()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for layer in permuted.model.layers:  # type: ignore[union-attr]
        layer.here, layer.before = layer.here[:, order], layer.before[:, order]
    first, second = Blobs(), Blobs()
    one = table_of(recording_lines(usual, plan, first, tables=True), first)
    two = table_of(recording_lines(permuted, plan, second, tables=True), second)
    for place, unit in enumerate(order.tolist()):
        np.testing.assert_array_equal(two.values(place), one.values(unit))


def test_negating_and_scaling_a_unit_negates_and_scales_its_column() -> None:
    plan = plan_of(passages(60))
    usual, changed = known_subject(gated=(True,)), known_subject(gated=(True,))
    factor = torch.tensor([-1.0, 4.0, -0.5, 1.0, 2.0, -8.0])  # of two, so that nothing is rounded
    changed.model.layers[0].here *= factor  # type: ignore[union-attr, operator, index]
    changed.model.layers[0].before *= factor  # type: ignore[union-attr, operator, index]
    first, second = Blobs(), Blobs()
    one = table_of(recording_lines(usual, plan, first, tables=True), first)
    two = table_of(recording_lines(changed, plan, second, tables=True), second)
    for unit, by in enumerate(factor.tolist()):
        np.testing.assert_array_equal(two.values(unit), by * one.values(unit))


@pytest.mark.parametrize("units", [1, 7])
def test_sums_in_a_fixed_order_for_other_devices_are_those_of_the_processor(units: int) -> None:
    chance = np.random.default_rng(0)
    rows = torch.from_numpy(chance.standard_normal((50, units)).astype(np.float32))
    number = torch.from_numpy(chance.integers(5, size=50))
    torch.testing.assert_close(by_index(rows, number, 5), by_product(rows, number, 5), rtol=0, atol=1e-5)
