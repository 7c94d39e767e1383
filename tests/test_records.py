"""Unit and recording lines: what is checked on the way in, and a unit's excerpts as arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxtools.errors import InputError
from nxtools.records import (
    NO_TOKEN,
    SETS,
    check_recording,
    check_unit,
    excerpts_of,
    field,
    sign_of,
    tabulate,
    unit_name,
)

Record = dict[str, Any]

RECORDING: Record = {
    "kind": "recording",
    "v": 1,
    "run": "r",
    "subject": {"name": "made-up", "fingerprint": "sha256:0"},
    "site": "mlp",
    "layer": 0,
    "shard": 0,
    "shards": 1,
    "blob": "b",
    "plan": "p",
}


def excerpt(texts: str, activations: list[Any], **more: Any) -> Record:
    """An excerpt of the tokens that a string holds between bars; its ids are their lengths."""
    tokens = texts.split("|")
    ids = [len(token) for token in tokens]
    return {
        "set": "evidence",
        "pick": "top",
        "tokens": tokens,
        "ids": ids,
        "activations": activations,
    } | more


def changed(record: Record, path: str, value: Any) -> Record:
    """A copy with the value at a dotted path replaced, or without it."""
    copied = copy.deepcopy(record)
    *parents, name = path.split(".")
    inner: Any = copied
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return copied


# Fields


def test_a_field_is_found_by_its_path() -> None:
    assert field(RECORDING, "subject.name", str) == "made-up"
    assert field({"a": 1.5}, "a", (int, float)) == 1.5


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (True, "true or false"),
        (1.0, "a number"),
        ("1", "a string"),
        (None, "null"),
        ([], "an array"),
        ({}, "an object"),
    ],
)
def test_a_field_of_another_type_says_what_it_is(value: Any, named: str) -> None:
    with pytest.raises(InputError, match=f"the field 'a.b' is {named}, not an integer"):
        field({"a": {"b": value}}, "a.b", int)


# Lines


def test_our_own_units_pass(units: list[Record]) -> None:
    for unit in units:
        check_unit(unit)
    assert [unit_name(unit) for unit in units] == ["0:7", "0:41", "0:63"]
    assert [sign_of(unit) for unit in units] == ["+-", "+", "+"]


UNIT_FAULTS: dict[str, tuple[str, Any, str]] = {
    "no kind": ("kind", ..., "this line is without a 'kind', not 'unit' (pipe the output of nx-top in)"),
    "another kind": ("kind", "recording", "this line is of kind 'recording', not 'unit'"),
    "no version": ("v", ..., "the field 'v' is missing"),
    "a version of another type": ("v", "1", "the field 'v' is a string, not an integer"),
    "a newer version": (
        "v",
        2,
        "the field 'v' is 2, and this program reads up to 1 (a newer nxtools wrote it)",
    ),
    "no unit": ("unit", ..., "the field 'unit.layer' is missing"),
    "no layer": ("unit.layer", ..., "the field 'unit.layer' is missing"),
    "a layer of another type": ("unit.layer", "0", "the field 'unit.layer' is a string, not an integer"),
    "an index that is no index": (
        "unit.index",
        True,
        "the field 'unit.index' is true or false, not an integer",
    ),
    "no sign that there is": ("unit.sign", "±", "the field 'unit.sign' is '±', not +, - or +-"),
    "no excerpts": ("excerpts", ..., "the field 'excerpts' is missing"),
    "excerpts of another type": ("excerpts", {}, "the field 'excerpts' is an object, not an array"),
    "an excerpt of another type": (
        "excerpts",
        [{}, 3],
        "the field 'excerpts[1]' is an integer, not an object",
    ),
    "an explanation that is a text": (
        "explanations",
        ["x"],
        "the field 'explanations[0]' is a string, not an object",
    ),
    "scores of another type": (
        "explanations",
        [{}, {"scores": {}}],
        "the field 'explanations[1].scores' is an object, not an array",
    ),
    "baselines of another type": ("baselines", {"null": {}}, "the field 'baselines' is an object, not an"),
    "no scores of a baseline": ("baselines", [{"scores": [7]}], "the field 'baselines[0].scores[0]' is a"),
}


@pytest.mark.parametrize("fault", UNIT_FAULTS)
def test_a_unit_line_that_is_none_says_which_field(units: list[Record], fault: str) -> None:
    path, value, message = UNIT_FAULTS[fault]
    with pytest.raises(InputError) as caught:
        check_unit(changed(units[0], path, value))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("path", ["run", "subject.fingerprint", "layer", "blob", "plan"])
def test_a_recording_line_needs_its_fields(path: str) -> None:
    check_recording(RECORDING)
    with pytest.raises(InputError, match=f"the field '{path}' is missing"):
        check_recording(changed(RECORDING, path, ...))
    with pytest.raises(InputError, match=f"the field '{path}' is an array, not"):
        check_recording(changed(RECORDING, path, []))


# Excerpts


def test_excerpts_are_chosen_by_set_and_pick(units: list[Record]) -> None:
    unit = units[0]
    by_hand = [e for e in unit["excerpts"] if e["set"] == "held-out" and e["pick"] in ("top", "random")]
    assert excerpts_of(unit, ["held-out"], ["top", "random"]) == by_hand
    assert excerpts_of(unit, SETS) == unit["excerpts"]


def test_an_excerpt_of_no_set_is_an_error() -> None:
    for wrong in ("test", None):
        with pytest.raises(
            InputError, match=r"'excerpts\[1\].set' is .*, not evidence, validation or held-out"
        ):
            excerpts_of({"excerpts": [excerpt("a", [1]), excerpt("a", [1], set=wrong)]}, ["evidence"])


def test_excerpts_without_ids_are_numbered_over_the_whole_line() -> None:
    record = {
        "excerpts": [
            excerpt("a| b|a", [1, 2, 3], ids=None),
            excerpt(" b|c", [1, 2], set="held-out"),  # its ids would mean something else
        ]
    }
    evidence, held_out = (excerpts_of(record, [which])[0]["ids"] for which in ("evidence", "held-out"))
    assert evidence == [0, 1, 0]
    assert held_out == [1, 2]


# Tables


def test_a_table_of_excerpts() -> None:
    table = tabulate([excerpt("a| bc", [0.5, 2]), excerpt(" de|\ufffd", [None, -1.25])])
    assert table.ids.dtype == np.int32 and table.activations.dtype == np.float32
    np.testing.assert_array_equal(table.ids, [[1, 3], [3, 1]])
    np.testing.assert_array_equal(table.activations, np.array([[0.5, 2], [np.nan, -1.25]], np.float32))
    assert table.vocabulary == {1: "\ufffd", 3: " de"}


@given(st.lists(st.lists(st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)), max_size=5))
def test_shorter_rows_are_filled_and_nothing_else_is(rows: list[list[float | None]]) -> None:
    table = tabulate(
        [{"tokens": ["a"] * len(row), "ids": [1] * len(row), "activations": row} for row in rows]
    )
    assert table.ids.shape == table.activations.shape == (len(rows), max(map(len, rows), default=0))
    for place, row in enumerate(rows):
        found = table.activations[place, : len(row)]
        np.testing.assert_array_equal(found, np.array(row, np.float32))
        assert (table.ids[place, : len(row)] == 1).all()
        assert (table.ids[place, len(row) :] == NO_TOKEN).all()
        assert np.isnan(table.activations[place, len(row) :]).all()


EXCERPT_FAULTS: dict[str, tuple[Callable[[Record], Any], str]] = {
    "no tokens": (lambda e: e.pop("tokens"), "'tokens' is missing"),
    "no activations": (lambda e: e.pop("activations"), "'activations' is missing"),
    "ids of another type": (lambda e: e.update(ids="12"), "'ids' is a string, not an array"),
    "a token too few": (
        lambda e: e["tokens"].pop(),
        "1 tokens, 2 ids and 2 activations, which should be as many",
    ),
    "an id that is a text": (lambda e: e.update(ids=[1, "2"]), "'ids' holds something else than integers"),
    "an id that is half": (lambda e: e.update(ids=[1, 1.5]), "'ids' holds something else than integers"),
    "an id that is true": (lambda e: e.update(ids=[1, True]), "'ids' holds something else than integers"),
    "an id below 0": (lambda e: e.update(ids=[1, -1]), "'ids' holds something else than integers"),
    "an id too large": (lambda e: e.update(ids=[1, 2**31]), "'ids' holds something else than integers"),
    "a value that is a text": (
        lambda e: e.update(activations=[1, "2"]),
        "'activations' holds something else than num",
    ),
    "a value that is a list": (
        lambda e: e.update(activations=[[1], [2]]),
        "'activations' holds something else",
    ),
    "a value that is true": (lambda e: e.update(activations=[1, True]), "'activations' holds something else"),
    "a value beyond f32": (lambda e: e.update(activations=[1, 1e39]), "'activations' holds something else"),
    "a token that is a number": (lambda e: e.update(tokens=["a", 2]), "a token is an integer, not a string"),
}


@pytest.mark.parametrize("fault", EXCERPT_FAULTS)
def test_an_excerpt_that_cannot_be_read_is_named(fault: str) -> None:
    spoil, message = EXCERPT_FAULTS[fault]
    good, bad = (excerpt("a| bc", [0.5, 2], id=name, rank=rank) for rank, name in enumerate(("good", "bad")))
    spoil(bad)
    with pytest.raises(InputError) as caught:
        tabulate([good, bad])
    assert caught.value.message.startswith(f"excerpt bad (evidence top 1): {message}")
