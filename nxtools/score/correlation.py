"""The score of the papers: correlation of predicted and true activations, all tokens of all excerpts pooled.

Everything is computed from six sums per excerpt: n, Σt, Σp, Σt², Σp², Σtp. The correlation over any multiset
of excerpts is a function of the sum of their rows: choosing, resampling and reweighting are matrix products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


# Variance below this share of the mean square is rounding: a relative spread of 1e-6; float32 keeps 6e-8.
_ROUNDING = 1e-12


def excerpt_sums(truth: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """Sums n, Σt, Σp, Σt², Σp², Σtp of each excerpt: (..., excerpts, tokens) twice -> (..., excerpts, 6).

    Values are centred by their mean over all excerpts first: correlation does not see it, and squares keep
    their digits. Values that are constant but for rounding become exactly constant. Positions with NaN on
    either side are left out.
    """
    return centred_sums(truth, predicted)[0]


def centred_sums(truth: NDArray[Any], predicted: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """`excerpt_sums`, and the means of truth and prediction (...) that were taken off."""
    if truth.shape != predicted.shape:
        raise ValueError(f"true activations have shape {truth.shape}, predicted ones {predicted.shape}")
    left_out = np.flatnonzero(np.isnan(truth) | np.isnan(predicted))
    out = np.empty((*truth.shape[:-1], 6))
    present = np.full(truth.shape[:-1], truth.shape[-1], dtype=np.float64)
    if left_out.size:
        present -= np.bincount(left_out // truth.shape[-1], minlength=present.size).reshape(present.shape)
    out[..., 0] = present
    with np.errstate(invalid="ignore"):  # infinities become NaN here and an absent score later
        t, t_mean = _centred(truth, left_out, present)
        p, p_mean = _centred(predicted, left_out, present)
        out[..., 1] = t.sum(-1)
        out[..., 2] = p.sum(-1)
        np.einsum("...t,...t->...", t, t, out=out[..., 3])
        np.einsum("...t,...t->...", p, p, out=out[..., 4])
        np.einsum("...t,...t->...", t, p, out=out[..., 5])
    _clear_rounding(out, (1, 3, 5), t_mean)
    _clear_rounding(out, (2, 4, 5), p_mean)
    return out, t_mean, p_mean


def shifted(sums: Floats, t: Floats, p: Floats) -> Floats:
    """Sums (..., excerpts, 6) of activations that are higher by t, and predictions by p (...)."""
    n, t, p = sums[..., 0], np.asarray(t)[..., None], np.asarray(p)[..., None]
    return np.stack(
        [
            n,
            sums[..., 1] + n * t,
            sums[..., 2] + n * p,
            sums[..., 3] + 2 * t * sums[..., 1] + n * t * t,
            sums[..., 4] + 2 * p * sums[..., 2] + n * p * p,
            sums[..., 5] + p * sums[..., 1] + t * sums[..., 2] + n * t * p,
        ],
        axis=-1,
    )


def _centred(values: NDArray[Any], left_out: NDArray[np.intp], present: Floats) -> tuple[Floats, Floats]:
    """Values less their mean over the last two axes, 0 where left out; and the means."""
    out: Floats = values.astype(np.float64, order="C")
    flat = out.reshape(-1)
    flat[left_out] = 0.0
    mean: Floats = out.reshape(*out.shape[:-2], -1).sum(-1) / np.maximum(present.sum(-1), 1.0)
    out -= mean[..., None, None]
    flat[left_out] = 0.0
    return out, mean


def _clear_rounding(sums: Floats, columns: tuple[int, int, int], mean: Floats) -> None:
    """Sets the sums of values that are all as good as their mean to exactly 0."""
    square = sums[..., columns[1]].sum(-1)
    constant = square <= _ROUNDING * sums[..., 0].sum(-1) * mean**2
    if constant.any():
        for column in columns:
            sums[constant, :, column] = 0.0


def correlation(sums: Floats) -> Floats:
    """Pearson correlation from sums over excerpts: (..., 6) -> (...) in [-1, 1], or NaN (see `reason`)."""
    return correlation_of(*np.moveaxis(sums, -1, 0))


def correlation_of(n: Floats, t: Floats, p: Floats, tt: Floats, pp: Floats, tp: Floats) -> Floats:
    """`correlation` from the six sums as six arrays."""
    var_t, var_p = n * tt - t * t, n * pp - p * p
    defined = (n >= 2) & (var_t > _ROUNDING * n * tt) & (var_p > _ROUNDING * n * pp)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * tp - t * p) / (np.sqrt(var_t) * np.sqrt(var_p))
    out: Floats = np.where(defined, np.clip(r, -1.0, 1.0), np.nan)
    return out


def reason(sums: Floats) -> str | None:
    """Why there is no correlation for these sums (6,), or None when there is one."""
    n, t, p, tt, pp, _ = (float(value) for value in sums)
    if n < 2:
        return "fewer than 2 tokens"
    if not np.isfinite(sums).all():
        return "non-finite values"
    if n * tt - t * t <= _ROUNDING * n * tt:
        return "constant truth"
    if n * pp - p * p <= _ROUNDING * n * pp:
        return "constant prediction"
    return None
