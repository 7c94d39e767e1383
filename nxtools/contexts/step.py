"""What nx-contexts does with a unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxtools.contexts.curve import curve
from nxtools.contexts.cuts import VERSION, Cut, Peaks, question
from nxtools.known import known
from nxtools.recordings.contexts import Contexts
from nxtools.records import sides_of
from nxtools.stage import Engine, Failure, Question, Step
from nxtools.stream import Record
from nxtools.unit import Unit


class Checker:
    """Asks how much of many units' top activations is left with contexts of so many tokens.

    reader: runs the subject. `found`: by layer, the shortest context of each unit; `refused`: units that no
    subject can be asked about, whose lines say why.
    """

    def __init__(
        self, lengths: Sequence[int], reader: Engine, open_blob: Callable[[str], memoryview]
    ) -> None:
        self.lengths, self._reader, self._open_blob = tuple(lengths), reader, open_blob
        self.found: dict[int, list[int | str]] = {}
        self.refused = self.absent = 0
        self._contexts: dict[str, Contexts] = {}

    def step(self, record: Record) -> Step:
        """The unit with its curve, or with the reason why it has none."""
        if record.get("dead") or record.get("error"):
            return record
        failure = _refused(record)
        if failure is not None:
            self.refused += 1
            record["contexts"] = {"error": failure.record()}
            return record
        unit, of, recorded = Unit(record), record["unit"], record["recorded"]
        digests = (yield from known(unit)).digests
        contexts = self._seen_before(recorded)
        peaks = Peaks(unit, contexts.before)
        cuts = [
            Cut(
                str(of.get("subject")),
                str(of["fingerprint"]),
                str(of.get("site", "mlp")),
                contexts.dtype,
                unit.layer,
                int(of["index"]),
                peaks,
                tokens,
            )
            for tokens in self.lengths
        ]
        fields = [question(cut, digests, sides_of(unit.sign), recorded) for cut in cuts]
        answers = yield [
            Question("contexts", VERSION, asked, self._reader, cut, kind="activations")
            for asked, cut in zip(fields, cuts, strict=True)
        ]
        failed = next((answer for answer in answers if isinstance(answer, Failure)), None)
        if failed is not None:
            record["contexts"] = {"error": failed.record()}
            return record
        made = curve(self.lengths, answers)
        if made is None:
            self.absent += 1
            record["contexts"] = {"absent": "no top excerpt in the evidence"}
            return record
        self.found.setdefault(unit.layer, []).append(made["shortest"])
        record["contexts"] = made
        return record

    def _seen_before(self, recorded: Record) -> Contexts:
        """Units of a layer, and mostly all, were recorded alike and share their plans."""
        name = repr(recorded)
        if name not in self._contexts:
            self._contexts = {name: Contexts(recorded, self._open_blob)}
        return self._contexts[name]


def _refused(record: Record) -> Failure | None:
    made_of = [name for name, value in record["unit"].items() if isinstance(value, dict | list)]
    if made_of:  # a direction, a latent: no column of the site
        message = f"the unit is no neuron of its subject: it has a {', a '.join(sorted(made_of))}"
        return Failure("contexts", "no-neuron", message)
    if "fingerprint" not in record["unit"] or "recorded" not in record:
        message = "the line does not say how the subject was run: nx-record and nx-top write `recorded`"
        return Failure("contexts", "no-context", message)
    return None
