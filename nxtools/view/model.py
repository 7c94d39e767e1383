"""What is shown of a unit, as plain data: the report, the server and the terminal all show this.

`row` is what a table of units has of one, `page` is everything. Both are made of the line alone and can be
written as JSON. What a unit lacks stands in `page["missing"]`, by section, as a sentence.
"""

from __future__ import annotations

from typing import Any

from nxtools.records import excerpts_of, objects, sign_of, tabulate, unit_name
from nxtools.score.ratings import text_digest
from nxtools.stream import Record
from nxtools.view.excerpts import groups, peak_tokens, shown, token_means
from nxtools.view.explained import current, explanations, gain
from nxtools.view.scores import main_figure, number, plain, reason, scores

TEXT = 2000  # characters of an explanation that a search looks at
SETS_SHOWN = ("evidence", "validation", "held-out")


def row(record: Record) -> Record:
    """What the table of units shows of one.

    `name`, `layer`, `index`, `site`, `sign`; `state` (`dead`, `constant`, `failed` or empty) and `why`;
    `text` and `by` of the current explanation; `scores` of it, a figure for each method with its interval;
    `density` (share of tokens above 0.3 of the maximum), `max`, `min`; `gain` by revision; `tokens` at which
    it peaks.
    """
    unit, stats = record["unit"], _object(record, "stats")
    told = current(record)
    state, why = _state(record, told)
    return {
        "name": unit_name(record),
        "layer": unit["layer"],
        "index": unit["index"],
        "site": str(unit.get("site", "")),
        "sign": sign_of(record),
        "state": state,
        "why": why,
        "text": None if told is None or "error" in told else str(told.get("text", ""))[:TEXT],
        "by": None if told is None else str(_object(told, "by").get("explainer", "unknown")),
        "scores": _main_scores(told or {}),
        "density": number(stats.get("active")),
        "max": number(stats.get("max")),
        "min": number(stats.get("min")),
        "gain": gain(record),
        "tokens": peak_tokens(excerpts_of(record, SETS_SHOWN[:1], ("top", "bottom")), sign_of(record)),
    }


def page(record: Record) -> Record:
    """Everything that is shown of a unit; see `missing` for what it does not have.

    InputError when its excerpts or scores cannot be read.
    """
    unit, sign = record["unit"], sign_of(record)
    excerpts = excerpts_of(record, SETS_SHOWN)
    tabulate(excerpts)  # which says what is wrong with them
    told = explanations(record)
    simulations, simulated = shown(told, record, excerpts)
    found: Record = {
        "name": unit_name(record),
        "unit": {key: value for key, value in unit.items() if not isinstance(value, dict | list)},
        "state": _state(record, current(record)),
        "explanations": told,
        "simulations": simulations,
        "baselines": [
            {
                "name": str(each.get("name", "unknown")),
                "text": each.get("text"),
                "digest": text_digest(str(each.get("text", ""))),
                "scores": scores(each),
            }
            for each in objects(record, "baselines", optional=True)
        ],
        "groups": groups(excerpts, simulated),
        "stats": {key: v for key, v in _object(record, "stats").items() if isinstance(v, int | float)},
        "histogram": _histograms(_object(record, "stats")),
        "tokens": token_means([e for e in excerpts if e["set"] == "evidence"], sign),
        "connections": record.get("connections"),
        "effects": record.get("effects"),
        "provenance": _provenance(record),
    }
    found["missing"] = _missing(found, record)
    return found


def _state(record: Record, told: Record | None) -> tuple[str, str]:
    if record.get("error"):
        return "failed", reason(record["error"])
    if record.get("dead"):
        return "dead", "it never fires on the recorded text"
    if record.get("constant"):
        return "constant", "it never changes on the recorded text"
    if told is not None and "error" in told:
        return "failed", reason(told["error"])
    return "", ""


def _main_scores(told: Record) -> list[Record]:
    found = []
    for score in scores(told):
        figure = main_figure(score)
        if figure or "error" in score:
            kept = figure or {"name": "", "value": None, "low": None, "high": None, "why": score["error"]}
            found.append(
                {"method": score["method"], "simulator": score["simulator"], "figure": kept["name"]}
                | {key: kept[key] for key in ("value", "low", "high", "why") if key in kept}
            )
    return found


def _histograms(stats: Record) -> Record:
    """By side, bins of excerpt extremes: `below` the first edge, and for each lower edge how many."""
    return {
        side: {"below": max(0, number(found.get("below")) or 0)}
        | {key: found[key] for key in ("edges", "counts")}
        for side in ("maxima", "minima")
        if _is_histogram(found := _object(stats, side))
    }


def _is_histogram(found: Record) -> bool:
    edges, counts = found.get("edges"), found.get("counts")
    if not (isinstance(edges, list) and isinstance(counts, list) and 0 < len(edges) == len(counts)):
        return False
    return all(number(value) is not None for value in (*edges, *counts)) and min(counts) >= 0


def _provenance(record: Record) -> list[list[str]]:
    """Where everything comes from, as pairs of a label and a text."""
    rows = [[f"unit {key}", plain(value)] for key, value in record["unit"].items()]
    rows += [[f"recorded {key}", plain(value)] for key, value in _object(record, "recorded").items()]
    rows += [[f"pool {key}", plain(value)] for key, value in _object(record, "pool").items()]
    for name, table in _object(record, "tables").items():
        rows.append([f"table {name}", plain(table)])
    return rows


def _missing(found: Record, record: Record) -> dict[str, str]:
    """What is not there and why, by section."""
    why = found["state"][1] and f"The unit is {found['state'][0]}: {found['state'][1]}."
    lacks = {
        "explanations": why or "Nothing has explained this unit yet (nx-explain).",
        "simulations": "No explanation has simulated activations (nx-simulate).",
        "excerpts": why or "The line has no excerpts (nx-top).",
        "spread": "No excerpts of lower strengths were kept (nx-top --held-out spread=20).",
        "stats": "The line has no statistics (nx-top).",
        "histogram": why or "The recording kept no histogram of excerpt maxima (nx-record).",
        "tokens": "There are no evidence excerpts to take means over.",
        "connections": "Nothing is known of what the weights connect it to (nx-connect).",
        "effects": "What silencing it does was not measured (nx-score --method ablation).",
        "baselines": "No baselines were scored (nx-score).",
        "scores": "No explanation has a score (nx-score).",
        "revision": "No explanation was revised (nx-revise).",
    }
    there = {
        **{name: bool(found.get(name)) for name in lacks},
        "excerpts": bool(found["groups"]),
        "spread": not found["groups"] or any(group["pick"] == "spread" for group in found["groups"]),
        "tokens": bool(found["tokens"]["highest"] or found["tokens"]["lowest"]),
        "scores": any(told["scores"] for told in found["explanations"]),
        "revision": any(told.get("revision") for told in found["explanations"]),
    }
    return {name: sentence for name, sentence in lacks.items() if not there[name]}


def _object(record: Record, name: str) -> dict[str, Any]:
    found = record.get(name)
    return found if isinstance(found, dict) else {}
