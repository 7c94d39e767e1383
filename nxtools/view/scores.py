"""Scores and those who made them, as a viewer shows them."""

from __future__ import annotations

from typing import Any

from nxtools.records import objects
from nxtools.report.series import MAIN, figures, why_absent
from nxtools.stream import Record


def scores(entry: Record) -> list[Record]:
    """The scores of an explanation or a baseline.

    Each has `method`, `simulator` and either `error`, a sentence, or `figures`, the main one first: `name`,
    `value`, `low` and `high` (its 95% interval), `excerpts`, `tokens` and, where the value is null, `why`.
    """
    return [_score(score) for score in objects(entry, "scores", optional=True)]


def _score(score: Record) -> Record:
    shown: Record = {"method": str(score.get("method", "")), "simulator": str(score.get("simulator", ""))}
    if "error" in score:
        return shown | {"error": reason(score["error"])}
    found = [_figure(score, name, value) for name, value in figures(score) if type(value) is not int]
    main = next((name for name in MAIN if name in score), None)
    found.sort(key=lambda figure: figure["name"] != main)
    counts = {
        name: score[name]
        for name in ("active", "silent", "failed", "trials", "failed_tokens", "failed_excerpts")
        if type(score.get(name)) is int
    }
    return shown | {"figures": found, "counts": counts, "calibration": score.get("calibration")}


def _figure(score: Record, name: str, value: float | None) -> Record:
    pair = score.get("interval") if name == "top_and_random" else _under(score, "intervals").get(name)
    low, high = map(number, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
    counted = score if name == "top_and_random" else _under(_under(score, "counts"), name)
    figure: Record = {
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "excerpts": number(counted.get("excerpts")),
        "tokens": number(counted.get("tokens")),
    }
    return figure if value is not None else figure | {"why": why_absent(score, name)}


def main_figure(score: Record) -> Record | None:
    """The figure that stands for a score, of what `scores` gives."""
    return next((figure for figure in score.get("figures", []) if figure["name"] in MAIN), None)


def number(value: Any) -> float | int | None:
    """A number, or None for whatever else stands in its place."""
    return value if isinstance(value, float | int) and not isinstance(value, bool) else None


def _under(record: Record, name: str) -> Record:
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def reason(error: Any) -> str:
    """What an error on a line says, as a sentence without an end."""
    if not isinstance(error, dict):
        return str(error)
    return f"{error.get('stage', 'unknown stage')}: {error.get('message') or error.get('kind', 'failed')}"


def author(by: Any) -> Record:
    """Who explained or simulated: `name`, and `settings` as text by name."""
    by = dict(by) if isinstance(by, dict) else {}
    name = str(by.pop("explainer", by.pop("simulator", "unknown")))
    return {"name": name, "settings": {key: plain(value) for key, value in by.items()}}


def plain(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
