"""The figure `all`: what a score would be on all held-out text, from the few excerpts that were kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nxtools.score.correlation import centred_sums, excerpt_sums, shifted
from nxtools.score.figures import Pool, Sample, as_record, score
from nxtools.score.whole import Kept, Weights, weights
from nxtools.subject.bins import strata_of

TOKENS = 16


@dataclass
class Text:
    """All held-out excerpts of a made-up unit that fires seldom and, where it fires, is predicted badly."""

    truth: np.ndarray
    predicted: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, size: int, seed: int) -> Text:
        rng = np.random.default_rng(seed)
        loud = rng.pareto(1.5, size=(size, 1))
        truth = (loud * rng.gamma(0.3, size=(size, TOKENS))).astype(np.float32)
        predicted = (truth**0.5 + rng.gamma(0.5, size=truth.shape)).astype(np.float32)
        return cls(truth, predicted, [f"{n:016x}" for n in range(size)])

    def correlation(self) -> float:
        return float(np.corrcoef(self.truth.ravel(), self.predicted.ravel())[0, 1])

    def sample(self, rng: np.random.Generator, pool: int, top: int, spread: int) -> Sample:
        """As nx-record and nx-top would draw it; spread: so many of each stratum, if there are so many."""
        size = len(self.names)
        highest = np.argsort(-self.truth.max(1))[:top]
        picks, rows, likely = ["top"] * top, highest.tolist(), [None] * top
        strata = strata_of(self.truth.max(1), None)
        for one in np.unique(strata) if spread else []:
            members = np.flatnonzero(strata == one)
            drawn = rng.permutation(members)[:spread]
            for row in drawn[~np.isin(drawn, highest)]:
                picks, rows = [*picks, "spread"], [*rows, int(row)]
                likely.append(len(drawn) / len(members))
        pooled = rng.permutation(size)[:pool]
        line = Kept([self.names[row] for row in rows], self.truth[rows])
        others = Kept([self.names[row] for row in pooled], self.truth[pooled])
        return Sample(
            "unit",
            self.truth[rows],
            self.predicted[rows],
            picks,
            [f"d{row}" for row in rows],
            Pool(self.truth[pooled], self.predicted[pooled], tuple(f"d{row}" for row in pooled)),
            weights(line, picks, likely, others, size, signed=False),
        )


def estimate(sample: Sample, figure: str = "all") -> float:
    value = score(sample, draws=0).figures[figure].value
    assert value is not None
    return value


def test_with_all_excerpts_at_hand_it_is_the_correlation_over_all_of_them() -> None:
    text = Text.of(300, 0)
    sample = text.sample(np.random.default_rng(0), pool=300, top=5, spread=3)
    assert estimate(sample) == pytest.approx(text.correlation(), abs=1e-6)
    figure = score(sample).figures["all"]
    assert (figure.excerpts, figure.tokens) == (300, 300 * TOKENS)


@pytest.mark.parametrize("spread", [0, 4])
def test_weights_stand_for_the_whole_text(spread: int) -> None:
    text = Text.of(4000, 1)
    found = [text.sample(np.random.default_rng(s), 200, 5, spread).weights for s in range(30)]
    totals = [float(w.line.sum() + w.pool.sum()) for w in found if w is not None]
    assert totals == pytest.approx([4000] * 30, abs=1), "no excerpt stands for another twice"


def test_it_is_nearer_to_the_truth_than_the_pool_alone_and_spread_brings_it_nearer_still() -> None:
    """Root mean square errors over many drawings of the same text."""
    text = Text.of(8000, 2)
    truth = text.correlation()

    def error(figure: str, spread: int) -> float:
        drawn = [text.sample(np.random.default_rng(s), 200, 10, spread) for s in range(60)]
        return float(np.sqrt(np.mean([(estimate(one, figure) - truth) ** 2 for one in drawn])))

    pool, certain, spread = error("pool", 0), error("all", 0), error("all", 4)
    assert certain < 0.8 * pool and spread < 0.8 * certain, (pool, certain, spread)


def test_its_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = []
    for seed in range(120):
        text = Text.of(1500, seed)
        figure = score(text.sample(np.random.default_rng(seed), 200, 10, 0)).figures["all"]
        assert figure.interval is not None
        held.append(figure.interval[0] <= text.correlation() <= figure.interval[1])
    assert 0.85 <= np.mean(held) <= 1.0


def test_sums_about_other_means() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(2, 3, 4, 5))
    truth[0, 0, 0] = np.nan
    sums, t, p = centred_sums(truth, predicted)
    there = ~np.isnan(truth)
    exact = shifted(sums, t, p)
    assert exact[..., 3] == pytest.approx(np.where(there, truth, 0.0).__pow__(2).sum(-1), abs=1e-9)
    assert exact[..., 5] == pytest.approx(np.where(there, truth * predicted, 0.0).sum(-1), abs=1e-9)
    assert (excerpt_sums(truth, predicted) == sums).all()


def test_without_a_pool_nothing_is_said_of_all_text() -> None:
    text = Text.of(20, 0)
    alone = Sample("unit", text.truth, text.predicted, ["top"] * 20, text.names)
    assert "all" not in as_record(score(alone))


def test_signed_units_have_strata_on_both_sides() -> None:
    line = Kept(["a", "b"], np.array([[8.0, 0.0], [0.0, -8.0]], np.float32))
    pool = Kept(["c", "d", "e"], np.array([[8.0, 0.0], [0.0, -8.0], [0.0, 0.0]], np.float32))
    found = weights(line, ["spread", "spread"], [0.5, 0.1], pool, 100, signed=True)
    # Two excerpts in one stratum, ten in the other, and the rest stand for by the third of the pool.
    expected = Weights(np.array([1.0, 5.0]), np.array([1.0, 5.0, 88.0]))
    assert found.line == pytest.approx(expected.line) and found.pool == pytest.approx(expected.pool)
