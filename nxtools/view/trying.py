"""One unit on sentences that somebody gives: what it does, and what its explanation says that it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxtools.explain.pattern import to_run
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import Failure
from nxtools.simulate.pattern import simulate
from nxtools.stage import Engine, Question, Step
from nxtools.stream import Record
from nxtools.subject.asked import SPELLING_VERSION, VERSION, LayerReading, Spelling
from nxtools.unit import Unit
from nxtools.view.explained import current
from nxtools.view.texts import STAGE, Ran, Watched, in_text, share, short

Lexicons = Callable[[Unit], Lexicon]


def trying(
    record: Record,
    address: str,
    sentences: Sequence[str],
    lexicon_of: Lexicons,
    speller: Engine,
    reader: Engine,
) -> Step:
    """What a unit line's unit does on some sentences, or an `error`.

    `unit`: `address`, `name`, `sign`, `text`, `by` and `score` of its explanation, `max` (the activation
    that is a share of 1); `sentences`: of each `text`, `tokens`, `ids`, `values`, `shares`, and `expected`,
    what the explanation says, if it can be run; else `unsaid` says why it cannot.
    """
    ran, watched = Ran.of(record), Watched.of(address, record)
    if ran is None:
        return _failed("no-context", "the line does not say how its subject was run (nx-record, nx-top)")
    if watched is None:
        return _failed("never-fires", f"unit {address} never fired on the recorded text")
    names = ran.subject, ran.fingerprint, ran.site, ran.dtype
    spelling = Spelling(*names, list(sentences))
    question = Question("spell", SPELLING_VERSION, spelling.question(), speller, spelling, kind="spelling")
    (spelled,) = yield [question]
    if isinstance(spelled, Failure):
        return {"error": spelled.record()}
    kept = [place for place, ids in enumerate(spelled["ids"]) if ids]
    readings = [
        LayerReading(*names, watched.layer, (watched.index,), ran.contexts(spelled["ids"][place]))
        for place in kept
    ]
    answers = yield [
        Question("read", VERSION, one.question(), reader, one, kind="activations") for one in readings
    ]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if failures:
        return {"error": failures[0].record()}
    found: list[Record] = []
    for place, reading, answer in zip(kept, readings, answers, strict=True):
        lengths = [len(ids) for ids in reading.contexts]
        (values,) = in_text(reading.unpacked(answer), lengths, ran.bos)
        found.append(
            {
                "text": sentences[place],
                "tokens": spelled["tokens"][place],
                "ids": spelled["ids"][place],
                "values": [short(value) for value in values],
                "shares": [short(value, 3) for value in share(watched, values)],
            }
        )
    unsaid = _simulate(record, watched, found, lexicon_of)
    unit: Record = {"address": address, "name": watched.name, "sign": watched.sign, "text": watched.text}
    unit |= {"by": watched.by, "score": watched.score, "max": short(watched.strongest)}
    return {"unit": unit, "sentences": found, **({"unsaid": unsaid} if unsaid else {})}


def _failed(kind: str, message: str) -> Record:
    return {"error": Failure(STAGE, kind, message).record()}


def _simulate(record: Record, watched: Watched, found: list[Record], lexicon_of: Lexicons) -> str | None:
    """Puts what the current explanation expects on the sentences; why it cannot, otherwise."""
    told = current(record)
    pattern = None if told is None or "error" in told else to_run(told)
    if told is None or pattern is None:
        return "it has no explanation that can be run"
    scale = told.get("scale")
    factor = float(scale) if isinstance(scale, int | float) else watched.strongest
    excerpts = [
        {"id": str(place), "set": "evidence", "pick": "top", "activations": one["values"]}
        | {"ids": one["ids"], "tokens": one["tokens"]}
        for place, one in enumerate(found)
    ]
    unit = Unit({**record, "excerpts": excerpts})
    rows = simulate(pattern, factor, [unit.shown("evidence")], lexicon_of(unit))
    if isinstance(rows, Failure):
        return rows.message
    for one, row in zip(found, rows, strict=True):
        one["expected"] = row[: len(one["ids"])]
    return None
