"""Named arrays as one blob, in the safetensors layout, read back without copying."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError

_DTYPES = {
    "BOOL": np.bool_,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "I32": np.int32,
    "I64": np.int64,
}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}


def pack(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any] | None = None) -> bytes:
    """Arrays and a few facts (JSON) as safetensors bytes; the same content gives the same bytes.

    The widest numbers come first, so that every array begins at a multiple of its own width. Only the result
    is a copy: recordings are large.
    """
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {
        "__metadata__": {"facts": json.dumps(facts or {}, sort_keys=True, ensure_ascii=False)}
    }
    buffers: list[bytes | memoryview] = []
    size = 0
    for name, array in ordered:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [size, size + little.nbytes],
        }
        buffers.append(little.reshape(-1).view(np.uint8).data)
        size += little.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *buffers])


def unpack(buffer: bytes | memoryview) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, facts); the arrays are read-only views of the buffer."""
    view = memoryview(buffer)
    try:
        size = int.from_bytes(view[:8], "little")
        header = json.loads(bytes(view[8 : 8 + size]))
        facts = json.loads(header.pop("__metadata__", {}).get("facts", "{}"))
        arrays = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            data = view[8 + size + first : 8 + size + last]
            arrays[name] = np.frombuffer(data, dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"a blob does not hold arrays: {error}", hint="nx-cache verify --mend") from error
    return arrays, facts


def encode_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Rows (…, tokens) as float16 in units of each row's largest magnitude, and those magnitudes (…).

    Real models exceed float16's 65,504, and the scale keeps three significant digits for quiet rows.
    """
    scale = np.nanmax(np.abs(rows), axis=-1, initial=0.0, where=~np.isnan(rows)).astype(np.float32)
    return (rows / np.where(scale > 0, scale, 1.0)[..., None]).astype(np.float16), scale


def decode_rows(rows: NDArray[np.float16], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows.astype(np.float32) * scale[..., None]
