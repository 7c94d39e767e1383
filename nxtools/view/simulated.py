"""What patterns predict on a unit's excerpts, where no simulation stands on the line."""

from __future__ import annotations

from collections.abc import Callable

from nxtools.explain.pattern import to_run
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import SETS
from nxtools.simulate.pattern import VERSION, simulate
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Unit
from nxtools.view.scores import number

BY: Record = {"simulator": "pattern", "version": VERSION}


def simulate_patterns(record: Record, lexicon_of: Callable[[Unit], Lexicon]) -> None:
    """Puts simulations of all excerpts on the explanations that have none and can be run.

    A sentence that is no pattern is simulated by language models only, and left as it is.
    """
    wanted = [
        (one, text)
        for one in record.get("explanations") or []
        if not one.get("simulations") and "error" not in one and (text := to_run(one)) is not None
    ]
    if not wanted or record.get("error"):
        return
    unit = Unit(record)
    shown = [unit.shown(name) for name in SETS]
    names = [name for one in shown for name in one.excerpts]
    lexicon = lexicon_of(unit)
    for one, text in wanted:
        rows = simulate(text, number(one.get("scale")), shown, lexicon)
        if not isinstance(rows, Failure):
            one["simulations"] = [
                {"by": BY, "excerpt": name, "expected": row} for name, row in zip(names, rows, strict=True)
            ]
        elif _is_pattern(one):
            one["simulations"] = [{"by": BY, "error": rows.record()}]


def _is_pattern(one: Record) -> bool:
    by = one.get("by")
    return "pattern" in one or (isinstance(by, dict) and by.get("explainer") == "pattern")
