"""What a unit does to the subject's output, whatever is said about it: what changes when it is silenced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score import bootstrap
from nxtools.score.ablation import FIGURES, PICKS
from nxtools.score.figures import short

Floats = NDArray[np.float64]

MEASURES = ("loss", "kl", "jsd")


def effect(
    name: str,
    picks: Sequence[str],
    tokens: NDArray[np.int64],
    answer: Mapping[str, Any],
    texts: Mapping[int, str] | Sequence[str],
) -> dict[str, Any]:
    """What stands under `effects`, of one replacement: means per token in nats, with 95% intervals, and the
    tokens whose logit moves most.

    name: seeds the bootstrap; picks, tokens: (n,) of the excerpts; answer: to a `Replacement`;
    texts: of tokens, by id.
    """
    found: dict[str, Any] = {}
    for figure, wanted in FIGURES.items():
        rows = [np.flatnonzero(np.array(picks) == pick) for pick in wanted]
        if not all(len(of_pick) for of_pick in rows):
            continue
        every = np.concatenate(rows)
        counts: dict[str, Any] = {"excerpts": len(every), "tokens": int(tokens[every].sum())}
        # The last token of an excerpt has no next one whose loss could be told.
        predicted = {"loss": np.maximum(tokens - 1, 0), "kl": tokens, "jsd": tokens}
        for measure in MEASURES:
            values, weights = np.array(answer[measure], np.float64), predicted[measure]
            counts[measure], interval = _mean(name, wanted, rows, values, weights)
            if interval is not None:
                counts[f"{measure}_interval"] = interval
        found[figure] = counts
    for direction in ("raises", "lowers"):
        found[direction] = [
            {"id": token, "token": _text(texts, token), "logit": change}
            for token, change in answer.get(direction, [])
        ]
    return found


def _mean(
    name: str,
    wanted: Sequence[str],
    rows: Sequence[NDArray[np.intp]],
    values: Floats,
    weights: NDArray[np.int64],
) -> tuple[float, list[float] | None]:
    """Σ values / Σ weights over the excerpts, and its interval: see `bootstrap`."""
    seeds = bootstrap.seeds(name, len(PICKS))
    pooled = np.zeros(2)
    drawn = np.zeros((2, bootstrap.DRAWS))
    for pick, found in zip(wanted, rows, strict=True):
        sums = np.stack([values[found], weights[found].astype(np.float64)], axis=1)
        pooled += sums.sum(0)
        if len(found) > 1:
            drawn += bootstrap.resample(sums[None], [seeds[PICKS.index(pick)]])[0]
    mean = float(pooled[0] / max(pooled[1], 1.0))
    fewest = min(map(len, rows))
    if fewest < 2:
        return short(mean), None
    half = bootstrap.student(fewest - 1) * float(np.std(drawn[0] / np.maximum(drawn[1], 1.0), ddof=1))
    return short(mean), [short(mean - half), short(mean + half)]


def _text(texts: Mapping[int, str] | Sequence[str], token: int) -> str | None:
    """Of a token that neither the line nor the vocabulary has (models pad theirs): none."""
    if isinstance(texts, Mapping):
        return texts.get(token)
    return texts[token] if token < len(texts) else None
