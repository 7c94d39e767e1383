"""Recordings against a plain pass over the same text, all activations in memory, and sorting."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
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
)
from tiny_models import build

from nxtools.recordings.layer import Entries, Layer
from nxtools.records import SETS
from nxtools.subject.bins import BINS, bin_edges
from nxtools.subject.excerpts import Plan
from nxtools.subject.load import Subject
from nxtools.subject.parts import near_keys
from nxtools.subject.recorder import Keep
from nxtools.subject.sites import mlp_sites

SIDES = {"top": 1.0, "bottom": -1.0}
KEEP = Keep(top=5, spread=2)


def tiny_subject(model_type: str, **changes: Any) -> Subject:
    model = build(model_type, **changes).base_model
    return Subject(model, torch.device("cpu"), "float32", mlp_sites(model))


# The same by brute force


def extremes(values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """By side the height (excerpts, units) of each excerpt."""
    return {"top": np.nanmax(values, axis=1), "bottom": -np.nanmin(values, axis=1)}


def best(
    plan: Plan, values: NDArray[np.float32], unit: int, number: int, side: str, k: int
) -> list[tuple[float, int]]:
    """(height, id) of the k highest excerpts of a set above zero, near duplicates once."""
    height = extremes(values)[side][:, unit]
    seen: set[tuple[int, ...]] = set()
    found: list[tuple[float, int]] = []
    for place in sorted(range(plan.size), key=lambda p: (-height[p], plan.id[p])):
        if plan.set[place] != number or not height[place] > 0 or len(found) == k:
            continue
        peak = int(np.nanargmax(SIDES[side] * values[place, :, unit]))
        key = last_eight(plan, place, peak)
        if key not in seen:
            seen.add(key)
            found.append((float(height[place]), int(plan.id[place])))
    return found


def bin_of(height: float) -> int:
    """0 for what is below 2^-16, then half octaves; the last has all above."""
    return min(int(np.searchsorted(bin_edges(), height, side="right")), BINS - 1)


def some_units(layer: Layer) -> range:
    return range(0, layer.units, max(1, layer.units // 6))


def check_lists(layer: Layer, plan: Plan, values: NDArray[np.float32], keep: Keep = KEEP) -> None:
    for side, entries in layer.lists.items():
        for unit in some_units(layer):
            for number in range(len(SETS)):
                mine = entries.at(np.flatnonzero(entries.cell == number * layer.units + unit))
                found = list(zip(mine.rank.tolist(), plan.id[mine.excerpt].tolist(), strict=True))
                assert found == best(plan, values, unit, number, side, keep.top)


def check_rows(layer: Layer, values: NDArray[np.float32], entries: Entries, unit: NDArray[Any]) -> None:
    """Rows are kept as float16 in units of their largest magnitude."""
    rows, truth = layer.rows(entries), values[entries.excerpt, :, unit]
    assert (np.isnan(rows) == np.isnan(truth)).all()
    scale = np.nanmax(np.abs(truth), axis=1, keepdims=True)
    assert np.nanmax(np.abs(rows - truth) / np.where(scale > 0, scale, 1)) <= 2.0**-11
    peak = np.nanmax(np.abs(rows), axis=1, keepdims=True)
    np.testing.assert_array_equal(peak, scale)


def check_spread(layer: Layer, plan: Plan, values: NDArray[np.float32], keep: Keep = KEEP) -> None:
    """Of every stratum (side of the largest magnitude, and its bin) those with the lowest priorities."""
    height = extremes(values)
    if layer.minimum is None:
        height["bottom"] = np.full_like(height["top"], -np.inf)
    for unit in some_units(layer):
        high, low = height["top"][:, unit], height["bottom"][:, unit]
        stratum = np.array(
            [bin_of(max(pair)) + BINS * (pair[1] > pair[0]) for pair in zip(high, low, strict=True)]
        )
        for number in range(len(SETS)):
            mine = plan.set == number
            for side, histogram in layer.histogram.items():
                counts = np.bincount([bin_of(h) for h in height[side][mine, unit]], minlength=BINS)
                np.testing.assert_array_equal(histogram[number, unit], counts)
            first = (number * layer.units + unit) * layer.strata
            for which in range(layer.strata):
                members = np.flatnonzero(mine & (stratum == which)).tolist()
                assert layer.drawn_from[first + which] == len(members)
                drawn = sorted(members, key=lambda p: (plan.priority[p], plan.id[p]))[: keep.spread]
                found = layer.spread.excerpt[layer.spread.cell == first + which].tolist()
                assert found == (drawn if which % BINS else [])


def check_statistics(layer: Layer, plan: Plan, values: NDArray[np.float32]) -> None:
    for number in range(len(SETS)):
        mine = values[plan.set == number]
        assert layer.tokens[number] == (~np.isnan(mine[:, :, 0])).sum()
        np.testing.assert_array_equal(layer.maximum[number], np.nanmax(mine, axis=(0, 1)))
        if layer.minimum is not None:
            np.testing.assert_array_equal(layer.minimum[number], np.nanmin(mine, axis=(0, 1)))
        for power in range(1, 5):
            truth = np.nansum(mine.astype(np.float64) ** power, axis=(0, 1))
            size = np.nansum(np.abs(mine.astype(np.float64)) ** power, axis=(0, 1))
            assert np.all(np.abs(layer.powers[power - 1, number] - truth) <= 1e-13 * size)


def check_pool(layer: Layer, plan: Plan, values: NDArray[np.float32]) -> None:
    pooled = np.flatnonzero(plan.pool_rank >= 0).tolist()
    expected = np.array(sorted(pooled, key=lambda p: (plan.set[p], plan.pool_rank[p])), int)
    assert layer.pool.excerpt.tolist() == expected.tolist()
    for unit in range(layer.units):
        member = np.arange(len(expected))
        rows = layer.pool_rows(np.full(len(member), unit), member)
        truth = values[expected, :, unit]
        assert (np.isnan(rows) == np.isnan(truth)).all()
        scale = np.nanmax(np.abs(truth), axis=1, keepdims=True)
        assert np.nanmax(np.abs(rows - truth) / np.where(scale > 0, scale, 1)) <= 2.0**-11


def check_all(layer: Layer, plan: Plan, values: NDArray[np.float32], keep: Keep = KEEP) -> None:
    check_lists(layer, plan, values, keep)
    check_spread(layer, plan, values, keep)
    check_statistics(layer, plan, values)
    check_pool(layer, plan, values)
    for entries in layer.lists.values():
        check_rows(layer, values, entries, entries.cell % layer.units)
    check_rows(layer, values, layer.spread, layer.spread.cell // layer.strata % layer.units)


# Every way of cutting text, on subjects whose activations are the same in any batch


@settings(max_examples=12, deadline=None)
@given(
    cut=st.sampled_from(
        [
            {},
            {"context": 16},
            {"context": 32, "masked_first": False},
            {"masked_first": False},
            {"windows": "one", "context": 16},
            {"draw": 90},
            {"draw": 70, "context": 24},
            {"pool": (0, 3, 500)},
        ]
    ),
    bos=st.sampled_from([None, 3]),
    batch=st.sampled_from([1, 4, 7]),
    batches=st.sampled_from([None, 3]),
    keep=st.sampled_from([KEEP, Keep(top=1, spread=1), Keep(top=12, spread=4)]),
    seed=st.integers(0, 100),
)
def test_a_recording_is_what_sorting_everything_gives(
    cut: dict[str, Any], bos: int | None, batch: int, batches: int | None, keep: Keep, seed: int
) -> None:
    plan = plan_of(passages(40, tokens=42, vocabulary=9, seed=seed), seed=seed, **cut)
    subject = known_subject(vocabulary=9, seed=seed)
    blobs = Blobs()
    lines = recording_lines(subject, plan, blobs, keep=keep, batch=batch, batches=batches, bos=bos)
    for number, values in activations(subject, plan, batch, bos).items():
        check_all(merged(lines, blobs, number), plan, values, keep)


# Real architectures


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("context", [8, 32])
@pytest.mark.parametrize("bos", [None, 0])
def test_a_recording_of_a_tiny_model(model_type: str, context: int, bos: int | None) -> None:
    subject = tiny_subject(model_type)
    plan = plan_of(passages(40, vocabulary=300), context=context, masked_first=bos is None)
    blobs = Blobs()
    lines = recording_lines(subject, plan, blobs, batch=8, batches=3, bos=bos, vocabulary=300)
    truth = activations(subject, plan, batch=8, bos=bos)
    assert set(truth) == {0, 1, 2}
    for number, values in truth.items():
        check_all(merged(lines, blobs, number), plan, values)
    assert merged(lines, blobs).sign == ("+-" if model_type == "llama" else "+")


def test_what_stands_before_an_excerpt_is_seen() -> None:
    subject = tiny_subject("gpt2")
    text = passages(40, vocabulary=300)
    short, long = plan_of(text, masked_first=False), plan_of(text, context=32, masked_first=False)
    first = {int(i): row for i, row in zip(short.id, activations(subject, short, 8)[2], strict=True)}
    for place, row in enumerate(activations(subject, long, 8)[2]):
        same = np.allclose(row, first[int(long.id[place])], atol=1e-5)
        assert same == (long.slot[place] == 0)


def test_where_a_batch_ends_has_no_effect() -> None:
    subject = tiny_subject("gpt2")
    plan = plan_of(passages(40, vocabulary=300))
    few, many = (activations(subject, plan, batch)[2] for batch in (3, 64))
    np.testing.assert_allclose(few, many, atol=1e-5)


def test_a_side_that_was_not_asked_for_is_not_recorded() -> None:
    plan = plan_of(passages(40))
    blobs = Blobs()
    lines = recording_lines(known_subject(gated=[True]), plan, blobs, sign="+")
    assert merged(lines, blobs).lists.keys() == {"top"}
    both = recording_lines(known_subject(gated=[False]), plan, blobs, sign="-")
    assert merged(both, blobs).lists.keys() == {"top", "bottom"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_recorded_as_they_are(dtype: torch.dtype) -> None:
    subject = known_subject()
    subject.model.to(dtype)
    for layer in subject.model.layers:  # type: ignore[union-attr]
        layer.here, layer.before = layer.here.to(dtype), layer.before.to(dtype)
    plan = plan_of(passages(40))
    blobs = Blobs()
    lines = recording_lines(subject, plan, blobs)
    for number, values in activations(subject, plan).items():
        check_all(merged(lines, blobs, number), plan, values)


# What does not matter


def test_settling_at_other_times_leaves_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(passages(60))
    usual, often, seldom = Blobs(), Blobs(), Blobs()
    lines = recording_lines(known_subject(), plan, usual)
    from nxtools.subject import recorder

    settle = recorder.LayerRecorder._settle
    monkeypatch.setattr(recorder.LayerRecorder, "add", settling_after_each(recorder.LayerRecorder.add))
    lines_often = recording_lines(known_subject(), plan, often)
    monkeypatch.undo()
    monkeypatch.setattr(recorder.LayerRecorder, "_settle", lambda self: None)
    monkeypatch.setattr(
        recorder.LayerRecorder, "finish", settling_before(recorder.LayerRecorder.finish, settle)
    )
    lines_seldom = recording_lines(known_subject(), plan, seldom)
    assert [line["blob"] for line in lines] == [line["blob"] for line in lines_often]
    assert [line["blob"] for line in lines] == [line["blob"] for line in lines_seldom]


def settling_after_each(add: Any) -> Any:
    def wrapped(self: Any, *arguments: Any) -> None:
        add(self, *arguments)
        self._settle()

    return wrapped


def settling_before(finish: Any, settle: Any) -> Any:
    def wrapped(self: Any) -> Any:
        settle(self)
        return finish(self)

    return wrapped


def test_the_pool_in_small_parts_is_the_same_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(passages(60))
    whole, parts = Blobs(), Blobs()
    lines = recording_lines(known_subject(), plan, whole)
    monkeypatch.setattr("nxtools.subject.rows.POOL_PART_BYTES", 3 * 6 * 8 * 2)  # three excerpts
    lines_in_parts = recording_lines(known_subject(), plan, parts)
    assert [len(line["pool"]) for line in lines] == [1, 1]
    assert [len(line["pool"]) for line in lines_in_parts] == [14, 14]
    for number in (0, 1):
        one, many = merged(lines, whole, number), merged(lines_in_parts, parts, number)
        assert one.pool.excerpt.tolist() == many.pool.excerpt.tolist()
        member = np.arange(40)
        for unit in range(6):
            column = np.full(40, unit)
            np.testing.assert_array_equal(one.pool_rows(column, member), many.pool_rows(column, member))


def test_copying_few_rows_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(passages(60))
    usual, few = Blobs(), Blobs()
    lines = recording_lines(known_subject(), plan, usual)
    monkeypatch.setattr("nxtools.subject.recorder.ENTRANTS", 5)
    monkeypatch.setattr("nxtools.subject.reduce.PIECE", 100)
    assert [line["blob"] for line in lines] == [
        line["blob"] for line in recording_lines(known_subject(), plan, few)
    ]


def test_a_subject_whose_values_depend_on_the_batch_keeps_the_same_tops_but_for_close_maxima() -> None:
    plan = plan_of(passages(80, tokens=64))
    subject = known_subject(noise=1e-6)
    found = []
    for batch in (4, 16):
        blobs = Blobs()
        found.append(merged(recording_lines(subject, plan, blobs, batch=batch), blobs))
    one, other = found
    assert not np.array_equal(one.lists["top"].rank, other.lists["top"].rank)  # the noise is there
    for side in SIDES:
        for cell in range(len(SETS) * one.units):
            few, many = (layer.lists[side].at(layer.lists[side].cell == cell) for layer in found)
            np.testing.assert_allclose(few.rank, many.rank, atol=1e-5)
            for mine, others in ((few, many), (many, few)):
                replaced = ~np.isin(mine.excerpt, others.excerpt)
                others_new = others.rank[~np.isin(others.excerpt, mine.excerpt)]
                for rank in mine.rank[replaced]:  # by another whose maximum is as high
                    assert abs(others_new - rank).min() < 1e-5


# What is unusual


def test_activations_that_are_not_finite_are_counted_and_never_listed() -> None:
    subject = known_subject(gated=[True])
    known = subject.model.layers[0]  # type: ignore[union-attr, index]
    known.here[7, 2] = torch.inf
    known.here[8, 3] = torch.nan
    plan = plan_of(passages(60))
    blobs = Blobs()
    layer = merged(recording_lines(subject, plan, blobs), blobs)
    values = activations(subject, plan)[0]

    counted = plan.counted(np.arange(plan.size))
    expected = (~np.isfinite(values) & counted[:, :, None]).sum(axis=(0, 1))
    assert layer.nonfinite.tolist() == expected.tolist()
    assert expected[2] > 0 and expected[3] > 0 and expected[[0, 1, 4, 5]].sum() == 0
    for side in SIDES:
        assert np.isfinite(layer.lists[side].rank).all()
        entries = layer.lists[side]
        assert np.isfinite(values[entries.excerpt, 1:, entries.cell % layer.units]).all()
    sound = [0, 1, 4, 5]
    highest = np.nanmax(values[:, :, sound], axis=(0, 1))
    np.testing.assert_array_equal(layer.maximum.max(axis=0)[sound], highest)


def test_numbers_that_float16_cannot_hold() -> None:
    subject = known_subject(gated=[True])
    known = subject.model.layers[0]  # type: ignore[union-attr, index]
    known.here[:, 0] *= 1e6
    known.before[:, 0] *= 1e6
    known.here[:, 1] *= 1e-9
    known.before[:, 1] *= 1e-9
    plan = plan_of(passages(60))
    blobs = Blobs()
    layer = merged(recording_lines(subject, plan, blobs), blobs)
    check_all(layer, plan, activations(subject, plan)[0])
    assert layer.maximum[:, 0].max() > 65504


# Parts


def test_keys_are_the_last_eight_tokens_of_the_context() -> None:
    chance = np.random.default_rng(0)
    contexts = chance.integers(0, 2, size=(40, 12)).astype(np.int32)
    keys = near_keys(contexts)
    last = {(row, end): tuple(contexts[row, max(0, end - 7) : end + 1]) for row, end in np.ndindex(40, 12)}
    meaning: dict[int, tuple[int, ...]] = {}
    for place, tokens in last.items():
        assert meaning.setdefault(int(keys[place]), tokens) == tokens
    assert len(meaning) == len(set(last.values()))


def test_bins_are_half_octaves() -> None:
    from nxtools.subject.bins import bins_of

    edges = bin_edges().astype(np.float32)
    assert len(edges) == BINS - 1 and edges[0] == 2.0**-16 and edges[-1] == 1.5 * 2.0**15
    assert all(high / low in (1.5, 4 / 3) for low, high in pairwise(edges.tolist()))
    np.testing.assert_array_equal(bins_of(edges), np.arange(1, BINS))
    np.testing.assert_array_equal(bins_of(np.nextafter(edges, np.float32(0))), np.arange(BINS - 1))
    odd = np.array([-1.0, -0.0, 0.0, 1e-30, 1e30, np.inf], np.float32)
    assert bins_of(odd).tolist() == [0, 0, 0, 0, BINS - 1, BINS - 1]
