"""Sentences that the assistant writes to fit an explanation, and whether the unit reacts to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt, read_prompt
from nxtools.assistant.protocol import Completion
from nxtools.explain.drawing import Asked, Drawn, drawn
from nxtools.revise.asked import same, sentences, to_write
from nxtools.revise.case import Case
from nxtools.revise.evidence import Measured
from nxtools.score.figures import short
from nxtools.stage import Engine, Failure, Question
from nxtools.stream import Record
from nxtools.subject.asked import SPELLING_VERSION, Spelling

WRITTEN = 10  # sentences that are asked for
FIRES = 0.3  # of the activation that is 10: below it a sentence has not made the unit fire


@dataclass(frozen=True)
class Writing:
    """Who writes, and who says how the subject spells it. prompt: a file in place of the one that comes
    along."""

    asking: Asking
    speller: Engine
    prompt: Path

    def read(self) -> Prompt:
        return read_prompt(self.prompt)


def challenge(
    case: Case, record: Record, text: str, round_: int, how: Writing, prompt: Prompt, measured: Measured
) -> Asked:
    """Gives a case the sentences that fit an explanation: half of them, by hash, to the reviser, and half to
    scores. `Drawn` with what the answers cost, or a failure."""
    (chats,) = yield [how.asking.has("chat")]
    found: Drawn = yield from drawn(
        lambda draw: _question(how, prompt, text, draw, stops=chats is False),
        lambda answer: sentences(answer, WRITTEN),
        1,
        chance=prompt.temperature > 0,
        what="sentences",
    )
    if not found.texts:
        return found
    told = {same(one["text"]) for one in case.sentences}
    fresh = [one for one in found.texts if same(one) not in told]
    (spelled,) = yield [_spelling(record, fresh, how)]
    if isinstance(spelled, Failure):
        return spelled
    there = [row for row, ids in enumerate(spelled["ids"]) if len(ids) > 1]
    ids, tokens = ([spelled[name][row] for row in there] for name in ("ids", "tokens"))
    if not there:
        return found
    new = yield from measured.own(record, "generated", ids)
    if isinstance(new, Failure):
        return new
    texts = dict(zip((id for row in ids for id in row), (t for row in tokens for t in row), strict=True))
    shown = new.excerpts(texts.get)
    by_hash = sorted(range(len(there)), key=lambda row: _hash(fresh[there[row]]))
    half = (len(there) + 1) // 2
    roles = {row: "reviser" if place < half else "scores" for place, row in enumerate(by_hash)}
    for row, peak in enumerate(case.peaks(shown)):
        fires = peak >= FIRES * case.scale
        case.sentences.append(
            {
                "round": round_,
                "text": fresh[there[row]],
                "for": roles[row],
                "activation": short(peak if case.sign == "+" else -peak),
                "fires": bool(fires),
            }
        )
        if not fires:
            case.found.append(case.silent(shown, row, roles[row], peak, round_))
    case.give(shown, roles)
    return found


def _question(how: Writing, prompt: Prompt, text: str, draw: int, *, stops: bool) -> Question:
    payload = Completion(
        to_write(prompt, text, WRITTEN),
        prompt.temperature,
        prompt.max_tokens,
        draw=draw,
        stop=prompt.stop if stops else (),
    )
    return how.asking.complete(payload, "sentences")


def _spelling(record: Record, texts: list[str], how: Writing) -> Question:
    of = record["unit"]
    dtype = str(record["recorded"].get("dtype", "float32"))
    asked = Spelling(
        str(of.get("subject")), str(of.get("fingerprint")), str(of.get("site", "mlp")), dtype, texts
    )
    return Question("spell", SPELLING_VERSION, asked.question(), how.speller, asked, kind="spelling")


def _hash(sentence: str) -> bytes:
    return hashlib.sha256(same(sentence).encode()).digest()
