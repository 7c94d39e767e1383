"""Rows as text: TSV and JSON lines for programs, Markdown for people. Floats have four significant digits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nxtools.score.figures import short
from nxtools.stream import dump

Row = dict[str, Any]

FORMATS = ("tsv", "json", "markdown")


def tsv(rows: Iterable[Row]) -> Iterator[bytes]:
    """A line of names and a line for each row; what is absent is empty."""
    for place, row in enumerate(rows):
        if place == 0:
            yield _joined(row)
        yield _joined(map(_plain, row.values()))


def json(rows: Iterable[Row]) -> Iterator[bytes]:
    """A row a line; what is absent is null."""
    return (dump({name: _short(value) for name, value in row.items()}) for row in rows)


def markdown(rows: Sequence[Row], columns: Mapping[str, str]) -> Iterator[bytes]:
    """A table of some columns, under the headings given. `mean±` is a mean with its margin."""
    if not rows:
        return
    cells = [list(columns.values()), *([_cell(row, name) for name in columns] for row in rows)]
    numeric = [all(_is_number(row.get(name.rstrip("±"))) for row in rows) for name in columns]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)]
    for line in (cells[0], rule, *cells[1:]):
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        yield f"| {' | '.join(padded)} |\n".encode()


def _joined(cells: Iterable[str]) -> bytes:
    return ("\t".join(cells) + "\n").encode()


def _plain(value: Any) -> str:
    """As in JSON, but strings without quotes and in one cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return " ".join(value.split())
    return dump(_short(value)).decode().rstrip("\n")


def _short(value: Any) -> Any:
    return short(value) if isinstance(value, float) else value


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(row: Row, name: str) -> str:
    value = row.get(name.rstrip("±"))
    if name.endswith("±") and value is not None and row["low"] is not None:
        return f"{value:.3f} ± {(row['high'] - row['low']) / 2:.3f}"
    if isinstance(value, float):
        return _rounded(name, value)
    return _plain(value).replace("|", "\\|")


def _rounded(name: str, value: float) -> str:
    if name.startswith("over_"):
        return f"{100 * value:.1f}%"
    if name in ("p", "p_holm") and value < 0.001:
        return "< 0.001"
    return f"{value:.3f}"
