"""Revision by a language model: it is shown new texts with the subject's true activations, and mends what an
explanation says.

Source of the loop: Bills et al. 2023, "Language models can explain neurons in language models".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt
from nxtools.assistant.protocol import Completion
from nxtools.explain.asked import read
from nxtools.explain.drawing import Asked, drawn, suiting
from nxtools.explain.pattern import identify
from nxtools.explain.rewording import in_words
from nxtools.explain.showing import evidence
from nxtools.revise import generated
from nxtools.revise.asked import messages
from nxtools.revise.case import Case
from nxtools.revise.choice import best
from nxtools.revise.evidence import NO_SUBJECT, OF_THE_CORPUS, Measured, Measuring, New
from nxtools.revise.placing import Compared, failed, is_original, placed
from nxtools.revise.weighing import Simulate, Weighing
from nxtools.score.series import Target
from nxtools.stage import Failure, Question, Step
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pattern.lexicon import Lexicon

VERSION = 1  # of the way; what is asked is in the questions
PROMPTS = Path(__file__).parent / "prompts"
RANDOM = 10  # excerpts with nonzero activation that `random` has: half are shown, half score
LITERALS = 30  # of the token table that ranks texts: any number, for a table names all tokens


@dataclass(frozen=True)
class Mending:
    """Who mends, and how.

    simulate: who predicts activations from an explanation; simulator: what it is called. writing: who writes
    sentences, None where none are wanted. excerpts: of the old evidence; examples: None for all;
    candidates: mended explanations in a round.
    """

    asking: Asking
    simulate: Simulate
    simulator: str
    measuring: Measuring
    writing: generated.Writing | None
    lexicon: Callable[[Unit], Lexicon]
    rounds: int = 1
    form: str = "auto"
    prompt: Path | None = None
    excerpts: int = 5
    examples: int | None = None
    candidates: int = 1

    def described(self) -> Record:
        sources = self.measuring.sources
        named = [*sources, "generated"] if self.writing else [*sources]
        return {
            "from": named or ["none"],
            "rounds": self.rounds,
            **({"pool": self.measuring.count} if set(OF_THE_CORPUS) & set(sources) else {}),
            "reviser": self.asking.name,
            "simulator": self.simulator,
            "candidates": self.candidates,
            "version": VERSION,
        }


class Mender:
    """Revises explanations in words; prompts are chosen and read once."""

    def __init__(self, mending: Mending) -> None:
        self.how = mending
        self.measured = Measured(mending.measuring)
        self._weighing = Weighing(mending.simulate)
        self.compared: list[Compared] = []
        self.seen = 0  # explanations to revise
        self.refused = 0  # those that failed for another reason than that a question did
        self._prompt: Prompt | None = None
        self._sentences = mending.writing.read() if mending.writing else None

    def step(self, record: Record) -> Step:
        """The unit with its explanations in words revised; each stands before the one that it revises."""
        told = [e for e in record.get("explanations") or [] if is_original(e) and in_words(e)]
        if record.get("dead") or record.get("error") or not told:
            return record
        self.seen += len(told)
        how, unit = self.how, Unit(record)
        new = yield from self._new(unit, record)
        by_id: dict[str, Record] = {}
        for explanation in told:
            made = (
                new
                if isinstance(new, Failure)
                else (yield from self._revised(unit, record, explanation, new))
            )
            if isinstance(made, Failure):
                self.refused += made.kind in ("no-subject", "no-evidence", "no-pool", "unparseable")
                made = failed(explanation, how.described(), made)
            by_id[explanation["id"]] = made
        record["explanations"] = placed(record["explanations"], by_id, how.described())
        return record

    def _new(self, unit: Unit, record: Record) -> Asked:
        """New texts that do not depend on the explanation; a failure where there is no subject to ask."""
        if self.how.writing is not None and "recorded" not in record:
            return NO_SUBJECT  # before anybody is paid for sentences
        found = yield from self.measured.of(unit, record)
        # A dry run goes on to what does not depend on them.
        return [] if isinstance(found, Failure) and found.kind == "dry-run" else found

    def _chosen(self) -> Asked:
        """The prompt; a failure when it cannot be known which one suits the model."""
        how = self.how
        if self._prompt is None:
            found = yield from suiting(how.asking, PROMPTS, how.form, how.prompt, how.examples)
            if isinstance(found, Failure):
                return found
            self._prompt = found
        return self._prompt

    def _revised(self, unit: Unit, record: Record, explanation: Record, new: list[New]) -> Asked:
        """The revised explanation: every version, its counterexamples, and which became current and why."""
        how = self.how
        prompt = yield from self._chosen()
        if isinstance(prompt, Failure):
            return prompt
        sign = str(explanation.get("sign") or ("+" if unit.sign == "+-" else unit.sign))
        view = "next-token" if explanation.get("view") == "next-token" else "activations"
        shown = evidence(unit, sign, view, how.excerpts)
        if shown is None:
            return Failure("revise", "no-evidence", "no excerpt of the evidence has an activation")
        case = Case(unit, explanation, shown, sign, view)
        text, scale = str(explanation["text"]), explanation.get("scale") or float(f"{case.scale:.4g}")
        versions: list[Record] = [{"text": text, "scale": scale, "made": "before"}]
        yield from self._weighing.validate(case, versions[0])
        # Wanted at the end in any case: asked for now, so that a dry run counts it.
        yield from self._weighing.predicted(case, versions[0], case.excerpts("held-out"))
        usage = {"calls": 0, "tokens_in": 0, "tokens_out": 0}
        current, why = 0, "nothing was better on validation"
        for round_ in range(1, how.rounds + 1):
            trouble = yield from self._challenge(case, record, versions[current], new, round_, usage)
            if isinstance(trouble, Failure):
                return trouble
            if "failure" in versions[0]:
                return versions[0]["failure"]
            if not case.tested and (new or how.writing):
                why = "nothing was found to show to the reviser"
                break
            mended = yield from drawn(
                lambda draw: self._question(case, versions, current, prompt, draw),  # noqa: B023
                lambda answer: read(prompt, answer),
                how.candidates,
                chance=prompt.temperature > 0,
            )
            _add(usage, mended.usage)
            if not mended.texts:
                return mended.failure
            first, known = len(versions), {version["text"] for version in versions}
            made = "mended" if case.tested else "explained again"
            for fresh in mended.texts[: how.candidates]:
                if fresh not in known:
                    versions.append(
                        {"text": fresh, "scale": float(f"{case.scale:.4g}"), "round": round_, "made": made}
                    )
                    yield from self._weighing.validate(case, versions[-1])
            better, said = best(versions, current, first)
            if better is None:
                why = said if round_ == 1 else f"{why}; in round {round_} {said}"
                break
            current, why = better, said
        compared = yield from self._weighing.compare(case, versions[0], versions[current])
        if isinstance(compared, Failure):
            return compared
        self.compared.append(compared)
        return self._entry(case, versions, current, why, usage, prompt, compared)

    def _challenge(
        self, case: Case, record: Record, version: Record, new: list[New], round_: int, usage: Record
    ) -> Asked:
        """Finds what the reviser is to be shown; a failure when somebody cannot be asked."""
        how = self.how
        if how.writing is not None and self._sentences is not None:
            found = yield from generated.challenge(
                case, record, version["text"], round_, how.writing, self._sentences, self.measured
            )
            if isinstance(found, Failure):
                return found
            _add(usage, found.usage)
            if not found.texts:
                return found.failure
        if not new:
            return None
        texts = how.lexicon(case.unit).texts
        target = Target(case.unit, how.measuring.pool_of)
        for one in new:
            part = case.unknown(one, lambda some: target.baselines(LITERALS)[0].predict(some.ids))
            shown = part.excerpts(lambda id: texts[id] if id < len(texts) else None)
            if isinstance(shown, Failure):
                return shown
            said = yield from self._weighing.predicted(case, version, shown)
            if isinstance(said, Failure):
                return said
            case.challenge(shown, said, round_, all_shown=one.source == "random")
        return None

    def _question(
        self, case: Case, versions: list[Record], current: int, prompt: Prompt, draw: int
    ) -> Question:
        text = versions[current]["text"]
        payload = Completion(
            messages(prompt, case.evidence, case.view, text, case.tested),
            prompt.temperature,
            prompt.max_tokens,
            draw=draw,
            stop=prompt.stop,
        )
        return self.how.asking.complete(payload, "revision")

    def _entry(
        self,
        case: Case,
        versions: list[Record],
        current: int,
        why: str,
        usage: Record,
        prompt: Prompt,
        compared: Compared,
    ) -> Record:
        """What stands on the line."""
        how = self.how
        for version in versions:
            if (failure := version.pop("failure", None)) is not None:
                version["error"] = {**failure.record(), "stage": "revise"}
        by: Record = {"explainer": how.asking.name, "model": how.asking.identity, "view": case.view}
        by |= {"prompt": prompt.described(), "temperature": prompt.temperature, "excerpts": how.excerpts}
        by |= {} if how.examples is None else {"examples": how.examples}
        by |= {} if self._sentences is None else {"sentences": self._sentences.described()}
        by["revised"] = how.described()
        name, _ = case.figure()
        entry = case.entry(versions[current]["text"], versions[current]["scale"])
        if case.view == "activations":
            del entry["view"]
        original = {"revises": case.explanation["id"]}
        return identify(
            {
                "text": entry.pop("text"),
                "by": by | original,
                **entry,
                **original,
                "versions": versions,
                "current": current,
                "why": why,
                "counterexamples": case.found,
                **({"sentences": case.sentences} if case.sentences else {}),
                "revision": compared.figures(name),
                "usage": usage,
            }
        )


def _add(usage: Record, more: Record) -> None:
    for name, value in more.items():
        usage[name] += value
