"""nx-puzzles: units whose truth is known, and what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.errors import InputError, UsageError, located
from nxtools.stream import Writer

if TYPE_CHECKING:
    from nxtools.puzzles.puzzle import Puzzle
    from nxtools.puzzles.results import Result

EXAMPLES = """
nx-puzzles | nx-explain | nx-score | nx-puzzles --score
nx-puzzles | nx-explain --explainer llama:FILE.gguf | nx-score --simulator llama:FILE.gguf > scored.jsonl
nx-puzzles --score --json scored.jsonl | tail -1
nx-puzzles --only not-all,similes | nx-explain
nx-puzzles --import puzzles.json | nx-explain --explainer openai:gpt-4o-mini
"""


@command(
    "nx-puzzles",
    examples=EXAMPLES,
    takes="nothing; with --score, puzzles that nx-score has scored",
    gives="unit lines, easy ones first; with --score, a table or JSON lines",
)
@inputs_argument
@click.option("--score", is_flag=True, help="Read scored puzzles and say how explainer and simulator did.")
@click.option("--json", "as_json", is_flag=True, help="With --score: JSON lines, the totals last.")
@click.option("--only", metavar="NAME,…", help="These puzzles, or all of these kinds.")
@click.option("--import", "file", metavar="FILE", help="Puzzles from a file in the form of the paper's code.")
@shared_options
def main(**options: Any) -> int:
    """Write made-up units with a known truth, to try explainers and simulators on. Each line carries the true
    explanation and false ones, which nx-score scores beside the explainer's answer.
    """
    shared = Shared.of("nx-puzzles", options)
    if options["score"]:
        if options["only"] or options["file"]:
            raise UsageError("--score reads puzzles that are scored: --only and --import make new ones")
        return _score(shared, options["as_json"])
    if options["as_json"]:
        raise UsageError("--json goes with --score")
    if shared.inputs:
        raise UsageError("puzzles come along: no file is read", hint="--score FILE, --import FILE")
    from nxtools.puzzles.line import line

    puzzles = _imported(options["file"]) if options["file"] else _ours()
    chosen = _only(puzzles, options["only"])
    with Writer(shared.output) as out:
        for index, puzzle in enumerate(puzzles):
            if puzzle in chosen:
                out.write(line(puzzle, index))
    return 0


def _ours() -> list[Puzzle]:
    from nxtools.puzzles.puzzle import ours

    return ours()


def _imported(file: str) -> list[Puzzle]:
    import orjson

    from nxtools.puzzles.puzzle import imported

    try:
        found = orjson.loads(Path(file).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=file) from error
    with located(file):
        return imported(found)


def _only(puzzles: list[Puzzle], wanted: str | None) -> list[Puzzle]:
    if wanted is None:
        return puzzles
    names = wanted.split(",")
    known = {name for puzzle in puzzles for name in (puzzle.name, puzzle.kind)}
    for name in names:
        if name not in known:
            raise UsageError(f"no puzzle and no kind is called {name!r}", hint=", ".join(sorted(known)))
    return [puzzle for puzzle in puzzles if puzzle.name in names or puzzle.kind in names]


def _score(shared: Shared, as_json: bool) -> int:
    from nxtools.puzzles.results import lines, results, totals
    from nxtools.records import check_unit
    from nxtools.stage import Counts

    reader = shared.reader(check_unit)
    found: list[Result] = []
    counts = Counts()
    with Writer(shared.output) as out:
        for unit in reader:
            try:
                found += results(unit)
            except InputError as error:
                error.where = error.where or reader.where
                if not shared.keep_going:
                    raise
                counts.skipped += 1
                shared.on_bad(error)
        if as_json:
            for record in [*(result.record() for result in found), *totals(found)]:
                out.write(record)
        else:
            for text in lines(found):
                out.write_line(text.encode() + b"\n")
    counts.skipped += reader.skipped
    return shared.status(counts)
