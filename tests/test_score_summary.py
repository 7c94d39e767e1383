"""The summary of a run: means, intervals that know units share documents, shares, absences, the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nxtools.score import summary as module
from nxtools.score.correlation import correlation
from nxtools.score.figures import Sample, Scored, as_record, score_block
from nxtools.score.summary import Mean, Summary, replicates

PICKS = ["top"] * 3 + ["random"] * 3


def units(count=40, seed=0, documents=30, quality=None, prefix="") -> list[Scored]:
    """Scores of units on documents drawn from a few; one that is hard to predict is so for all units."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.2, 2.0, documents)
    skill = rng.uniform(0.3, 1.0, count) if quality is None else np.full(count, quality)
    rows = np.stack([rng.permutation(documents)[: len(PICKS)] for _ in range(count)])
    truth = rng.normal(size=(count, len(PICKS), 16))
    predicted = skill[:, None, None] * truth + noise[rows][..., None] * rng.normal(size=truth.shape)
    return score_block(
        [
            Sample(f"{prefix}unit {u}", truth[u], predicted[u], PICKS, [f"document {d}" for d in rows[u]])
            for u in range(count)
        ],
        draws=0,
    )


def value(scored: Scored, figure="top_and_random") -> float:
    return scored.figures[figure].value


def constant(name: str) -> Scored:
    truth = np.random.default_rng(0).normal(size=(6, 16))
    return score_block([Sample(name, truth, np.zeros((6, 16)), PICKS, list("abcdef"))], draws=0)[0]


def add(summary, series, layers, scores) -> None:
    """Adds scores as nx-score does: records and replicates may have been in the store since another day."""
    for layer, scored, replicate in zip(layers, scores, replicates(scores), strict=True):
        documents = {name for names in scored.documents.values() for name in names}
        summary.add(series, layer, scored.name, as_record(scored), replicate, documents)


def summarised(scores, layers=2) -> Summary:
    summary = Summary(["pattern"])
    add(summary, "pattern", [i % layers for i in range(len(scores))], scores)
    return summary


def test_means_by_layer_and_overall():
    scores = units()
    summary = summarised(scores)
    assert summary.layers() == [0, 1]
    for layer, members in ((0, scores[::2]), (1, scores[1::2]), (None, scores)):
        for figure in ("top_and_random", "random_only"):
            mean = summary.mean("pattern", figure, layer)
            assert mean.value == pytest.approx(np.mean([value(s, figure) for s in members]), abs=1e-4)
            assert len(mean.values) == len(members)


def test_series_stand_beside_each_other():
    summary = Summary(["pattern", "null"])
    scores, null = units(10), units(12, seed=1, quality=0.0)
    add(summary, "pattern", [0] * 10, scores)
    add(summary, "null", [0] * 12, null)
    for series, members in (("pattern", scores), ("null", null)):
        expected = np.mean([value(s) for s in members])
        assert summary.mean(series, "top_and_random").value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="tabel is none of pattern, null"):
        add(summary, "tabel", [0], scores[:1])


def test_the_order_of_units_does_not_matter():
    scores = [*units(150), constant("dead")]
    order = np.random.default_rng(0).permutation(len(scores))
    one, other = Summary(["pattern"]), Summary(["pattern"])
    add(one, "pattern", [i % 3 for i in range(len(scores))], scores)
    add(other, "pattern", [int(i) % 3 for i in order], [scores[i] for i in order])
    assert one.lines() == other.lines()
    assert one.as_dict() == other.as_dict()


def test_summaries_of_parts_are_the_summary_of_all():
    scores = units(60)
    whole, parts = summarised(scores), Summary(("pattern",))
    for start in range(0, 60, 7):
        part = Summary(("pattern",))
        for place, one in enumerate(scores[start : start + 7], start):
            add(part, "pattern", [place % 2], [one])
        parts.include(part.settled())
    parts.fail("pattern")
    whole.fail("pattern")
    assert parts.as_dict() == whole.as_dict() and parts.lines() == whole.lines()


def test_reading_in_between_changes_nothing():
    scores = units(20)
    summary = Summary(["pattern"])
    for i, scored in enumerate(scores):
        add(summary, "pattern", [i % 2], [scored])
        summary.lines()
    assert summary.as_dict() == summarised(scores).as_dict()


def test_absent_scores_are_counted_by_reason_and_never_averaged():
    scores = units(4)
    summary = summarised([*scores, constant("dead")], layers=1)
    mean = summary.mean("pattern", "top_and_random")
    assert mean.value == pytest.approx(np.mean(list(map(value, scores))), abs=1e-4)
    assert mean.absent == {"constant prediction": 1}
    record = summary.as_dict()["pattern"]["top_and_random"]
    assert record["units"] == 4
    assert record["absent"] == {"constant prediction": 1}
    assert record["mean_absent_as_0"] == pytest.approx(sum(map(value, scores)) / 5, rel=1e-3)


def test_shares_over_the_thresholds_count_absent_scores_as_not_over():
    scores = [*units(30), constant("dead")]
    over = summarised(scores).as_dict()["pattern"]["over"]
    for threshold in (0.5, 0.7, 0.8, 0.9):
        share = sum(value(s) > threshold for s in scores[:-1]) / 31
        assert over[str(threshold)] == pytest.approx(share, abs=1e-4)


def test_the_same_units_have_the_same_interval_whenever_they_are_scored():
    assert summarised(units()).as_dict() == summarised(units()).as_dict()


def test_one_unit_or_one_document_has_a_mean_and_no_interval():
    single = score_block([Sample("u", *np.random.default_rng(0).random((2, 6, 16)), PICKS, ["one"] * 6)])
    for scores in (units(1), single * 3):
        record = summarised(scores).as_dict()["pattern"]["top_and_random"]
        assert record["units"] == len(scores)
        assert "interval" not in record


def test_nothing_scored_is_nothing_said():
    summary = Summary(["pattern"])
    assert summary.mean("pattern", "pool").value is None
    assert summary.lines() == [
        "mean ± 95% (units)  pattern",
        "absent              0",
        "failed              0",
    ]
    summary.fail("pattern")
    assert summary.as_dict()["pattern"]["failed"] == 1


def test_the_table_is_aligned_and_every_mean_has_its_interval_and_number_of_units():
    summary = Summary(["pattern", "null"])
    for series in summary.series:
        add(summary, series, [3] * 10, units(10))
    lines = summary.lines()
    column = lines[0].index("null")
    for line in lines[1:4]:
        for cell in (line[lines[0].index("pattern") : column], line[column:]):
            mean, margin, count = cell.split()
            assert float(mean) == pytest.approx(float(mean))
            assert margin.startswith("±")
            assert count == "(10)"
    assert [line.split("  ")[0] for line in lines[1:4]] == ["layer 3", "top and random", "random only"]
    assert json.loads(json.dumps(summary.as_dict())) == summary.as_dict()


def test_a_replicate_is_the_score_with_each_document_weighed():
    scored = units(3)[1]
    drawn = replicates(units(3))[1]
    assert set(drawn) == {"top_and_random", "random_only"}
    for figure, picks in (("top_and_random", ["top", "random"]), ("random_only", ["random"])):
        rows = np.concatenate([scored.sums[pick] for pick in picks])
        names = [name for pick in picks for name in scored.documents[pick]]
        weights = module.drawn_weights(names, "document")
        expected = [float(correlation(rows.T @ weights[:, draw])) for draw in range(module.DRAWS)]
        np.testing.assert_allclose(drawn[figure], expected, atol=1e-12)


def test_units_that_share_all_documents_have_the_replicates_they_have_alone():
    rng = np.random.default_rng(0)
    block = [Sample(f"unit {u}", *rng.normal(size=(2, 6, 16)), PICKS, list("abcdef")) for u in range(3)]
    scores = score_block(block, draws=0)
    for scored, together in zip(scores, replicates(scores), strict=True):
        for figure, drawn in replicates([scored])[0].items():
            np.testing.assert_allclose(drawn, together[figure], atol=1e-12)


def test_absent_figures_have_no_replicates_and_all_others_are_numbers():
    assert replicates([constant("dead")]) == [{}]
    sparse = np.zeros((6, 16))
    sparse[3, 4] = 1.0  # one active token among the random excerpts
    predicted = np.random.default_rng(0).normal(size=(6, 16))
    scored = score_block([Sample("sparse", sparse, predicted, PICKS, list("abcdef"))])
    drawn = replicates(scored)[0]
    assert np.isfinite(drawn["random_only"]).all()


def test_weights_are_exponential_and_belong_to_their_names():
    weights = module.drawn_weights([f"name {i}" for i in range(2000)], "unit")
    assert weights.min() > 0
    assert weights.mean() == pytest.approx(1.0, abs=0.02)
    assert weights.var() == pytest.approx(1.0, abs=0.04)
    assert np.array_equal(weights[7], module.drawn_weights(["name 7"], "unit")[0])
    assert abs(np.corrcoef(weights[:50])[np.triu_indices(50, 1)]).max() < 0.4


def test_a_mean_of_independent_values_has_the_textbook_interval():
    """Without documents in play (replicates equal to values) the interval is Student's."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=12)
    margins = []
    for k in range(200):
        mean = Mean(documents=100)
        names = [f"unit {k} {i}" for i in range(12)]
        mean.add(
            values.tolist(), module.drawn_weights(names, "unit"), np.repeat(values[:, None], module.DRAWS, 1)
        )
        margins.append(mean.margin)
    textbook = 2.201 * values.std(ddof=1) / np.sqrt(12)
    assert np.mean(margins) == pytest.approx(textbook, rel=0.05)


@pytest.mark.parametrize(("documents", "least", "most"), [(12, 0.9, 0.98), (2000, 0.95, 1.0)])
def test_intervals_of_means_hold_with_many_and_with_few_shared_documents(documents, least, most):
    """In 95% of runs with other units and other documents the interval should hold the mean of all runs.

    With few documents the interval over units alone holds it in fewer than half of them.
    """
    runs = [units(60, seed=run, documents=documents, quality=0.7, prefix=f"{run} ") for run in range(200)]
    means = [summarised(run).mean("pattern", "top_and_random") for run in runs]
    values = np.array([mean.values for mean in means])
    truth = values.mean()
    held = np.mean([abs(mean.value - truth) <= mean.margin for mean in means])
    alone = abs(values.mean(1) - truth) <= 1.96 * values.std(1, ddof=1) / np.sqrt(60)
    assert least <= held <= most
    if documents == 12:
        assert alone.mean() < 0.5


def test_the_gain_over_another_series_is_surer_than_the_difference_of_two_means():
    """Units and documents weigh alike in both, so what both share goes out of the difference."""
    summary = Summary(("explanation", "null"))
    rng = np.random.default_rng(0)
    levels = rng.uniform(0, 0.5, size=40)
    for number, level in enumerate(levels):
        noise = rng.normal(0, 0.01, size=(2, 200))
        documents = [f"d{number % 9}"]
        for series, value, drawn in (("explanation", level + 0.3, noise[0]), ("null", level, noise[1])):
            replicates = {"top_and_random": value + drawn}
            summary.add(series, 0, f"unit {number}", {"top_and_random": value}, replicates, documents)
    mine, null = (summary.mean(series, "top_and_random") for series in ("explanation", "null"))
    gain, margin = mine.above(null)
    assert gain == pytest.approx(0.3) and 0 < margin < 0.3 * mine.margin
    assert any(line.startswith("above the null") for line in summary.lines())
