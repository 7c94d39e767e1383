"""nx-explain --explainer human:FILE: explanations that people wrote, on the units that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nxtools.commands._base import Shared
from nxtools.commands._explained import HUMAN as NAME
from nxtools.commands._explained import with_explanation
from nxtools.commands._running import run_units
from nxtools.errors import InputError

if TYPE_CHECKING:
    from nxtools.progress import Progress
    from nxtools.stage import Counts, Step
    from nxtools.stream import Record

HUMAN = f"{NAME}:"


def run(shared: Shared, file: str) -> int:
    """Puts what people wrote (`written` in rating lines) on unit lines, beside other explanations."""
    from nxtools.commands._rated import read

    ratings = read([file])
    made = {True: 0, False: 0}

    def step(record: Record) -> Step:
        yield from ()
        for one in ratings.take({"unit": record["unit"]}):
            if "written" in one and not (record.get("dead") or record.get("error")):
                explanation = written(one)
                made["pattern" in explanation] += 1
                with_explanation(record, explanation)
        return record

    def say(progress: Progress, counts: Counts) -> None:
        progress.say(
            f"{counts.units:,} units; {made[True]:,} explanations that are patterns, {made[False]:,} in words"
        )
        if left := sum("written" in one for one in ratings):
            progress.say(f"{left:,} written explanations are about units that did not come in")
        elif not sum(made.values()):
            progress.say(f"nobody wrote an explanation in {file}")

    return run_units(shared, lambda store: step, finish=say)


def written(judgement: Record) -> Record:
    """An explanation as on unit lines. What is a sentence of the pattern language can be run as it is."""
    from nxtools.explain.pattern import identify
    from nxtools.pattern.language import parse

    text = " ".join(line.strip() for line in judgement["written"].splitlines())
    by: dict[str, Any] = {"explainer": NAME}
    if judgement.get("rater"):
        by["rater"] = judgement["rater"]
    try:
        sentence = str(parse(text))
    except InputError:
        return identify({"text": text, "by": by})
    return identify({"text": text, "pattern": sentence, "by": by})
