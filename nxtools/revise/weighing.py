"""What versions of words are worth: they are simulated on validation to choose, and held out to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.explain.drawing import Asked
from nxtools.revise.case import Case, predicted
from nxtools.revise.choice import paired, together, worth
from nxtools.revise.placing import Compared
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Shown, Unit

Activations = NDArray[np.float32]
Simulate = Callable[[Unit, Record, Shown], Asked]  # unit, explanation, excerpts -> simulations


@dataclass(frozen=True)
class Weighing:
    """simulate: who predicts activations from an explanation."""

    simulate: Simulate

    def predicted(self, case: Case, version: Record, shown: Shown) -> Asked:
        """What a version says of excerpts (n, tokens), or a failure. Asked once, with or without a store."""
        known = version["text"], shown.excerpts
        if known not in case.said:
            entry = case.entry(version["text"], version["scale"])
            found = predicted((yield from self.simulate(case.unit, entry, shown)), shown)
            if isinstance(found, Failure):
                return found
            case.said[known] = found
        return case.said[known]

    def validate(self, case: Case, version: Record) -> Asked:
        """Writes on a version what it is worth on validation, or why that is not known."""
        shown = case.excerpts("validation")
        said = yield from self.predicted(case, version, shown)
        if isinstance(said, Failure):
            version["failure"] = said
            return
        name, _ = case.figure()
        version["validation"] = {name: worth(shown.table.activations, said)}
        if silent := int(np.isnan(said).all(1).sum()):
            version["failed"] = silent  # excerpts without a simulation

    def compare(self, case: Case, old: Record, new: Record) -> Asked:
        """Old and new on the held-out excerpts, and on those widened by the texts that no reviser saw."""
        parts = [case.excerpts("held-out"), *case.kept]
        said: list[Activations] = []
        for version in (old, new):
            rows = []
            for part in parts:
                one = yield from self.predicted(case, version, part)
                if isinstance(one, Failure):
                    return one
                rows.append(one)
            said.append(together(rows))
        truth = together([part.table.activations for part in parts])
        held_out, widened = (
            paired(truth[:cut], *(one[:cut] for one in said)) for cut in (len(parts[0].excerpts), None)
        )
        written = [one for one in case.sentences if one["round"] == 1]
        silent = sum(not one["fires"] for one in written)
        changed = old["text"] != new["text"]
        return Compared(changed, held_out, widened, case.unit.name, (len(written), silent))
