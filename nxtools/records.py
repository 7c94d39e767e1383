"""What flows: `recording` and `unit` lines, checked on the way in, and a unit's excerpts as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from nxtools.errors import InputError
from nxtools.stream import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
SETS = ("evidence", "validation", "held-out")
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
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"the field {path!r} is {type(value).__name__}, not {wanted}")
    return value


def check_kind(record: Record, kind: str, made_by: str) -> None:
    found = record.get("kind")
    if found != kind:
        raise InputError(
            f"this line is of kind {found!r}, not {kind!r}", hint=f"pipe the output of {made_by} in"
        )
    version = record.get("v")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(
            f"the field 'v' is {version!r}, this program reads up to {VERSION}",
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
    unit = field(record, "unit", dict)
    for name, kind in {"layer": int, "index": int}.items():
        if not isinstance(unit.get(name), kind) or isinstance(unit.get(name), bool):
            field(record, f"unit.{name}", kind)
    if not isinstance(record.get("excerpts"), list):
        field(record, "excerpts", list)


def unit_name(record: Record) -> str:
    """`2:41`, as options and summaries name a unit."""
    unit = record["unit"]
    return f"{unit['layer']}:{unit['index']}"


def sign_of(record: Record) -> str:
    return str(record["unit"].get("sign", "+"))


def excerpts_of(record: Record, sets: Iterable[str], picks: Iterable[str] = PICKS) -> list[Record]:
    """The unit's excerpts of these sets and picks.

    Excerpts made by hand, or imported, may have no ids: token texts are then numbered over the whole line.
    """
    excerpts: list[Record] = record["excerpts"]
    if any(not isinstance(e, dict) for e in excerpts):
        raise InputError("the field 'excerpts' holds something that is no object")
    if any(e.get("ids") is None for e in excerpts):
        numbers: dict[str, int] = {}
        for e in excerpts:
            for token in e.get("tokens") or ():
                numbers.setdefault(token, len(numbers))
        excerpts = [{**e, "ids": [numbers[token] for token in e.get("tokens") or ()]} for e in excerpts]
    wanted_sets, wanted_picks = set(sets), set(picks)
    return [e for e in excerpts if e.get("set") in wanted_sets and e.get("pick") in wanted_picks]


@dataclass(frozen=True)
class Table:
    """Excerpts as arrays. Rows shorter than the longest end in NO_TOKEN and NaN."""

    ids: NDArray[np.int32]  # (excerpts, tokens)
    activations: NDArray[np.float32]  # (excerpts, tokens); NaN: left out
    vocabulary: dict[int, str]  # text of every id that occurs


def tabulate(excerpts: Sequence[Record]) -> Table:
    """Excerpts of a unit line as arrays.

    Raises InputError when tokens, ids and activations do not fit together.
    """
    import numpy as np

    try:
        lengths = [len(e["activations"]) for e in excerpts]
        tokens = [e["tokens"] for e in excerpts]
        ids = [e["ids"] for e in excerpts]
        if [len(t) for t in tokens] != lengths or [len(i) for i in ids] != lengths:
            raise InputError("an excerpt's 'tokens', 'ids' and 'activations' have different lengths")
        flat_ids = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=sum(lengths))
        flat = np.array(list(chain.from_iterable(e["activations"] for e in excerpts)), dtype=np.float32)
    except KeyError as error:
        raise InputError(f"an excerpt has no {error.args[0]!r}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"an excerpt's 'tokens', 'ids' or 'activations' cannot be read: {error}") from error
    vocabulary = dict(zip(chain.from_iterable(ids), chain.from_iterable(tokens), strict=True))
    width = max(lengths, default=0)
    if all(length == width for length in lengths):
        shape = (len(excerpts), width)
        return Table(flat_ids.reshape(shape), flat.reshape(shape), vocabulary)
    table_ids = np.full((len(excerpts), width), NO_TOKEN, dtype=np.int32)
    table = np.full((len(excerpts), width), np.nan, dtype=np.float32)
    inside = np.arange(width) < np.array(lengths)[:, None]
    table_ids[inside], table[inside] = flat_ids, flat
    return Table(table_ids, table, vocabulary)


def failure(stage: str, kind: str, message: str) -> Record:
    """What stands where an answer would have been."""
    return {"stage": stage, "kind": kind, "message": message}


Check = Callable[[Record], None]
