"""What people say of explanations: rating lines, checked, and on the units that they are about.

A rating line holds one judgement of one person about one unit: a `rating` of one `explanation`, explanations
`ranked` from the best to the worst (a preferred one of two is the shortest ranking), or an explanation that
they have `written`. Explanations go by the digest of their text, so that a judgement is about the words and
survives another order of the line, another run and another author of the same words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import combinations

from nxtools.errors import InputError
from nxtools.records import check_kind, field, objects
from nxtools.stream import Record
from nxtools.unit import full_name

RATINGS = range(1, 6)
ABOUT = ("rating", "ranked", "written")


def text_digest(text: str) -> str:
    """The name under which people judge an explanation: 16 hexadecimal digits of its text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def check_rating(record: Record) -> None:
    """InputError for what is no rating line."""
    check_kind(record, "rating", "a report's download")
    field(record, "unit.layer", int)
    field(record, "unit.index", int)
    check_judgement(record)


def check_judgement(record: Record) -> None:
    """InputError for what is no judgement, in a rating line or under `ratings` on a unit line."""
    said = [name for name in ABOUT if name in record]
    if len(said) != 1:
        raise InputError(f"a judgement has one of {', '.join(ABOUT)}, not {' and '.join(said) or 'none'}")
    for name in ("rater", "time", "report"):
        if record.get(name) is not None:
            field(record, name, str)
    if "rating" in record:
        field(record, "explanation", str)
        if field(record, "rating", int) not in RATINGS:
            raise InputError(f"the field 'rating' is {record['rating']}, not 1, 2, 3, 4 or 5")
    elif "written" in record:
        if not field(record, "written", str).strip():
            raise InputError("the field 'written' is empty")
    else:
        _check_ranked(field(record, "ranked", list))


def _check_ranked(ranked: list[object]) -> None:
    named = [name for place in ranked for name in (place if isinstance(place, list) else [place])]
    if not all(isinstance(name, str) for name in named):
        raise InputError("the field 'ranked' holds something else than digests of texts")
    if len(ranked) < 2 or len(set(named)) < len(named):
        raise InputError("the field 'ranked' takes two or more explanations, each of them once")


class Ratings:
    """Judgements by the unit that they are about. Of what one person says twice, the later counts.

    Judgements without a rater are taken for one person's.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[object, Record]] = {}

    def add(self, line: Record) -> None:
        """A rating line."""
        judgement = {key: value for key, value in line.items() if key not in ("kind", "v", "unit")}
        said = self._of.setdefault(full_name(line), {})
        before = said.get(key := _subject(judgement))
        if before is None or str(before.get("time") or "") <= str(judgement.get("time") or ""):
            said[key] = judgement

    def __iter__(self) -> Iterator[Record]:
        return (one for said in self._of.values() for one in said.values())

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def take(self, record: Record) -> list[Record]:
        """All judgements about a unit, those among them that are on its line; they are then no longer here.
        InputError where the line has something else."""
        for one in objects(record, "ratings", optional=True):
            check_judgement(one)
            self.add({**one, "unit": record["unit"]})
        return list(self._of.pop(full_name(record), {}).values())


def _subject(judgement: Record) -> object:
    """What a judgement is about and who made it: a person has one of each."""
    if "rating" in judgement:
        about: object = judgement["explanation"]
    elif "ranked" in judgement:
        about = frozenset(name for name, _ in _places(judgement["ranked"]))
    else:
        about = ("written", judgement["written"])
    return judgement.get("rater") or "", about


def _places(ranked: Iterable[object]) -> Iterator[tuple[str, int]]:
    """Each explanation with its place; those in one array share theirs."""
    for place, names in enumerate(ranked):
        for name in names if isinstance(names, list) else [names]:
            yield str(name), place


def rated(judgements: Iterable[Record]) -> dict[str, dict[str, int]]:
    """The ratings of each explanation, by rater."""
    found: dict[str, dict[str, int]] = {}
    for one in judgements:
        if "rating" in one:
            found.setdefault(str(one["explanation"]), {})[str(one.get("rater") or "")] = int(one["rating"])
    return found


def preferences(judgements: Iterable[Record]) -> Iterator[tuple[str, str, str]]:
    """(rater, better, worse): every two explanations that a person does not find equally good.

    From rankings, and from the ratings of a person that differ; what both say is said once.
    """
    judgements = list(judgements)
    orders: list[tuple[str, dict[str, int]]] = []
    of_rater: dict[str, dict[str, int]] = {}
    for name, by_rater in rated(judgements).items():
        for rater, rating in by_rater.items():
            of_rater.setdefault(rater, {})[name] = -rating
    orders += of_rater.items()
    orders += [
        (str(one.get("rater") or ""), dict(_places(one["ranked"]))) for one in judgements if "ranked" in one
    ]
    seen = set()
    for rater, places in orders:
        for one, other in combinations(sorted(places), 2):
            if places[one] == places[other]:
                continue
            better, worse = (one, other) if places[one] < places[other] else (other, one)
            if (pair := (rater, better, worse)) not in seen:
                seen.add(pair)
                yield pair
