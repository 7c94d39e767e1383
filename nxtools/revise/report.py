"""What a run of revisions came to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev

from nxtools.revise.placing import Compared, Pair
from nxtools.score.ablation_summary import share_interval
from nxtools.score.bootstrap import student


def lines(compared: Sequence[Compared]) -> list[str]:
    """For people: how many explanations changed, held-out scores before and after, paired by unit, and how
    many of the sentences written to fit do not make the unit fire."""
    if not compared:
        return []
    changed = sum(one.changed for one in compared)
    widened = any(one.widened != one.held_out for one in compared)
    return [
        f"{changed:,} of {len(compared):,} explanations were replaced by what is better on validation",
        _pairs("held-out top and random", [one.held_out for one in compared]),
        *([_pairs("widened by new texts", [one.widened for one in compared])] if widened else []),
        *_sentences(compared),
    ]


def _pairs(label: str, pairs: Sequence[Pair]) -> str:
    """Means before and after, and that of the differences ± t · sd / √n."""
    there = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not there:
        return f"{label}: no score"
    margin, n = _margin([after - before for before, after in there]), len(there)
    absent = f", {len(pairs) - n} absent" if n < len(pairs) else ""
    before, after = (fmean(pair[side] for pair in there) for side in (0, 1))
    difference = f"{after - before:+.4f}{f' ±{margin:.4f}' if n > 1 else ''} (n {n}{absent})"
    return f"{label}: {before:.4f} before, {after:.4f} after, difference {difference}"


def _sentences(compared: Sequence[Compared]) -> list[str]:
    """The share of false positives, whose interval is over units, and that of units with at least one."""
    written: dict[str, int] = defaultdict(int)
    silent: dict[str, int] = defaultdict(int)
    for one in compared:
        if one.sentences[0]:
            written[one.unit] += one.sentences[0]
            silent[one.unit] += one.sentences[1]
    if not written:
        return []
    n, total, false = len(written), sum(written.values()), sum(silent.values())
    # A ratio's linearised residuals: sentences of one unit hang together, and units have unequal many.
    left = [(silent[unit] - false / total * written[unit]) * n / total for unit in written]
    margin, some = _margin(left), sum(count > 0 for count in silent.values())
    found = false / total
    share = (
        _share(found, max(0.0, found - margin), min(1.0, found + margin)) if n > 1 else f"{100 * found:.1f}%"
    )
    units = _share(some / n, *share_interval(some, n))
    return [
        f"false positives: {share} of {total:,} sentences written "
        f"for {n:,} units; {units} of {n:,} units have one or more"
    ]


def _share(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f}% (95% {100 * low:.0f}% to {100 * high:.0f}%)"


def _margin(values: Sequence[float]) -> float:
    n = len(values)
    return student(n - 1) * stdev(values) / math.sqrt(n) if n > 1 else 0.0
