"""Explanations of one run scored on the units of another: twins, checkpoints of one training, shuffles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nxtools.commands._assistants import typed
from nxtools.errors import InputError, UsageError

if TYPE_CHECKING:
    from nxtools.stream import Record

Place = tuple[str, int, int, str]  # site, layer, index, sign

MADE_HERE = ("scores", "simulations")  # what an explanation leaves behind with its own unit


class Transfer:
    """Gives each unit the explanations of its counterpart in another run, and counts those without one.

    shift: the counterpart is the next unit of the layer there, the first for the last one.
    """

    def __init__(self, name: str, *, shift: bool) -> None:
        """Reads the other run. InputError where it has no explanations or cannot be read."""
        self._said = _explanations(name)
        self.without = 0
        if not self._said:
            raise InputError("no unit has an explanation", where=name, hint="nx-explain makes them")
        if shift:
            self._said = _shifted(self._said)

    def __call__(self, units: Iterable[Record]) -> Iterator[Record]:
        for unit in units:
            found = self._said.get(_place(unit))
            self.without += found is None
            unit["explanations"] = [dict(explanation) for explanation in found or ()]
            yield unit

    def told(self) -> str:
        return f"{self.without:,} units have no counterpart with an explanation" if self.without else ""


def transfer_of(options: dict[str, Any]) -> Transfer | None:
    """What --explanations-from and --map ask for."""
    if options["explanations_from"] is None:
        for name in typed("map"):
            raise UsageError(f"--{name} goes with --explanations-from")
        return None
    return Transfer(options["explanations_from"], shift=options["map"] == "shift")


def _place(unit: Record) -> Place:
    named = unit["unit"]
    return (
        str(named.get("site", "mlp")),
        int(named["layer"]),
        int(named["index"]),
        str(named.get("sign", "+")),
    )


def _explanations(name: str) -> dict[Place, list[Record]]:
    from nxtools.folded import folded
    from nxtools.records import check_unit
    from nxtools.stream import Reader

    found: dict[Place, list[Record]] = {}
    for unit in Reader([name], check_unit, parse=folded):
        told = [e for e in unit.get("explanations") or () if isinstance(e.get("text"), str)]
        if told:
            about = {key: unit["unit"].get(key) for key in ("subject", "fingerprint", "layer", "index")}
            found[_place(unit)] = [
                {key: value for key, value in e.items() if key not in MADE_HERE} | {"explains": about}
                for e in told
            ]
    return found


def _shifted(said: dict[Place, list[Record]]) -> dict[Place, list[Record]]:
    layers: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place in sorted(said):
        layers[place[0], place[1]].append(place)
    return {
        place: said[places[(number + 1) % len(places)]]
        for places in layers.values()
        for number, place in enumerate(places)
    }
