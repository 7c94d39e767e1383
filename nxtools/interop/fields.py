"""Fields of objects that somebody else wrote: each is checked, and what is wrong is named by its path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nxtools.errors import InputError
from nxtools.stream import JSON_NAMES, named

NUMBER = (float, int)
OPTIONAL_NUMBER = (float, int, type(None))


class Fields:
    """An object and where it stands, such as `random_sample[3]`. Its getters raise InputError."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise InputError(f"{_called(path)} is {named(value)}, not an object")
        self.value: dict[str, Any] = value
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str, *kinds: type, default: Any = None, optional: bool = False) -> Any:
        """A field of one of these types; a missing one is an error unless it is optional."""
        if name not in self.value:
            if optional:
                return default
            raise InputError(f"the field {self.at(name)!r} is missing")
        value = self.value[name]
        if type(value) not in kinds:  # a subclass would let booleans pass as integers
            wanted = " or ".join(JSON_NAMES[kind] for kind in kinds)
            raise InputError(f"the field {self.at(name)!r} is {named(value)}, not {wanted}")
        return value

    def inner(self, name: str) -> Fields:
        return Fields(self.get(name, dict), self.at(name))

    def each(self, name: str, optional: bool = False) -> Iterator[Fields]:
        """The objects of an array; of none where the field is optional and null."""
        kinds = (list, type(None)) if optional else (list,)
        for place, value in enumerate(self.get(name, *kinds, optional=optional) or ()):
            yield Fields(value, f"{self.at(name)}[{place}]")

    def texts(self, name: str) -> list[str]:
        return self._array(name, (str,), "a string")

    def numbers(self, name: str) -> list[float | None]:
        """Numbers, and null where one is not known."""
        return self._array(name, OPTIONAL_NUMBER, "a number or null")

    def _array(self, name: str, kinds: tuple[type, ...], wanted: str) -> list[Any]:
        values: list[Any] = self.get(name, list)
        if not set(map(type, values)) <= set(kinds):
            place = next(at for at, value in enumerate(values) if type(value) not in kinds)
            what = f"the field '{self.at(name)}[{place}]' is {named(values[place])}"
            raise InputError(f"{what}, not {wanted}")
        return values

    def index(self, name: str) -> int:
        """A number from 0, which some tools write as a string."""
        value = self.get(name, int, str)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if not isinstance(value, int) or not 0 <= value < 2**31:
            raise InputError(f"the field {self.at(name)!r} is {value!r}, not a number from 0")
        return value

    def same_length(self, *names: str) -> None:
        sizes = [len(self.value[name]) for name in names]
        if len(set(sizes)) > 1:
            each = ", ".join(f"{size} {name}" for size, name in zip(sizes, names, strict=True))
            raise InputError(f"{_called(self.path)} has {each}, which should be as many")

    def unknown(self, known: Iterable[str]) -> list[str]:
        """Fields that are not among the known ones."""
        return sorted(set(self.value) - set(known))


def _called(path: str) -> str:
    return f"the field {path!r}" if path else "this"
