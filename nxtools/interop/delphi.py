"""Delphi's cached latents: a folder a hook point, with the non-zero activations of each latent.

`START_END.safetensors` holds `locations` (n, 3: context, position, latent - START), `activations` (n,) and
`tokens` (contexts, positions); `config.json` beside it names the model. Explanations are files called
`HOOKPOINT_latentINDEX.txt`, each a JSON string.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nxtools.errors import InputError, located
from nxtools.interop import sources
from nxtools.interop.dealing import digest
from nxtools.records import SETS
from nxtools.stream import Record
from nxtools.subject.excerpts import set_of

WINDOW = 32  # tokens of an excerpt, as in Delphi's own examples
SHOWN = {"evidence": 10, "validation": 5, "held-out": 5}  # top ones and as many random ones, as nx-top does
_SPLIT = re.compile(r"(\d+)_(\d+)\.safetensors", re.ASCII)
_EXPLANATION = re.compile(r"(.+)_latent(\d+)\.txt", re.ASCII)
_MAX_EXPLANATION = 1 << 20

Ints = NDArray[np.int64]
Latent = tuple[str, int]  # hook point, index


def units(names: Iterable[str], texts: Sequence[str], subject: str) -> Iterator[Record]:
    """Unit lines of all latents that ever fired, file by file. InputError for what is no such folder.

    texts: of tokens, by id; subject: the model, where no config.json names it.
    """
    names = list(names)
    splits = [Path(one) for one in _files(names, ".safetensors")]
    explanations = _explanations(_files(names, ".txt"))
    if not splits:
        raise InputError("there is no START_END.safetensors in these folders", where=names[0])
    windows: Windows | None = None
    for path in splits:
        split = _Split(path)
        if windows is None or not np.array_equal(windows.tokens, split.tokens):
            with located(str(path)):
                windows = Windows(split.tokens, texts)
        yield from split.units(windows, _config(path.parent) or subject, explanations)


def _files(names: Iterable[str], suffix: str) -> list[str]:
    found: list[str] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise InputError("cannot be read: No such file or directory", where=name, hint="check the path")
        inside = [path] if path.is_file() else path.rglob(f"*{suffix}")
        found += sorted((str(one) for one in inside if one.suffix == suffix), key=sources.natural)
    return found


def _config(folder: Path) -> str | None:
    """The name of the model, where config.json has it."""
    try:
        found = orjson.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(folder / "config.json")) from error
    name = found.get("model_name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _explanations(paths: Iterable[str]) -> dict[Latent, str]:
    found: dict[Latent, str] = {}
    for path in paths:
        match = _EXPLANATION.fullmatch(Path(path).name)
        if match is None:
            continue
        with Path(path).open("rb") as file:
            data = file.read(_MAX_EXPLANATION + 1)
        try:
            text = orjson.loads(data) if len(data) <= _MAX_EXPLANATION else None
        except orjson.JSONDecodeError:
            text = None
        if not isinstance(text, str):
            raise InputError("this is no JSON string of at most 1 MiB", where=path)
        found[match[1], int(match[2])] = text
    return found


class Windows:
    """Contexts cut into excerpts, which are (contexts, windows of each) in one row; rests are left out."""

    def __init__(self, tokens: Ints, texts: Sequence[str]) -> None:
        """tokens: (contexts, positions). InputError where texts has none for an id."""
        self.tokens = tokens
        self.each = tokens.shape[1] // WINDOW
        if not self.each:
            raise InputError(f"contexts have {tokens.shape[1]} tokens, fewer than the {WINDOW} of an excerpt")
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= len(texts):
            raise InputError("a token is not in the tokenizer's vocabulary", hint="is it the model's own?")
        self.texts = texts
        self.documents = [digest(row) for row in tokens.tolist()]
        self.homes = self._dealt()
        salted = [(digest("random", self.ids(window)), window) for window in range(len(self.homes))]
        order = np.array([window for _, window in sorted(salted)], dtype=np.int64)
        self.drawn = [order[self.homes[order] == home].tolist() for home in range(len(SETS))]

    def ids(self, window: int) -> list[int]:
        context, start = window // self.each, window % self.each * WINDOW
        found: list[int] = self.tokens[context, start : start + WINDOW].tolist()
        return found

    def _dealt(self) -> Ints:
        """Place in SETS of each window, by its context's text; -1 for a text that was there, or is in an
        earlier set.
        """
        homes = np.repeat([set_of(name, 0) for name in self.documents], self.each).astype(np.int64)
        first: dict[str, int] = {}
        for window in np.argsort(homes, kind="stable").tolist():
            if first.setdefault(digest(self.ids(window)), window) != window:
                homes[window] = -1
        return homes

    def excerpt(self, window: int, pick: str, rank: int, values: NDArray[Any], more: Record) -> Record:
        ids = self.ids(window)
        return {
            "id": digest(ids),
            "document": self.documents[window // self.each],
            "start": window % self.each * WINDOW,
            "ids": ids,
            "tokens": [self.texts[token] for token in ids],
            "set": SETS[int(self.homes[window])],
            "pick": pick,
            "rank": rank,
            **more,
            "activations": values,
        }


@dataclass
class _Latent:
    """One latent's activations: values (n,) at positions (n,) within windows (n,)."""

    windows: Ints
    positions: Ints
    values: NDArray[np.float32]

    def on(self, window: int) -> NDArray[np.float32]:
        """(WINDOW,), 0 where nothing was cached."""
        out = np.zeros(WINDOW, np.float32)
        here = self.windows == window
        out[self.positions[here]] = self.values[here]
        return out


class _Split:
    """One file. InputError for shapes, kinds and places that cannot be."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        self.path = path
        match = _SPLIT.fullmatch(path.name)
        if match is None:
            raise InputError("this file is not called START_END.safetensors", where=str(path))
        self.start, end = int(match[1]), int(match[2])
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise InputError(f"cannot be read: {error}", where=str(path)) from error
        locations = self._tensor(tensors, "locations", 2, "iu")
        self.activations = self._tensor(tensors, "activations", 1, "f").astype(np.float32)
        self.tokens: Ints = self._tensor(tensors, "tokens", 2, "iu").astype(np.int64)
        self.locations: Ints = (
            locations.astype(np.int64).reshape(-1, 3) if locations.size % 3 == 0 else locations
        )
        if self.locations.shape != (len(self.activations), 3):
            raise self._wrong(f"{locations.shape} locations of {len(self.activations)} activations")
        bounds = (*self.tokens.shape, end - self.start + 1)
        if len(self.locations) and (
            (self.locations < 0).any() or (self.locations.max(0) >= np.array(bounds)).any()
        ):
            raise self._wrong("a location is outside of its contexts, positions or latents")
        if not np.isfinite(self.activations).all():
            raise self._wrong("an activation is not finite")

    def _tensor(self, tensors: dict[str, Any], name: str, dimensions: int, kinds: str) -> NDArray[Any]:
        found = tensors.get(name)
        if found is None:
            raise self._wrong(f"there is no tensor {name!r}")
        if found.ndim != dimensions or found.dtype.kind not in kinds:
            raise self._wrong(f"{name!r} is {found.dtype} of shape {found.shape}")
        array: NDArray[Any] = found
        return array

    def _wrong(self, message: str) -> InputError:
        return InputError(message, where=str(self.path), hint="is this Delphi's cache of latents?")

    def units(self, windows: Windows, subject: str, explanations: dict[Latent, str]) -> Iterator[Record]:
        hook = self.path.parent.name
        order = np.lexsort((self.locations[:, 1], self.locations[:, 0], self.locations[:, 2]))
        rows, values = self.locations[order], self.activations[order]
        latents, firsts = np.unique(rows[:, 2], return_index=True)
        for number, begin, end in zip(latents.tolist(), firsts, [*firsts[1:], len(rows)], strict=True):
            index = self.start + number
            unit = self._unit(rows[begin:end], values[begin:end], windows)
            unit["unit"] = _name(subject, hook, index)
            text = explanations.get((hook, index))
            if text is not None:
                by = {"explainer": "delphi"}
                unit["explanations"] = [{"id": digest(text, by), "text": text, "by": by}]
            yield unit

    def _unit(self, rows: Ints, values: NDArray[np.float32], windows: Windows) -> Record:
        inside = rows[:, 1] < windows.each * WINDOW
        latent = _Latent(
            rows[inside, 0] * windows.each + rows[inside, 1] // WINDOW,
            rows[inside, 1] % WINDOW,
            values[inside],
        )
        excerpts: list[Record] = []
        for home, name in enumerate(SETS):
            excerpts += _shown(latent, windows, home, SHOWN[name])
        total, wide = self.tokens.size, values.astype(np.float64)
        mean = float(wide.sum()) / total
        stats = {
            "tokens": total,
            "mean": mean,
            "variance": float((wide**2).sum()) / total - mean**2,
            "max": float(wide.max()),
        }
        return {"kind": "unit", "v": 1, "unit": {}, "stats": stats, "excerpts": excerpts}


def _shown(latent: _Latent, windows: Windows, home: int, count: int) -> Iterator[Record]:
    """A set's highest excerpts, and random ones of all others, whether the latent fires there or not."""
    fired, where = np.unique(latent.windows, return_inverse=True)
    heights = np.zeros(len(fired), np.float32)
    np.maximum.at(heights, where, latent.values)
    mine = windows.homes[fired] == home
    fired, heights = fired[mine], heights[mine]
    top = fired[np.lexsort((fired, -heights))][:count].tolist()
    for rank, window in enumerate(top):
        yield windows.excerpt(window, "top", rank, latent.on(window), {"probability": None})
    drawn, seen = windows.drawn[home], set(top)
    others = [window for window in drawn[: 2 * count] if window not in seen][:count]
    chance = len(others) / max(1, len(drawn) - len(top))
    for rank, window in enumerate(others):
        yield windows.excerpt(window, "random", rank, latent.on(window), {"probability": chance})


def _name(subject: str, hook: str, index: int) -> Record:
    layer = re.search(r"\d{1,6}", hook, re.ASCII)
    where = {"site": hook, "layer": int(layer[0]) if layer else 0, "index": index, "sign": "+"}
    return {"subject": subject, "fingerprint": f"imported:{subject}", **where}
