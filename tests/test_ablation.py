"""What replacing a unit does to the output, and the score made of it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_models
import torch
from asked import ask
from conftest import ROOT, UNITS, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, rel_entr
from scipy.stats import t as student_t

from nxtools.recordings.contexts import Contexts
from nxtools.records import Failure
from nxtools.report.distribution import Distribution
from nxtools.score.ablation import IN_NOISE, Ablated, as_record, reweighted, score
from nxtools.score.ablation_summary import AblationSummary, share_interval
from nxtools.score.calibration import Line, calibrate
from nxtools.score.effects import effect
from nxtools.score.held import Held
from nxtools.score.replicates import packed, unpacked
from nxtools.score.series import Target
from nxtools.score.summary import drawn_weights
from nxtools.subject.ablating import Ablator
from nxtools.subject.load import Subject
from nxtools.subject.outputs import Output
from nxtools.subject.patch import Patcher
from nxtools.subject.replacing import Replacement
from nxtools.subject.sites import mlp_sites
from nxtools.unit import Unit, full_name

# Two outputs


@pytest.mark.parametrize("spread", [1e-4, 1.0, 30.0])
def test_divergences_are_those_of_scipy(spread: float) -> None:
    chance = np.random.default_rng(0)
    ids = torch.from_numpy(chance.integers(50, size=6))
    logits = chance.normal(size=(6, 50)) * 5
    other = logits + spread * chance.normal(size=(6, 50))
    apart = Output(torch.from_numpy(logits), ids).apart(torch.from_numpy(other))

    log, other_log = log_softmax(logits, axis=-1), log_softmax(other, axis=-1)
    p, q = np.exp(log), np.exp(other_log)
    np.testing.assert_allclose(apart.jsd, jensenshannon(p, q, axis=-1) ** 2, rtol=1e-9, atol=1e-13)
    mixed = (p + q) / 2
    np.testing.assert_allclose(
        apart.jsd, (rel_entr(p, mixed) + rel_entr(q, mixed)).sum(-1) / 2, rtol=1e-9, atol=1e-15
    )
    np.testing.assert_allclose(apart.kl, rel_entr(p, q).sum(-1), rtol=1e-9, atol=1e-15)
    following = (np.arange(5), ids[1:].numpy())
    np.testing.assert_allclose(apart.loss, log[:-1][following] - other_log[:-1][following], atol=1e-9)


def test_a_constant_more_on_all_logits_is_the_same_output() -> None:
    logits = torch.randn((4, 20), generator=torch.Generator().manual_seed(0))
    output = Output(logits, torch.arange(4))
    apart = output.apart(logits.double() + 3)
    assert float(apart.jsd.abs().max()) < 1e-15 and float(apart.kl.abs().max()) < 1e-14
    assert float(output.moved(logits + 3).abs().max()) < 1e-6


def test_divergences_far_below_single_precision_are_told_apart() -> None:
    """JSD is about d²/8 where logits differ by ±d: 1e-13, of terms near 1e-6. float32 has seven digits."""
    logits = torch.zeros((1, 2), dtype=torch.float64)
    other = torch.tensor([[1e-6, -1e-6]], dtype=torch.float64)
    apart = Output(logits, torch.zeros(1, dtype=torch.int64)).apart(other)
    assert float(apart.jsd[0]) == pytest.approx(1e-12 / 8, rel=1e-3)


# The engine

IDS = np.arange(48, dtype=np.int32).reshape(3, 16) * 7 % tiny_models.VOCABULARY


def patcher_of(family: str = "gpt2") -> Patcher:
    model = tiny_models.build(family)
    trunk = model.base_model
    return Patcher(Subject(trunk, torch.device("cpu"), "float32", mlp_sites(trunk), model))


@pytest.fixture(scope="module")
def patcher() -> Patcher:
    return patcher_of()


def full(patcher: Patcher, ids: Any, layer: int = 0, index: int = 0, values: Any = None) -> Any:
    """(logits, the unit's values) of a whole pass, with the unit's values replaced if there are some."""
    seen: list[Any] = []

    def replace(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = inputs[0].clone()
        seen.append(changed[0, :, index].numpy().copy())
        if values is not None:
            keep = np.isnan(values)
            changed[0, :, index] = torch.from_numpy(np.where(keep, seen[-1], values).astype(np.float32))
        return (changed,)

    handle = patcher.sites[layer].module.register_forward_pre_hook(replace)
    with torch.inference_mode():
        logits = patcher.model(input_ids=torch.from_numpy(np.array(ids)[None]).long()).logits[0].numpy()
    handle.remove()
    return logits, seen[0]


def job_of(
    patcher: Patcher,
    replaced: Any = "itself",
    *,
    layer: int = 1,
    index: int = 5,
    before: int = 0,
    first_counts: bool = False,
    ids: Any = IDS,
    **changes: Any,
) -> Replacement:
    """A question about some excerpts; a number replaces the unit everywhere, "truth" stands for its own."""
    truth = np.stack([full(patcher, row, layer, index)[1][before:] for row in ids])
    if not first_counts and not before:
        truth[:, 0] = np.nan
    if isinstance(replaced, float):
        replaced = np.full(truth.shape, replaced, np.float32)
    values = {"itself": None, "truth": truth}[replaced] if isinstance(replaced, str) else replaced
    given = {
        "subject": "tiny",
        "fingerprint": "sha256:1",
        "site": "mlp",
        "dtype": "float32",
        "tolerance": 1e-2,
        "moves": [False] * len(ids),
    }
    return Replacement(
        layer=layer,
        index=index,
        contexts=list(ids),
        before=[before] * len(ids),
        truth=truth,
        replaced=values,
        **given | changes,
    )


def answers(patcher: Patcher, jobs: list[Replacement], **options: Any) -> list[Any]:
    return ask(Ablator(lambda job: patcher, **options), jobs)


@pytest.mark.parametrize("before", [0, 4])
def test_answers_are_those_of_full_passes(patcher: Patcher, before: int) -> None:
    job = job_of(patcher, 1.5, before=before, moves=[True, False, True])
    (answer,) = answers(patcher, [job])
    moved = []
    for place, ids in enumerate(IDS):
        values = np.full(16, np.nan, np.float32)
        values[before:] = np.where(np.isnan(job.truth[place]), np.nan, 1.5)
        logits, other = (full(patcher, ids, 1, 5, given)[0][before:] for given in (None, values))
        log, other_log = (log_softmax(x.astype(np.float64), axis=-1) for x in (logits, other))
        counted = ~np.isnan(job.truth[place])
        jsd = jensenshannon(np.exp(log), np.exp(other_log), axis=-1)[counted] ** 2
        assert answer["jsd"][place] == pytest.approx(jsd.sum(), rel=1e-4)
        kl = rel_entr(np.exp(log), np.exp(other_log)).sum(-1)[counted]
        assert answer["kl"][place] == pytest.approx(kl.sum(), rel=1e-4)
        following = ids[before + 1 :]
        at = np.arange(len(following))
        loss = (log[at, following] - other_log[at, following])[counted[:-1]]
        assert answer["loss"][place] == pytest.approx(loss.sum(), rel=1e-3, abs=1e-5)
        if job.moves[place]:
            change = (other - logits)[counted]
            moved.append(change - change.mean(1, keepdims=True))
    mean = np.concatenate(moved).mean(0)
    order = np.argsort(-mean)
    assert [token for token, _ in answer["raises"]] == order[:10].tolist()
    assert [token for token, _ in answer["lowers"]] == order[::-1][:10].tolist()
    assert [x for _, x in answer["lowers"]] == pytest.approx(mean[order[::-1][:10]], rel=1e-2)


def test_the_original_output_is_computed_once_for_all_units_layers_and_replacements() -> None:
    patcher = patcher_of()
    jobs = [
        job_of(patcher, replaced, layer=layer, index=index)
        for layer in range(3)
        for index in (1, 2)
        for replaced in ("itself", 0.0, 1.0)
    ]
    together = answers(patcher, jobs)
    assert patcher.passes["original"] == 1
    assert patcher.passes["restarted"] == 3 * math.ceil(2 * 3 * len(IDS) / 16)
    patcher.passes["original"] = 0
    engine = Ablator(lambda job: patcher)
    assert [ask(engine, [job], at_once=1)[0] for job in jobs] == together, "whatever came together"
    assert patcher.passes["original"] == 1
    assert [ask(Ablator(lambda job: patcher, memory=1), [job])[0] for job in jobs] == together
    assert patcher.passes["original"] == 1 + len(jobs), "without memory for them, they are made again"


def test_what_cannot_be_asked_is_a_failure(patcher: Patcher) -> None:
    good = job_of(patcher, 0.0)
    shorter = job_of(patcher, 0.0, ids=IDS[:, 4:])
    wrong = {
        "other-activations": Replacement(**vars(good) | {"contexts": [ids[::-1].copy() for ids in IDS]}),
        "no-such-token": Replacement(**vars(good) | {"contexts": [ids + 300 for ids in IDS]}),
        "no-such-unit": Replacement(**vars(good) | {"index": 40}),
        "other-subject": Replacement(**vars(good) | {"fingerprint": "sha256:2"}),
    }
    out_of_context = Replacement(**vars(shorter) | {"contexts": list(IDS), "before": [4] * 3})
    found = answers(patcher, [good, *wrong.values(), out_of_context])
    assert [one.kind for one in found[1:-1]] == list(wrong)
    assert found[-1].kind == "other-activations", "an excerpt alone says something else than in its context"
    assert not isinstance(found[0], Failure)


def test_an_answer_depends_on_all_that_is_in_its_question_and_not_on_names(patcher: Patcher) -> None:
    from nxtools.store import question_digest

    def digest(job: Replacement) -> str:
        return question_digest("replace", 1, job.question())

    job = job_of(patcher, 0.0)
    assert digest(Replacement(**vars(job) | {"subject": "renamed", "tolerance": 0.1})) == digest(job)
    others = [
        {"fingerprint": "sha256:2"},
        {"dtype": "bfloat16"},
        {"site": "x"},
        {"index": 6},
        {"before": [1, 0, 0]},
        {"replaced": None},
        {"replaced": job.replaced + 1 if job.replaced is not None else None},
        {"moves": [True, False, False]},
        {"contexts": [ids + 1 for ids in IDS]},
        {"truth": np.nan_to_num(job.truth)},
    ]
    assert len({digest(Replacement(**vars(job) | other)) for other in others} | {digest(job)}) == 11


# The score


def ablated(simulation: Any, mean: Any, picks: str = "ttttrrrr", noise: float = 0.0) -> Ablated:
    names = [{"t": "top", "r": "random", "b": "bottom"}[pick] for pick in picks]
    simulation, mean = np.array(simulation, np.float64), np.array(mean, np.float64)
    figures = {"top_and_random": simulation, "random_only": simulation}
    if "b" in picks:
        figures["bottom_and_random"] = simulation
    return Ablated(
        "unit",
        names,
        [f"d{n}" for n in range(len(names))],
        np.full(len(names), 63),
        mean,
        figures,
        dict.fromkeys(names, noise),
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_true_activations_score_1_and_the_mean_0(patcher: Patcher, layer: int) -> None:
    """All through the same restarted path."""
    jobs = [job_of(patcher, what, layer=layer) for what in ("truth", 0.25, "itself")]
    truth, mean, itself = answers(patcher, jobs)
    noise = {"top": itself["jsd"][0] / 15, "random": itself["jsd"][1] / 15}
    made = []
    for simulation in (truth, mean):
        figures = {name: np.array(simulation["jsd"]) for name in ("top_and_random", "random_only")}
        picks, tokens = ["top", "random", "random"], np.full(3, 15)
        made.append(
            score(Ablated("u", picks, ["a", "b", "c"], tokens, np.array(mean["jsd"]), figures, noise))
        )
    for figure in ("top_and_random", "random_only"):
        assert made[0][figure].value == pytest.approx(1, abs=1e-6)
        assert made[1][figure].value == pytest.approx(0, abs=1e-6)
    assert 0 < noise["top"] < 1e-10


positive = st.floats(1e-6, 10)


@given(st.lists(st.tuples(positive, positive), min_size=8, max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_score_is_one_less_a_ratio_of_sums(pairs: list[tuple[float, float]]) -> None:
    simulation, mean = np.array(pairs).T
    figures = score(ablated(simulation, mean))
    top = figures["top_and_random"]
    assert top.value == pytest.approx(1 - sum(simulation) / sum(mean), rel=1e-9, abs=1e-9)
    random = figures["random_only"]
    assert random.value == pytest.approx(1 - sum(simulation[4:]) / sum(mean[4:]), rel=1e-9, abs=1e-9)
    assert (top.excerpts, top.tokens, random.excerpts, random.tokens) == (8, 504, 4, 252)
    for figure in (top, random):
        assert figure.interval is not None and figure.value is not None
        assert figure.interval[0] <= figure.value <= figure.interval[1] <= 1


def test_a_score_that_does_not_exist_says_why() -> None:
    ones = np.ones(8)
    noisy = score(ablated(ones * 1e-9, ones * 1e-7, noise=1e-10))
    assert {figure.reason for figure in noisy.values()} == {IN_NOISE}
    assert score(ablated(ones * 1e-9, ones * 1e-5, noise=1e-10))["top_and_random"].value == pytest.approx(
        0.9999
    )
    assert score(ablated(ones * 0, ones * 0))["top_and_random"].reason == IN_NOISE
    without_random = score(ablated(ones, ones, picks="tttttttt"))
    assert without_random["random_only"].reason == "no simulated random excerpts"
    one_of_a_kind = score(ablated(ones, ones, picks="tttttttr"))["top_and_random"]
    assert one_of_a_kind.value == 0 and one_of_a_kind.interval is None and one_of_a_kind.no_interval


def test_excerpts_without_a_simulation_are_left_out_on_both_sides_and_counted() -> None:
    simulation = np.array([1.0, 2, np.nan, 1, 1, 1, np.nan, 1])
    mean = np.array([2.0, 4, 100, 2, 2, 2, 100, 2])
    made = ablated(simulation, mean, picks="tttbrrrr")
    figures = score(made)
    assert figures["top_and_random"].value == pytest.approx(0.5) and figures["top_and_random"].excerpts == 5
    record = as_record(made, figures)
    assert record["failed_excerpts"] == 2
    assert record["bottom_and_random"] == pytest.approx(0.5)
    assert orjson.loads(orjson.dumps(record)) == record


@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.floats(-5, 5, width=32)), min_size=3, max_size=30),
    st.floats(0.125, 5, width=32),
)
@settings(max_examples=50, deadline=None)
def test_calibration_is_the_least_squares_line_unless_it_falls(
    pairs: list[tuple[float, float]], scale: float
) -> None:
    x, y = np.array(pairs, np.float32).T
    line = calibrate(x, y)
    assert line is not None
    if np.ptp(x) < 1e-2:
        return
    slope, intercept = np.polyfit(x.astype(np.float64), y.astype(np.float64), 1)
    expected = Line(slope, intercept) if slope > 0 else Line(0.0, float(y.mean(dtype=np.float64)))
    np.testing.assert_allclose([line.slope, line.intercept], [expected.slope, expected.intercept], atol=1e-6)
    scaled = calibrate(x * np.float32(scale), y)
    assert scaled is not None
    np.testing.assert_allclose(scaled(x * np.float32(scale)), line(x), atol=1e-3)


def test_calibration_of_little() -> None:
    nan = float("nan")
    y = np.array([1.0, 2.0, 6.0], np.float32)
    assert calibrate(np.full(3, 7.0, np.float32), y) == Line(0.0, 3.0)
    assert calibrate(np.array([nan, nan, 1.0], np.float32), y) is None
    half = calibrate(np.array([nan, 0.0, 2.0], np.float32), y)
    assert half == Line(2.0, 2.0), "positions without a simulation are left out"


@pytest.mark.parametrize("spread", [1.0, 1.5, 2.0])
def test_intervals_of_a_unit_hold_the_truth(spread: float) -> None:
    """Five excerpts of each kind whose divergences differ by factors, on ordinary text the more, and of which
    a smaller share is lost where much can be. Random excerpts alone stand on as few as one of them."""
    chance = np.random.default_rng(0)

    def drawn(units: int) -> tuple[Any, Any]:
        """(units, 10) each: five top excerpts, five random ones."""
        z = np.repeat([0.7, 1.0], 5) * spread * chance.normal(size=(units, 10))
        mean = np.exp(np.repeat([2.0, 0.0], 5) + z)
        return 0.4 * mean * np.exp(0.7 * chance.normal(size=z.shape) - 0.5 * z), mean

    many = [half.reshape(-1, 2, 5).mean(axis=(0, 2)) for half in drawn(200_000)]
    truth = {"top_and_random": 1 - many[0].sum() / many[1].sum(), "random_only": 1 - many[0][1] / many[1][1]}
    held = dict.fromkeys(truth, 0)
    for number, (simulation, mean) in enumerate(zip(*drawn(400), strict=True)):
        made = ablated(simulation, mean, picks="tttttrrrrr")
        figures = score(Ablated(**vars(made) | {"name": f"unit {number}"}))
        for name, value in truth.items():
            interval = figures[name].interval
            assert interval is not None
            held[name] += interval[0] <= value <= interval[1]
    assert all(0.90 <= count / 400 <= 0.98 for count in held.values()), held


# Over units


def summary_of(units: int, seed: int = 0) -> tuple[AblationSummary, list[Ablated]]:
    chance = np.random.default_rng(seed)
    summary = AblationSummary(("explanation", "null"))
    made = []
    for number in range(units):
        mean = np.exp(chance.normal(size=10) + 2 * chance.normal())
        one = ablated(0.4 * mean * np.exp(0.5 * chance.normal(size=10) - 0.125), mean, picks="tttttrrrrr")
        documents = [f"d{d}" for d in chance.integers(200, size=10)]
        made.append(Ablated(**vars(one) | {"name": f"unit {number}", "documents": documents}))
        summary.add("explanation", number % 2, made[-1], score(made[-1]), 0.7)
    return summary, made


def test_units_are_pooled_by_what_they_do_and_counted_alike_in_the_median() -> None:
    summary, made = summary_of(41)
    pooled = summary.pooled("explanation", "top_and_random")
    lost = sum(one.simulation["top_and_random"].sum() for one in made)
    assert pooled.ratio == pytest.approx(1 - lost / sum(one.mean.sum() for one in made), rel=1e-12)
    values = [score(one)["top_and_random"].value for one in made]
    assert pooled.median == np.median(values) and len(pooled.values) == 41
    for value, interval in ((pooled.ratio, pooled.ratio_interval), (pooled.median, pooled.median_interval)):
        assert value is not None and interval is not None and interval[0] < value < interval[1] < 1
    layers = [summary.pooled("explanation", "top_and_random", layer) for layer in (0, 1)]
    assert sorted(layers[0].values.tolist() + layers[1].values.tolist()) == sorted(pooled.values.tolist())
    assert pooled.above_noise == (41, 41)
    text = "\n".join(summary.lines())
    assert "layer 1, pooled" in text and "random only, median" in text and "(41)" in text


def test_reports_know_which_documents_units_share() -> None:
    """nx-summary's interval is that of the scores with the documents of all units reweighted at once, though
    scores go far below -1 and lines keep 16 bits of each draw."""
    _, made = summary_of(12)
    made[3].simulation["top_and_random"][:] = made[3].mean * 40
    found = Distribution()
    values, drawn, weights = [], [], []
    for one in made:
        figures = score(one)
        made_score = {"method": "ablation", "simulator": "pattern", **as_record(one, figures)}
        where = dict(
            zip(("fingerprint", "site", "layer", "index", "sign"), (one.name, "mlp", 0, 0, "+"), strict=True)
        )
        excerpts = [
            {"set": "held-out", "document": name, "pick": "random", "ids": [0]} for name in one.documents
        ]
        told = [{"by": {"explainer": "pattern"}, "scores": [made_score]}]
        found.add({"unit": where, "excerpts": excerpts, "explanations": told})
        assert len(orjson.dumps(made_score["replicates"])) < 1200
        lost, of_mean = reweighted(one, "top_and_random")
        values.append(made_score["top_and_random"])
        drawn.append(1 - lost / of_mean)
        weights.append(drawn_weights([full_name({"unit": where})], "unit")[0])
    (row,) = found.rows(["top_and_random"], by_layer=False)
    means = (np.array(weights) * drawn).sum(0) / np.sum(weights, axis=0)
    half = student_t.ppf(0.975, 11) * means.std(ddof=1) * math.sqrt(13 / 11)
    assert min(values) < -30 and row["interval_over"] == "units and documents"
    assert row["mean"] == pytest.approx(np.mean(values))
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=1e-3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=200, max_size=200))
@settings(max_examples=20, deadline=None)
def test_replicates_come_back_within_a_step_of_their_scale(values: list[float]) -> None:
    exact = np.array(values)
    (found,) = unpacked(packed({"figure": exact})).values()
    assert np.abs(found - exact).max() <= max(1.0, np.abs(exact).max()) * 1.01 / 32767


def test_absent_scores_and_failures_are_counted() -> None:
    summary, _ = summary_of(3)
    noisy = ablated(np.ones(8), np.ones(8), noise=1.0)
    summary.add("explanation", 0, noisy, score(noisy), float("nan"))
    summary.fail("null")
    pooled = summary.pooled("explanation", "top_and_random")
    assert pooled.above_noise == (3, 4) and len(pooled.values) == 3
    described = summary.as_dict()
    assert described["null"]["failed"] == 1
    assert described["explanation"]["random_only"]["absent"] == {IN_NOISE: 1}
    assert len(summary.points["explanation"]) == 3
    with pytest.raises(ValueError, match="none of"):
        summary.fail("null")
        summary.add("other", 0, noisy, score(noisy), 0.0)


def test_the_pooled_interval_holds_the_truth() -> None:
    held = 0
    for seed in range(60):
        interval = summary_of(60, seed)[0].pooled("explanation", "top_and_random").ratio_interval
        assert interval is not None
        held += interval[0] <= 0.6 <= interval[1]
    assert held >= 50


def test_the_interval_of_a_share_is_wilsons() -> None:
    from scipy.stats import binomtest

    for count, total in ((0, 5), (3, 7), (128, 128), (50, 400)):
        expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
        assert share_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_effects_are_means_per_token() -> None:
    answer = {
        "jsd": [1.0, 2, 3, 4],
        "kl": [2.0, 4, 6, 8],
        "loss": [-1.0, 1, 3, 5],
        "raises": [[7, 0.5]],
        "lowers": [[1, -0.25], [400, -0.125]],
    }
    tokens = np.array([10, 20, 10, 20])
    found = effect("unit", ["top", "top", "random", "random"], tokens, answer, {1: " a", 7: " b"})
    assert found["top_and_random"]["jsd"] == pytest.approx(10 / 60, rel=1e-3)
    assert found["top_and_random"]["loss"] == pytest.approx(8 / 56, rel=1e-3)
    assert found["random_only"]["kl"] == pytest.approx(14 / 30, rel=1e-3)
    low, high = found["random_only"]["kl_interval"]
    assert low < 14 / 30 < high
    assert found["raises"] == [{"id": 7, "token": " b", "logit": 0.5}]
    assert [one["token"] for one in found["lowers"]] == [" a", None]


# What is learned, and from what


def held_of(record: dict[str, Any]) -> Held:
    recorded = {"dtype": "float32", "context": 8, "bos": None, "plans": []}
    return Held(Target(Unit(record), lambda unit: None), record, Contexts(recorded, memoryview), None)


def with_activations(record: dict[str, Any], which: str, change: float) -> dict[str, Any]:
    """A unit whose activations in one set are others."""
    excerpts = []
    for place, excerpt in enumerate(record["excerpts"]):
        values = [x and x + change * (1 + (place + at) % 3) for at, x in enumerate(excerpt["activations"])]
        excerpts.append(excerpt | ({"activations": values} if excerpt["set"] == which else {}))
    return record | {"excerpts": excerpts}


@given(st.floats(0.5, 4), st.integers(0, 1))
@settings(max_examples=20, deadline=None)
def test_calibration_is_learned_from_validation_and_the_mean_from_evidence(
    change: float, number: int
) -> None:
    units = [orjson.loads(line) for line in UNITS.read_bytes().splitlines()]
    record = units[number]

    def learned(record: dict[str, Any]) -> tuple[Any, Any]:
        held = held_of(record)
        calibrated = held.calibrated(lambda: lambda ids: (ids % 7).astype(np.float32))
        assert not isinstance(calibrated, Failure)
        return {figure: one.calibration for figure, one in calibrated.items()}, held.evidence_mean

    lines, mean = learned(record)
    assert learned(with_activations(record, "held-out", change)) == (lines, mean)
    assert learned(with_activations(record, "evidence", change))[0] == lines
    assert learned(with_activations(record, "evidence", change))[1] != mean
    of_validation = learned(with_activations(record, "validation", change))
    assert of_validation[0] != lines and of_validation[1] == mean


def test_a_simulation_is_calibrated_as_it_is_asked_for(units: list[dict[str, Any]]) -> None:
    held = held_of(units[0])

    def calibrated(kind: str) -> dict[str, Any]:
        found = held.calibrated(lambda: lambda ids: (ids % 7).astype(np.float32), kind)
        assert not isinstance(found, Failure)
        return found

    assert calibrated("none")["random_only"].calibration == Line(1.0, 0.0)
    np.testing.assert_array_equal(
        calibrated("none")["top_and_random"].values, calibrated("none")["top_and_random"].simulated
    )
    of_validation, of_scored = (calibrated(kind)["top_and_random"] for kind in ("linear", "scored"))
    rows = of_scored.rows
    assert of_scored.calibration == calibrate(of_scored.simulated[rows], held.truth[rows])
    assert of_scored.calibration != of_validation.calibration
    for kind in ("isotonic", "quantile"):
        pairs = sorted(
            zip(
                calibrated(kind)["random_only"].simulated.flat,
                calibrated(kind)["random_only"].values.flat,
                strict=True,
            )
        )
        assert [value for _, value in pairs] == sorted(value for _, value in pairs)


def test_a_simulation_that_lacks_tokens_or_validation_is_no_zero(units: list[dict[str, Any]]) -> None:
    record = units[0]
    held = held_of(record)
    full = {e["id"]: [float(n % 3) for n in range(8)] for e in record["excerpts"]}
    whole = held.calibrated(full)
    assert not isinstance(whole, Failure)
    assert whole["top_and_random"].rows == [0, 1, 3, 4] and whole["bottom_and_random"].rows == [2, 3, 4]
    first = next(e["id"] for e in record["excerpts"] if e["set"] == "held-out")
    gaps = held.calibrated(full | {first: [1.0, None, *[0.0] * 6]})
    assert not isinstance(gaps, Failure) and gaps["top_and_random"].rows == [1, 3, 4]
    only = {e["id"]: full[e["id"]] for e in record["excerpts"] if e["set"] == "held-out"}
    without = held.calibrated(only)
    assert isinstance(without, Failure) and without.kind == "no-calibration"
    nothing = held.calibrated({e["id"]: full[e["id"]] for e in record["excerpts"] if e["set"] != "held-out"})
    assert isinstance(nothing, Failure) and nothing.kind == "no-simulation"


# The command


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_models.build("gpt_neox", seed=1), tmp_path_factory.mktemp("subject"))


def test_a_pipe_with_contexts_longer_than_excerpts(run: Run, subject: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    options = "--context 32 --excerpt 16 --bos always --document-tokens 100 --units 0:3,1:5 --pool 40,20,20"
    pipe = f"nx-record --subject {subject} {options} --tables corpus - | nx-top | nx-explain | tee told.jsonl"
    recorded = run(pipe, stdin=text.encode())
    assert recorded.returncode == 0, recorded.stderr
    told = [orjson.loads(line) for line in recorded.stdout.splitlines()]
    # With another context the subject says something else, and without one nobody knows: no scores.
    other, bare = ({**told[1], "recorded": {**told[1]["recorded"], "bos": None}}, {**told[1]})
    del bare["recorded"]

    options = f"--method ablation --effects mean,zero --subject {subject} --plot plot.svg"
    lines = b"".join(orjson.dumps(unit) + b"\n" for unit in (*told, other, bare))
    done = run(f"nx-score {options} && grep -q '<svg' plot.svg", stdin=lines)
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "top and random, pooled" in said
    scored = [orjson.loads(line) for line in done.stdout.splitlines()]
    for unit in scored[:2]:
        (made,) = unit["explanations"][0]["scores"]
        assert made["method"] == "ablation" and made["top_and_random"] < 1 and made["excerpts"] == 10
        assert made["jsd"]["top_and_random"]["noise"] < 1e-3 * made["jsd"]["top_and_random"]["mean"]
        baselines = [entry["name"] for entry in unit["baselines"]]
        assert baselines == ["token-table", "token-list", "corpus-table"]
        assert [entry["replaced_by"] for entry in unit["effects"]] == ["mean", "zero"]
        assert len(unit["effects"][1]["raises"]) == 10
    for unit, kind in zip(scored[2:], ("other-activations", "no-context"), strict=True):
        assert unit["explanations"][0]["scores"][0]["error"]["kind"] == kind
        assert [entry["error"]["kind"] for entry in unit["effects"]] == [kind] * 2

    # The second time nothing is computed, and torch is not there; the drawing is the same.
    drawing = run("cat plot.svg && rm plot.svg").stdout
    program = "import sys; sys.modules['torch'] = None; from nxtools.commands.score import main; main()"
    options = f"{options} --offline told.jsonl"
    again = run(sys.executable, "-c", program, *options.split(), env={"PYTHONPATH": str(ROOT)})
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == done.stdout.splitlines()[:2]
    assert "0 replacements computed" in again.stderr.decode()
    assert run("cat plot.svg").stdout == drawing
    elsewhere = run(f"nx-score {options} --plot nowhere/plot.svg")
    assert (elsewhere.returncode, elsewhere.stdout) == (3, again.stdout)
    assert b"nowhere/plot.svg: cannot be written" in elsewhere.stderr


def test_other_scores_stay_on_the_line(run: Run, subject: Path) -> None:
    told = run("cat", ROOT / "tests" / "golden" / "units.jsonl").stdout
    both = run("nx-explain | nx-score | nx-score --method ablation --offline --allow-errors 100%", stdin=told)
    assert both.returncode == 0, both.stderr
    scored = [orjson.loads(line) for line in both.stdout.splitlines()]
    methods = [[s["method"] for s in e["scores"]] for unit in scored for e in unit.get("explanations", [])]
    assert methods and all(found == ["correlation", "ablation"] for found in methods)

    run("cat > scored.jsonl", stdin=both.stdout)
    transfer = "--explanations-from scored.jsonl --map shift --offline --allow-errors 100%"
    other = run(f"nx-score --method ablation {transfer}", stdin=told)
    assert other.returncode == 0, other.stderr
    texts = [[e["text"] for e in orjson.loads(line)["explanations"]] for line in other.stdout.splitlines()]
    own = [[e["text"] for e in unit.get("explanations", [])] for unit in scored]
    assert texts != own and sorted(texts) == sorted(own)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method ablation --effects much", "--effects takes"),
        ("--method ablation --plot a.gif", "--plot takes a name that ends in"),
        ("--method ablation --simulator llama:x.gguf", "nx-simulate --sets held-out,validation"),
        ("--subject somewhere", "--subject is for --method ablation"),
    ],
)
def test_options_that_do_not_fit_are_said(run: Run, options: str, message: str) -> None:
    done = run(f"nx-score {options}")
    assert done.returncode == 2
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1


def test_another_subject_than_that_of_the_lines_is_an_error(
    tmp_path: Path, subject: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from nxtools.commands._subjects import load
    from nxtools.errors import ModelError
    from nxtools.store import Store

    job = job_of(patcher_of(), 0.0, subject="no-such-subject")
    options: dict[str, Any] = {"subject": str(subject), "allow_pickle": False}
    with Store(tmp_path) as store:
        with pytest.raises(ModelError, match="is not the subject of these units"):
            load(options, store, job)
        with pytest.raises(ModelError, match="'no-such-subject' is not found by its name"):
            load(options | {"subject": None}, store, job)


def test_a_context_that_cannot_be_read_is_an_error(run: Run, units: list[dict[str, Any]]) -> None:
    recorded = {"dtype": 7, "context": 8, "bos": None, "plans": []}
    lines = b"".join(orjson.dumps(unit | {"recorded": recorded}) + b"\n" for unit in units)
    done = run("nx-explain | nx-score --method ablation", stdin=lines)
    assert done.returncode == 3 and "'recorded.dtype' is an integer" in done.stderr.decode()
