"""Unit lines whose excerpts stay bytes: what is read and printed is the same as if they had been parsed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxtools.errors import InputError
from nxtools.folded import Folded, check_folded, folded, unfolded, written
from nxtools.known import Known, known
from nxtools.records import SETS, excerpts_of
from nxtools.stage import Loop, Step
from nxtools.store import Store
from nxtools.stream import Record, dump, parsed
from nxtools.unit import Unit

# Tokens that look like the places where a line is cut, among others.
tokens = st.one_of(
    st.text(max_size=4),
    st.sampled_from(['}],"', "}],", '},{"id":"', '"set":"', '"excerpts":[{"id":"', "}]}", "}] ", "\\", '"']),
)
extras = st.dictionaries(
    st.sampled_from(["note", "x-1", "excerpts", "odd key"]),
    st.recursive(
        st.none() | tokens,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "set"]), inner),
        max_leaves=3,
    ),
    max_size=2,
)


@st.composite
def excerpts(draw: st.DrawFn) -> Record:
    texts = draw(st.lists(tokens, min_size=1, max_size=3))
    return {
        "id": draw(tokens),
        "document": "d",
        "set": draw(st.sampled_from(SETS)),
        "pick": "top",
        "ids": list(range(len(texts))),
        "tokens": texts,
        "activations": [0.5] * len(texts),
        **{key: value for key, value in draw(extras).items() if key == "note"},
    }


lines = st.builds(
    lambda before, found, after: {**before, "kind": "unit", "excerpts": found, "explanations": [{}], **after},
    extras,
    st.lists(excerpts(), max_size=4),
    extras.map(lambda more: {key: value for key, value in more.items() if key != "excerpts"}),
)
layouts = st.sampled_from(
    [
        orjson.dumps,
        lambda record: json.dumps(record, separators=(",", ":")).encode(),
        lambda record: json.dumps(record).encode(),
        lambda record: json.dumps(record, separators=(", ", ":"), ensure_ascii=False).encode(),
        lambda record: orjson.dumps(dict(reversed(record.items()))),
    ]
)


@given(lines, layouts)
def test_a_folded_line_holds_what_the_parsed_one_does(record: Record, layout: Any) -> None:
    line = layout(record)
    whole, cut = parsed(line), folded(line)
    assert parsed(b"".join(written(cut))) == whole
    for which in SETS:
        assert excerpts_of(cut, [which]) == excerpts_of(whole, [which])
    assert excerpts_of(cut, SETS) == excerpts_of(whole, SETS)
    assert unfolded(cut) == whole["excerpts"] and cut == whole


@given(st.lists(excerpts(), min_size=1, max_size=4), st.lists(tokens, max_size=2), st.booleans())
def test_numbers_are_read_without_the_tokens_and_are_the_same(
    found: list[Record], odd: list[str], nested: bool
) -> None:
    as_printed = ("id", "document", "ids", "tokens", "set", "pick", "note", "activations")
    for e in found:
        e["document"] = "".join(odd)
        if nested:
            e["note"] = [{"ids": [7], "tokens": odd, "activations": [8]}]
    ordered = [{key: e[key] for key in as_printed if key in e} for e in found]
    line = orjson.dumps({"kind": "unit", "unit": {"layer": 0, "index": 1}, "excerpts": ordered, "more": 1})
    whole, cut = Unit(parsed(line)), folded(line)
    if isinstance(cut["excerpts"], Folded):
        cut["excerpts"].sound = True
    for which in SETS:
        plain, quick = whole.shown(which), Unit(cut).shown(which)
        assert np.array_equal(plain.table.ids, quick.table.ids)
        assert np.array_equal(plain.table.activations, quick.table.activations, equal_nan=True)
        assert plain.table.texts == quick.table.texts
        assert replace(plain, table=quick.table) == quick


def test_sound_excerpts_as_nx_top_prints_them_are_read_without_their_tokens() -> None:
    keys = ("id", "document", "start", "ids", "tokens", "set", "pick", "rank", "probability", "activations")
    values = ("a", "d", 3, [1, 2], ["x", '],"set":"'], "held-out", "top", 0, None, [None, -2.5e-05])
    excerpts = Folded(orjson.dumps([dict(zip(keys, values, strict=True))]), 0)
    assert excerpts.columns("held-out") is None, "not while nobody has looked at them"
    excerpts.sound = True
    found = excerpts.columns("held-out")
    assert found is not None and found.ids == [1, 2] and found.activations == [None, -2.5e-05]
    assert found.excerpts[0]["rank"] == 0 and "tokens" not in found.excerpts[0]


PLAIN: Record = {
    "kind": "unit",
    "v": 1,
    "unit": {"layer": 0, "index": 1},
    "excerpts": [
        {"id": "a", "set": "evidence", "pick": "top", "ids": [1], "tokens": ["x"], "activations": [2.5]},
        {"id": "b", "set": "held-out", "pick": "top", "ids": [1], "tokens": ["x"], "activations": [1.0]},
    ],
    "explanations": [],
}


def test_lines_as_our_commands_write_them_are_folded_and_printed_byte_by_byte() -> None:
    for record in (PLAIN, {key: value for key, value in PLAIN.items() if key != "explanations"}):
        line = dump(record).replace(b"2.5", b"2.50").rstrip()
        cut = folded(line)
        assert isinstance(cut["excerpts"], Folded)
        assert b"".join(written(cut)) == line + b"\n"
        assert [e["id"] for e in excerpts_of(cut, ["held-out"])] == ["b"]
        assert "all" not in cut["excerpts"].__dict__, "one set is read without the others"


@pytest.mark.parametrize("wrong", [b'[{"id":"a",,}]', b'[{"id":"a"}}]', b'[{"id":"\xff"}]', b'[{"id":"a"},]'])
def test_what_is_no_json_among_the_excerpts_is_an_error_and_never_printed(wrong: bytes) -> None:
    line = b'{"kind":"unit","dead":true,"excerpts":%b,"explanations":[]}' % wrong
    with pytest.raises(InputError) as plain:
        parsed(line)
    with pytest.raises(InputError) as late:
        check_folded(folded(line))
    if b"\xff" not in wrong:
        assert str(late.value) == str(plain.value), "the same words, and the same column"


def test_half_a_character_is_never_passed_on() -> None:
    line = b'{"excerpts":[{"id":"a","tokens":["\\ud83d"]}]}'
    assert folded(line)["excerpts"][0]["tokens"] == ["\ufffd"]


def look(line: bytes, store: Store) -> tuple[Known, Folded]:
    """What is known of a line, and its excerpts afterwards."""
    found: list[Known] = []
    record = folded(line)

    def step(record: Record) -> Step:
        found.append((yield from known(Unit(record))))
        return record

    loop = Loop([record], step, store)
    list(loop)
    assert loop.counts.asked == 0, "digests are no answers that anybody asked for"
    return found[0], record["excerpts"]


def test_excerpts_are_read_once_and_known_by_their_bytes_from_then_on(tmp_path: Path) -> None:
    line = dump(PLAIN).rstrip()
    with Store(tmp_path) as store:
        first, _ = look(line, store)
        again, unread = look(line, store)
    assert first == again
    assert not {"all"} & set(unread.__dict__), "nothing but the bytes was looked at"


def test_digests_do_not_depend_on_how_a_line_was_printed(tmp_path: Path) -> None:
    line = dump(PLAIN).rstrip()
    with Store(tmp_path) as store:
        digests = look(line, store)[0].digests
        assert look(line.replace(b"2.5", b"2.500").replace(b"1.0", b"1"), store)[0].digests == digests
        changed = look(line.replace(b"2.5", b"2.6"), store)[0].digests
    assert {which for which in SETS if changed[which] != digests[which]} == {"evidence"}
