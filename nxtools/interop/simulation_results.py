"""The NeuronSimulationResults of the paper's public data set: explanations with their simulations and scores.

What a unit line has no place for stands in fields called `neuron_explainer`, so that a result can be written
again number by number. Scores are computed for simulations that came from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxtools.interop.dealing import Dealer, digest
from nxtools.interop.fields import OPTIONAL_NUMBER, Fields
from nxtools.interop.neuron_records import ById, Excerpt, neuron_id, read_excerpt
from nxtools.records import SETS
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.stream import Record

KEPT = "neuron_explainer"
SIMULATOR = {"simulator": "neuron-explainer"}
SCORES = ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score")
_DISTRIBUTION = ("activation_scale", "distribution_values", "distribution_probabilities")
_SCALES = ("neuron_activations", "simulated_normalized_activations")


def simulated(result: Fields, dealer: Dealer) -> int:
    """Holds out what the result simulates, of which nothing was learned, before the rest is dealt.

    Says how many excerpts those are: none for an explanation that was not simulated. In the format the first
    half of the scored excerpts are top ones, the second half random ones.
    """
    count = 0
    for explanation in result.each("scored_explanations"):
        sequences = list(explanation.inner("scored_simulation").each("scored_sequence_simulations"))
        for place, sequence in enumerate(sequences):
            pick = "top" if 2 * place < len(sequences) else "random"
            dealer.place(*_scored_excerpt(sequence), SETS[2], pick)
        count += len(sequences)
    return count


def explanations(result: Fields, dealer: Dealer) -> list[Record]:
    return [_explanation(one, dealer) for one in result.each("scored_explanations")]


def _simulation_of(sequence: Fields) -> Fields:
    """The second dialect calls it by another name."""
    other = "sequence_simulation"
    return sequence.inner(other if other in sequence.value else "simulation")


def _scored_excerpt(sequence: Fields) -> Excerpt:
    simulation = _simulation_of(sequence)
    tokens, truth = simulation.texts("tokens"), sequence.numbers("true_activations")
    Fields({"tokens": tokens, "true_activations": truth}, sequence.path).same_length(
        "tokens", "true_activations"
    )
    return tokens, truth


def _explanation(explanation: Fields, dealer: Dealer) -> Record:
    text = explanation.get("explanation", str)
    scored = explanation.inner("scored_simulation")
    return {
        "id": digest(text, SIMULATOR),
        "text": text,
        "by": {"explainer": "neuron-explainer"},
        "simulations": [_read_simulation(one, dealer) for one in scored.each("scored_sequence_simulations")],
        KEPT: _read_scores(scored),
    }


def _read_simulation(sequence: Fields, dealer: Dealer) -> Record:
    simulation = _simulation_of(sequence)
    tokens, truth = _scored_excerpt(sequence)
    expected = read_excerpt(simulation, "expected_activations")[1]
    kept = _read_distribution(simulation) | _read_scores(sequence)
    if simulation.value.get("uncalibrated_simulation") is not None:
        inner = simulation.inner("uncalibrated_simulation")
        raw, values = read_excerpt(inner, "expected_activations")
        kept["uncalibrated"] = {"expected": values, **_read_distribution(inner)}
        if raw != tokens:
            kept["uncalibrated"]["tokens"] = raw
    name = dealer.like(tokens, truth)
    assert name is not None, "simulated() was called before"
    return {"by": SIMULATOR, "excerpt": name, "expected": expected, KEPT: kept}


def _read_distribution(simulation: Fields) -> Record:
    found: Record = {"activation_scale": simulation.get("activation_scale", str)}
    for name in ("distribution_values", "distribution_probabilities"):
        rows = simulation.get(name, list)
        holder = [Fields({"row": row}, f"{simulation.at(name)}[{place}]") for place, row in enumerate(rows)]
        found[name] = [one.numbers("row") for one in holder]
    return found


def _read_scores(scored: Fields) -> Record:
    return {name: scored.get(name, *OPTIONAL_NUMBER, optional=True) for name in SCORES}


# And back


def written(unit: Record, excerpts: Sequence[Record]) -> Record | None:
    """All explanations of a unit line as one NeuronSimulationResults; None where there are none."""
    by_id = ById(excerpts)
    found = [
        {
            "explanation": entry["text"],
            "scored_simulation": _scored_simulation(entry, by_id),
            "dataclass_name": "ScoredExplanation",
        }
        for entry in unit.get("explanations") or ()
        if isinstance(entry.get("text"), str)
    ]
    if not found:
        return None
    return {
        "neuron_id": neuron_id(unit),
        "scored_explanations": found,
        "dataclass_name": "NeuronSimulationResults",
    }


def _scored_simulation(entry: Record, by_id: ById) -> Record:
    """Of the first simulator, whose excerpts top ones come first, as in the format."""
    usable = [s for s in entry.get("simulations") or () if s.get("excerpt") in by_id and "expected" in s]
    chosen = [s for s in usable if s.get("by") == usable[0].get("by")]
    if KEPT not in entry:
        chosen = [s for s in chosen if by_id[s["excerpt"]]["set"] == SETS[2]]
        chosen.sort(key=lambda s: by_id[s["excerpt"]]["pick"] != "top")
    truth = [by_id[s["excerpt"]]["activations"] for s in chosen]
    scores = entry.get(KEPT) or _computed(truth, [s["expected"] for s in chosen])
    if not chosen and KEPT not in entry:
        scores[SCORES[0]] = _scored_here(entry)
    return {
        "scored_sequence_simulations": [_scored_sequence(s, by_id[s["excerpt"]]) for s in chosen],
        **{name: scores.get(name) for name in SCORES},
        "dataclass_name": "ScoredSimulation",
    }


def _scored_here(entry: Record) -> float | None:
    """The correlation that nx-score found for an explanation that carries no simulation, a pattern."""
    found = (s.get("top_and_random") for s in entry.get("scores") or () if s.get("method") == "correlation")
    return next(found, None)


def _scored_sequence(simulation: Record, excerpt: Record) -> Record:
    kept = simulation.get(KEPT) or {}
    truth = excerpt["activations"]
    scores = kept or _computed([truth], [simulation["expected"]])
    return {
        "simulation": _sequence(excerpt["tokens"], simulation["expected"], kept, kept.get("uncalibrated")),
        "true_activations": truth,
        **{name: scores.get(name) for name in SCORES},
        "dataclass_name": "ScoredSequenceSimulation",
    }


def _sequence(tokens: list[str], expected: Any, kept: Record, uncalibrated: Record | None) -> Record:
    inner = None
    if uncalibrated is not None:
        inner = _sequence(uncalibrated.get("tokens", tokens), uncalibrated["expected"], uncalibrated, None)
    return {
        "tokens": tokens,
        "expected_activations": expected,
        "activation_scale": kept.get("activation_scale", _SCALES[1]),
        "distribution_values": kept.get("distribution_values", []),
        "distribution_probabilities": kept.get("distribution_probabilities", []),
        "uncalibrated_simulation": inner,
        "dataclass_name": "SequenceSimulation",
    }


def _computed(truth: Sequence[Any], expected: Sequence[Any]) -> Record:
    """Correlation, 1 - Σ(t-p)²/Σt², 1 - Σ|t-p|/Σ|t| over all positions that both sides know.

    None where one does not exist: no positions, a constant side, a truth that is 0 everywhere.
    """
    t, p = (np.array([v for row in rows for v in row], dtype=np.float64) for rows in (truth, expected))
    known = ~(np.isnan(t) | np.isnan(p))
    t, p = t[known], p[known]
    if not len(t):
        return dict.fromkeys(SCORES)
    r = float(correlation(excerpt_sums(t[None], p[None]).sum(0)))
    square, absolute = float((t**2).sum()), float(np.abs(t).sum())
    return {
        "ev_correlation_score": None if np.isnan(r) else r,
        "rsquared_score": 1 - float(((t - p) ** 2).sum()) / square if square else None,
        "absolute_dev_explained_score": 1 - float(np.abs(t - p).sum()) / absolute if absolute else None,
    }
