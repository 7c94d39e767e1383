"""How many units need how much context, by layer, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nxtools.contexts.curve import FULL, PRESERVED, Shortest


def lines(lengths: Sequence[int], found: Mapping[int, Sequence[Shortest]]) -> Iterator[str]:
    """Counts of units by the shortest context that is enough, a line for each layer and one for all."""
    if not found:
        return
    columns: list[Shortest] = [*lengths, FULL]
    rows = {f"layer {layer}": Counter(of_layer) for layer, of_layer in sorted(found.items())}
    rows["all"] = sum(rows.values(), Counter())
    label = f"units by tokens that preserve {PRESERVED:.0%}"
    width = max(len(label), *map(len, rows))
    yield label.ljust(width) + "".join(f"{column:>8}" for column in columns)
    for name, counts in rows.items():
        yield name.ljust(width) + "".join(f"{counts[column]:>8,}" for column in columns)
