"""One digest for one question, however its fields were ordered, typed or printed on the way here.

Every value is written as a tag, its length and its bytes, so no two different values share an encoding:
`["ab"]`, `["a", "b"]`, `"ab"` and `b"ab"` all differ. What a stream may change without meaning to is equal:

* the order of a mapping's keys;
* 1 and 1.0 (jq prints both as 1), 0.0 and -0.0;
* the width of an array: floats enter as little-endian f32, integers as i32, NaN as one NaN, with the shape.

A single float is taken as the double it is. Measured numbers that came through a stream as short floats
belong in an f32 array, where the digits that were dropped do not count.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Array(Protocol):
    """A numpy array or scalar, recognised without importing numpy."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


Value: TypeAlias = "str | int | float | bytes | Array | Sequence[Value] | Mapping[str, Value] | None"

# Raised by hand when the encoding below changes: old answers are then simply not found.
_ENCODING = b"nxtools question 1\0"


def question_digest(operation: str, version: int, fields: Mapping[str, Value]) -> str:
    """The sha256, 64 hex digits, of an operation, its hand-bumped version and all that its answer depends on.

    Raises TypeError for a value that has no canonical form, ValueError for an array that i32 or f32 cannot
    hold; both name the field.
    """
    parts = [_ENCODING]
    _encode(operation, "operation", parts)
    _encode(version, "version", parts)
    _encode(fields, "fields", parts)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _encode(value: Value, where: str, parts: list[bytes]) -> None:
    """Append the encoding of one value to parts."""
    if isinstance(value, str):
        # A lone surrogate (half a character cut out of JSON) is text like any other.
        _append(b"s", value.encode("utf-8", "surrogatepass"), parts)
    elif value is None:
        parts.append(b"n")
    elif isinstance(value, bool):
        parts.append(b"t" if value else b"f")
    elif isinstance(value, int):
        _append(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True), parts)
    elif hasattr(value, "__array_interface__"):
        _encode_array(value, where, parts)
    elif isinstance(value, float):
        if value.is_integer():
            _encode(int(value), where, parts)
        else:
            parts.append(b"d" + struct.pack("<d", math.nan if math.isnan(value) else value))
    elif isinstance(value, bytes | bytearray | memoryview):
        _append(b"b", bytes(value), parts)
    elif isinstance(value, Mapping):
        parts.append(b"m" + _length(len(value)))
        for key in sorted(value, key=lambda key: _key(key, where)):
            _append(b"s", _key(key, where), parts)
            _encode(value[key], f"{where}.{key}", parts)
    elif isinstance(value, list | tuple):
        parts.append(b"l" + _length(len(value)))
        for index, item in enumerate(value):
            _encode(item, f"{where}[{index}]", parts)
    else:
        raise TypeError(f"{where}: a {type(value).__name__} has no place in a question")


def _encode_array(value: Any, where: str, parts: list[bytes]) -> None:
    import numpy as np

    array: NDArray[Any] = np.asarray(value)
    if array.ndim == 0:
        _encode(array.item(), where, parts)
        return
    if array.dtype.kind == "f":
        tag, array = b"F", _as_f32(array, where)
    elif array.dtype.kind in "iu":
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise ValueError(f"{where}: integers that do not fit in 32 bits")
        tag, array = b"I", array.astype("<i4")
    elif array.dtype.kind == "b":
        tag, array = b"B", array.astype("u1")
    else:
        raise TypeError(f"{where}: an array of {array.dtype} has no place in a question")
    parts.append(tag + _length(array.ndim) + b"".join(_length(size) for size in array.shape))
    parts.append(array.tobytes())


def _as_f32(array: NDArray[Any], where: str) -> NDArray[Any]:
    import numpy as np

    with np.errstate(over="ignore"):
        narrow: NDArray[Any] = array.astype("<f4")
    if array.dtype.itemsize > 4 and np.any(np.isinf(narrow) & np.isfinite(array)):
        raise ValueError(f"{where}: numbers that do not fit in a 32-bit float")
    narrow += 0.0  # turns -0.0 into 0.0
    absent = np.isnan(narrow)
    if absent.any():
        narrow[absent] = np.nan  # there are many, and one is enough
    return narrow


def _append(tag: bytes, payload: bytes, parts: list[bytes]) -> None:
    parts.append(tag + _length(len(payload)))
    parts.append(payload)


def _length(length: int) -> bytes:
    return length.to_bytes(8, "little")


def _key(key: object, where: str) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"{where}: the key {key!r} is not a string")
    return key.encode("utf-8", "surrogatepass")
