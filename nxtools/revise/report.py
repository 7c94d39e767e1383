"""What a run of revisions came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from nxtools.score.bootstrap import student

if TYPE_CHECKING:
    from nxtools.revise.placing import Compared


def lines(compared: Sequence[Compared]) -> list[str]:
    """For people: how many explanations changed, and held-out scores before and after, paired by unit."""
    if not compared:
        return []
    changed = sum(one.changed for one in compared)
    return [
        f"{changed:,} of {len(compared):,} explanations were replaced by what is better on validation",
        _pairs("held-out top and random", [one.held_out for one in compared]),
        _pairs("widened by new texts", [one.widened for one in compared]),
    ]


def _pairs(label: str, pairs: Sequence[tuple[float | None, float | None]]) -> str:
    """Means before and after, and that of the differences ± t · sd / √n."""
    there = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not there:
        return f"{label}: no score"
    risen = [after - before for before, after in there]
    n = len(there)
    margin = f" ±{student(n - 1) * stdev(risen) / math.sqrt(n):.4f}" if n > 1 else ""
    absent = f", {len(pairs) - n} absent" if n < len(pairs) else ""
    before, after = (fmean(pair[side] for pair in there) for side in (0, 1))
    difference = f"{fmean(risen):+.4f}{margin} (n {n}{absent})"
    return f"{label}: {before:.4f} before, {after:.4f} after, difference {difference}"
