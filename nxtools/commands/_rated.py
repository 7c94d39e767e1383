"""What people said of explanations: read from files, put on unit lines, compared with the scores there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from nxtools.errors import InputError

if TYPE_CHECKING:
    from nxtools.progress import Progress
    from nxtools.score.ratings import Ratings
    from nxtools.stream import Record


class Rated:
    """Puts the judgements of some files on the units that they are about, and says in the end how the scores
    agree with them."""

    def __init__(self, files: Sequence[str]) -> None:
        """Reads the files. InputError where one cannot be read, or holds no rating."""
        from nxtools.score.people import People

        self._ratings = read(files)
        self._people = People()

    def prepare(self, units: Iterable[Record]) -> Iterator[Record]:
        for unit in units:
            if found := self._ratings.take(unit):
                unit["ratings"] = found
            yield unit

    def each(self, unit: Record) -> None:
        self._people.add(unit)

    def say(self, progress: Progress) -> None:
        for line in self._people.lines():
            progress.say(line)
        if left := len(self._ratings):
            progress.say(f"{left:,} judgements are about units that did not come in")


def read(files: Sequence[str]) -> Ratings:
    """The judgements of these files."""
    from nxtools.score.ratings import Ratings, check_rating
    from nxtools.stream import Reader

    found = Ratings()
    for name in files:
        before = len(found)
        for line in Reader([name], check_rating):
            found.add(line)
        if len(found) == before:
            raise InputError("no line is a judgement", where=name, hint="nx-view's report downloads them")
    return found
