"""What flows: `recording` and `unit` lines, checked on the way in, and a unit's excerpts as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from nxtools.errors import InputError
from nxtools.folded import Columns, Folded
from nxtools.stream import JSON_NAMES, Record, named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
SETS = ("evidence", "validation", "held-out")
SIGNS = ("+", "-", "+-")
PICKS = ("top", "bottom", "spread", "random")

NO_TOKEN = -1  # fills the rows of a table whose excerpts have different lengths


def field(record: Record, path: str, kind: type | tuple[type, ...]) -> Any:
    """The value at a dotted path, or an InputError that names the path and what stands there."""
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise InputError(
                f"the field {path!r} is missing", hint="is this the output of the command before?"
            )
        value = value[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:  # a subclass would let booleans pass as integers
        wanted = " or ".join(JSON_NAMES[k] for k in kinds)
        raise InputError(f"the field {path!r} is {named(value)}, not {wanted}")
    return value


def check_kind(record: Record, kind: str, made_by: str) -> None:
    found = record.get("kind")
    if found != kind:
        this = f"of kind {found!r}" if isinstance(found, str) else "without a 'kind'"
        raise InputError(f"this line is {this}, not {kind!r}", hint=f"pipe the output of {made_by} in")
    version = field(record, "v", int)
    if version > VERSION:
        raise InputError(
            f"the field 'v' is {version}, and this program reads up to {VERSION}",
            hint="a newer nxtools wrote it",
        )


def check_recording(record: Record) -> None:
    check_kind(record, "recording", "nx-record")
    for path, kind in {
        "run": str,
        "subject.name": str,
        "subject.fingerprint": str,
        "site": str,
        "layer": int,
        "shard": int,
        "shards": int,
        "blob": str,
        "plan": str,
    }.items():
        field(record, path, kind)


def check_unit(record: Record) -> None:
    """What every command after nx-top relies on. Excerpts are checked when they are tabulated."""
    check_kind(record, "unit", "nx-top")
    field(record, "unit.layer", int)
    field(record, "unit.index", int)
    sign = record["unit"].get("sign", "+")
    if sign not in SIGNS:
        raise InputError(f"the field 'unit.sign' is {sign!r}, not {one_of(SIGNS)}")
    if not isinstance(record.get("excerpts"), Folded):
        objects(record, "excerpts")
    for scored in ("explanations", "baselines"):
        for place, one in enumerate(objects(record, scored, optional=True)):
            for name in ("simulations", "scores"):
                objects(one, name, inside=f"{scored}[{place}]", optional=True)


def objects(record: Record, name: str, *, inside: str = "", optional: bool = False) -> list[Record]:
    """A field that holds an array of objects. `inside`: where in the line the record stands."""
    if optional and name not in record:
        return []
    path = f"{inside}.{name}" if inside else name
    found = record.get(name)
    if not isinstance(found, list):
        what = f"is {named(found)}, not an array" if name in record else "is missing"
        raise InputError(f"the field {path!r} {what}")
    for place, value in enumerate(found):
        if not isinstance(value, dict):
            raise InputError(f"the field '{path}[{place}]' is {named(value)}, not an object")
    return found


def one_of(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def unit_name(record: Record) -> str:
    """`2:41`, as options and summaries name a unit."""
    unit = record["unit"]
    return f"{unit['layer']}:{unit['index']}"


def sign_of(record: Record) -> str:
    return str(record["unit"].get("sign", "+"))


def sides_of(sign: str) -> tuple[str, ...]:
    """The picks that show the sides of a unit."""
    return {"+": ("top",), "-": ("bottom",)}.get(sign, ("top", "bottom"))


def excerpts_of(record: Record, sets: Iterable[str], picks: Iterable[str] = PICKS) -> list[Record]:
    """The unit's excerpts of these sets and picks.

    Excerpts made by hand, or imported, may have no ids: token texts are then numbered over the whole line.
    InputError for an excerpt that belongs to no set.
    """
    excerpts = record["excerpts"]
    if isinstance(excerpts, Folded):
        sets, picks = tuple(sets), tuple(picks)
        if len(sets) == 1 and (of_set := _of_set(excerpts, sets[0])) is not None:
            return [e for e in of_set if e.get("pick") in picks]
        excerpts = objects({"excerpts": excerpts.all}, "excerpts")
    for place, e in enumerate(excerpts):
        if e.get("set") not in SETS:
            raise InputError(f"the field 'excerpts[{place}].set' is {e.get('set')!r}, not {one_of(SETS)}")
    if any(e.get("ids") is None for e in excerpts):
        excerpts = _numbered(excerpts)
    wanted_sets, wanted_picks = tuple(sets), tuple(picks)  # what stands there may be anything
    return [e for e in excerpts if e["set"] in wanted_sets and e.get("pick") in wanted_picks]


def _of_set(excerpts: Folded, which: str) -> list[Record] | None:
    """The excerpts of a set alone; None where that cannot be said without looking at all of them."""
    if excerpts.spans is None or not set(SETS).issuperset(excerpts.spans):
        return None
    return excerpts.of(which)


def _numbered(excerpts: list[Record]) -> list[Record]:
    """The same excerpts with ids in place of those they have, equal texts having equal ids."""
    numbers: dict[str, int] = {}
    for e in excerpts:
        for token in _tokens(e):
            numbers.setdefault(token, len(numbers))
    return [{**e, "ids": [numbers[token] for token in _tokens(e)]} for e in excerpts]


def _tokens(excerpt: Record) -> list[str]:
    tokens = _array(excerpt, "tokens")
    for token in tokens:
        if not isinstance(token, str):
            raise InputError(f"{_called(excerpt)}: a token is {named(token)}, not a string")
    return tokens


def _array(excerpt: Record, name: str) -> list[Any]:
    value = excerpt.get(name)
    if not isinstance(value, list):
        what = f"{name!r} is {named(value)}, not an array" if name in excerpt else f"{name!r} is missing"
        raise InputError(f"{_called(excerpt)}: {what}")
    return value


def _called(excerpt: Record) -> str:
    name = f"excerpt {excerpt['id']}" if "id" in excerpt else "an excerpt"
    return f"{name} ({excerpt.get('set')} {excerpt.get('pick')} {excerpt.get('rank', '')}".rstrip() + ")"


@dataclass(frozen=True)
class Failure:
    """No answer. It stands in the record where the answer would have been, and is never stored."""

    stage: str
    kind: str
    message: str

    def record(self) -> Record:
        return {"stage": self.stage, "kind": self.kind, "message": self.message}


@dataclass(frozen=True)
class Table:
    """Excerpts as arrays. Rows shorter than the longest end in NO_TOKEN and NaN."""

    ids: NDArray[np.int32]  # (excerpts, tokens)
    activations: NDArray[np.float32]  # (excerpts, tokens); NaN: left out
    tokens: list[list[str]] | Callable[[], list[list[str]]]  # by excerpt, or how to get them

    @cached_property
    def texts(self) -> list[list[str]]:
        """Of the tokens, by excerpt."""
        return self.tokens() if callable(self.tokens) else self.tokens

    @cached_property
    def vocabulary(self) -> dict[int, str]:
        """The text of every id that occurs."""
        return {
            id: text
            for row, texts in zip(self.ids.tolist(), self.texts, strict=True)
            for id, text in zip(row, texts, strict=False)  # a short row ends in NO_TOKEN
        }


def tabulate(excerpts: Sequence[Record]) -> Table:
    """Excerpts of a unit line as arrays.

    Raises InputError when tokens, ids or activations are not what they should be, or do not fit together.
    """

    tokens = [_array(e, "tokens") for e in excerpts]
    ids = [_array(e, "ids") for e in excerpts]
    activations = [_array(e, "activations") for e in excerpts]
    lengths = [len(row) for row in activations]
    for e, *sizes in zip(excerpts, map(len, tokens), map(len, ids), lengths, strict=True):
        if len(set(sizes)) > 1:
            each = "{} tokens, {} ids and {} activations".format(*sizes)
            raise InputError(f"{_called(e)}: {each}, which should be as many")
    flat_ids = _rows(excerpts, ids, _as_ids, "ids", "integers from 0 to 2147483647")
    flat = _rows(excerpts, activations, _as_activations, "activations", "numbers or null")
    if not set(map(type, chain.from_iterable(tokens))) <= {str}:
        for e in excerpts:
            _tokens(e)
    return _table(lengths, flat_ids, flat, tokens)


def table_of(columns: Columns, tokens: Callable[[], list[list[str]]]) -> Table:
    """The table of excerpts that were found to be sound before, and whose tokens are still to be read."""
    import numpy as np

    ids, activations = np.array(columns.ids, np.int32), np.array(columns.activations, np.float32)
    return _table(columns.lengths, ids, activations, tokens)


def _table(
    lengths: list[int],
    flat_ids: NDArray[np.int32],
    flat: NDArray[np.float32],
    tokens: list[list[str]] | Callable[[], list[list[str]]],
) -> Table:
    import numpy as np

    shape = (len(lengths), max(lengths, default=0))
    if lengths.count(shape[1]) == len(lengths):
        return Table(flat_ids.reshape(shape), flat.reshape(shape), tokens)
    ids = np.full(shape, NO_TOKEN, dtype=np.int32)
    activations = np.full(shape, np.nan, dtype=np.float32)
    inside = np.arange(shape[1]) < np.array(lengths)[:, None]
    ids[inside], activations[inside] = flat_ids, flat
    return Table(ids, activations, tokens)


def _rows(
    excerpts: Sequence[Record],
    rows: list[list[Any]],
    convert: Callable[[list[Any]], NDArray[Any] | None],
    name: str,
    wanted: str,
) -> NDArray[Any]:
    """All rows behind each other; when that fails, the excerpt whose row is to blame."""
    flat = convert(list(chain.from_iterable(rows)))
    if flat is not None:
        return flat
    guilty = next(e for e, row in zip(excerpts, rows, strict=True) if convert(row) is None)
    raise InputError(f"{_called(guilty)}: {name!r} holds something else than {wanted}")


def _as_ids(values: list[Any]) -> NDArray[np.int32] | None:
    import numpy as np

    if not set(map(type, values)) <= {int}:
        return None
    try:
        flat = np.array(values, dtype=np.int32)
    except OverflowError:
        return None
    return None if flat.min(initial=0) < 0 else flat


def _as_activations(values: list[Any]) -> NDArray[np.float32] | None:
    import numpy as np

    if not set(map(type, values)) <= {float, int, type(None)}:
        return None
    with np.errstate(over="ignore"):
        flat = np.array(values, dtype=np.float32)  # null becomes NaN
    return None if np.isinf(flat).any() else flat


def failure(stage: str, kind: str, message: str) -> Record:
    """What stands where an answer would have been."""
    return Failure(stage, kind, message).record()
