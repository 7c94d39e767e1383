"""nx-top --sort: the same order from recordings and from lines, and no more looked at than it takes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from conftest import UNITS, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import Blobs, known_subject, passages, plan_of, recording_lines

from nxtools.commands._sorting import KEYS, SCORED, STATISTICS, Sorting
from nxtools.errors import UsageError
from nxtools.recordings import interest, ranking, statistics
from nxtools.recordings.deal import Counts
from nxtools.recordings.ranking import Ranking
from nxtools.recordings.run import Run as Recordings
from nxtools.records import SETS

Record = dict[str, Any]
FEW = dict.fromkeys(SETS, Counts(top=2, random=1))


# Order


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.none() | st.integers(-3, 3), st.integers(0, 4)), max_size=300),
    st.none() | st.integers(1, 40),
    st.booleans(),
)
def test_lines_come_as_sorting_all_of_them_would_have_it(
    came: list[tuple[int | None, int]], limit: int | None, ascending: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, Ranking(ascending=ascending, limit=limit) as ranked:
        patch.setattr(ranking, "IN_MEMORY", 100)
        for place, (number, name) in enumerate(came):
            ranked.add(number, (name,), b"%d\n" % place)
        found = [int(line) for line in ranked]
        assert ranked.lacking == sum(number is None for number, _ in came)

    def key(place: int) -> Any:
        number, name = came[place]
        value = 0 if number is None else number if ascending else -number
        return number is None, value, name, place

    assert found == sorted(range(len(came)), key=key)[:limit]


# Recordings


@pytest.fixture(scope="module")
def recordings() -> tuple[list[Record], Blobs]:
    blobs = Blobs()
    subject = known_subject(units=6, gated=(True, True))
    return recording_lines(subject, plan_of(passages(60)), blobs, batches=3), blobs


def lines(recordings: tuple[list[Record], Blobs], **sorting: Any) -> list[bytes]:
    settings = {"key": None, "figure": "top_and_random", "ascending": False, "limit": None, **sorting}
    run = Recordings(recordings[0], recordings[1].open, recordings[1].keep)
    return list(Sorting(**settings).of_recordings(run, FEW, paper=False))


@pytest.mark.parametrize("key", STATISTICS)
@pytest.mark.parametrize("ascending", [False, True])
def test_what_recordings_know_sorts_as_what_lines_say(
    recordings: tuple[list[Record], Blobs], key: str, ascending: bool
) -> None:
    whole = lines(recordings)
    by_number = sorted(  # stable: ties stay by layer and index
        whole, key=lambda line: orjson.loads(line)["stats"][key] * (1 if ascending else -1)
    )
    assert lines(recordings, key=key, ascending=ascending) == by_number
    assert lines(recordings, key=key, ascending=ascending, limit=5) == by_number[:5]


def test_without_a_key_a_limit_takes_the_first(recordings: tuple[list[Record], Blobs]) -> None:
    assert lines(recordings, limit=3) == lines(recordings)[:3]


def test_a_statistic_takes_no_rows_and_no_pool(
    recordings: tuple[list[Record], Blobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, blobs = recordings
    opened: list[str] = []

    def open_blob(digest: str) -> memoryview:
        opened.append(digest)
        return blobs.open(digest)

    run = Recordings(made, open_blob, blobs.keep)
    monkeypatch.delattr("nxtools.recordings.layer.Layer._merged")
    assert len(list(run.values("max"))) == len(list(run.values("kurtosis"))) == 12
    assert not set(opened) & {blob for line in made for blob in line["pool"]}
    assert set(statistics.NAMES) == set(STATISTICS)
    assert set(interest.SCORED) == set(SCORED) and set(KEYS) > set(interest.ON_LINES)


@pytest.mark.parametrize("key", interest.ON_LINES)
def test_what_recordings_do_not_know_is_said(recordings: tuple[list[Record], Blobs], key: str) -> None:
    with pytest.raises(UsageError, match=f"do not know the {key}"):
        lines(recordings, key=key)


# Values


def unit(**fields: Any) -> Record:
    return {"unit": {"layer": 0, "index": 0, "sign": "+"}, "excerpts": [], **fields}


def test_the_context_is_as_long_as_it_must_be() -> None:
    found = [interest.value(unit(contexts={"shortest": n}), "context") for n in (1, 16, "full")]
    assert found == sorted(found) and found[0] == 1
    assert interest.value(unit(), "context") is None
    assert interest.value(unit(contexts={"error": {}}), "context") is None


def test_the_gap_is_what_no_table_of_tokens_has() -> None:
    record = unit(
        explanations=[{"error": {}}, {"text": "a", "scores": [{"top_and_random": 0.9, "pool": 0.2}]}],
        baselines=[
            {"name": "token-table", "scores": [{"top_and_random": 0.4, "pool": None}]},
            {"name": "corpus-table", "scores": [{"top_and_random": 0.5, "pool": 0.1}]},
            {"name": "null", "scores": [{"top_and_random": 0.95, "pool": 0.95}]},
        ],
    )
    assert interest.value(record, "score") == 0.9
    assert interest.value(record, "gap") == pytest.approx(0.4)
    assert interest.value(record, "gap", "pool") == pytest.approx(0.1)
    assert interest.value(record, "gap", "random_only") is None
    assert interest.value({**record, "baselines": []}, "gap") is None


@pytest.mark.parametrize(("sign", "expected"), [("+", 11.0), ("+-", 11.0), ("-", 30.0)])
def test_the_start_is_where_top_excerpts_peak_in_their_documents(sign: str, expected: float) -> None:
    def excerpt(which: str, pick: str, start: int, *activations: float | None) -> Record:
        ids, tokens = list(range(len(activations))), ["a"] * len(activations)
        place = {"set": which, "pick": pick, "start": start, "ids": ids, "tokens": tokens}
        return {**place, "activations": list(activations)}

    record = unit(
        excerpts=[
            excerpt("evidence", "top", 10, None, 0.1, 5.0),
            excerpt("evidence", "top", 10, 3.0, 0.1, -8.0),
            excerpt("evidence", "bottom", 30, -2.0, 9.0),
            excerpt("held-out", "top", 500, 7.0, 0.0),
        ]
    )
    record["unit"]["sign"] = sign
    assert interest.value(record, "start") == expected


# Commands


def test_lines_of_later_commands_are_sorted_as_they_are(run: Run) -> None:
    given = UNITS.read_bytes().splitlines(keepends=True)
    maxima = [orjson.loads(line)["stats"].get("max") for line in given]
    done = run(f"nx-top --sort max {UNITS}")
    found = done.stdout.splitlines(keepends=True)
    assert found == sorted(given, key=lambda line: -maxima[given.index(line)])
    none = run(f"nx-top --sort context --limit 2 {UNITS}")
    assert none.stdout == b"".join(given[:2]) and b"3 units have no context and come last" in none.stderr
    assert run(f"nx-top --limit 2 {UNITS}").stdout == b"".join(given[:2])


def test_scored_units_are_sorted_by_what_they_scored(run: Run) -> None:
    done = run(f"nx-explain -q {UNITS} | nx-score -q | nx-top --sort gap")
    assert done.returncode == 0, done.stderr
    gaps = [interest.value(orjson.loads(line), "gap") for line in done.stdout.splitlines()]
    there = [gap for gap in gaps if gap is not None]
    assert there == sorted(there, reverse=True) and gaps[len(there) :] == [None] * (3 - len(there))
    assert 0 < len(there) < 3 and f"{3 - len(there)} units have no gap".encode() in done.stderr


def test_what_says_nothing_together_is_refused(run: Run) -> None:
    for options, message in {
        "--ascending": "--ascending says how to sort",
        "--sort max --figure pool": "--figure goes with --sort score or --sort gap",
        f"--sort max --evidence top=3 {UNITS}": "--evidence is for recordings",
        "--sort loudness": "'loudness' is not one of",
    }.items():
        done = run(f"nx-top {options}")
        assert done.returncode == 2 and message in done.stderr.decode()
    mixed = run("nx-top --sort max", stdin=UNITS.read_bytes() + b'{"kind":"recording","v":1}\n')
    assert mixed.returncode == 3 and b"of kind 'recording', not 'unit'" in mixed.stderr
