"""The report: one file that holds the start page and every unit."""

from __future__ import annotations

from collections.abc import Iterator

from nxtools.records import unit_name
from nxtools.stream import Record
from nxtools.unit import full_name
from nxtools.view.html import document
from nxtools.view.model import page, row
from nxtools.view.overview import Overview
from nxtools.view.pack import Packer, compressed


class Addresses:
    """What a unit is called in the page's address: `2:41`, and more only where two would be called alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, record: Record) -> str:
        fingerprint, site, *_ = full_name(record).split(" ")
        name = unit_name(record)
        longer = [name, f"{site}/{name}", f"{fingerprint[-8:]}/{site}/{name}"]
        address = next((one for one in longer if one not in self._taken), None)
        number = 2
        while address is None or address in self._taken:
            address = f"{name}.{number}"
            number += 1
        self._taken.add(address)
        return address


class Report:
    """Takes unit lines one by one and keeps them compressed; `pieces` is the document."""

    def __init__(self, title: str | None = None) -> None:
        self._title = title
        self._overview, self._packer, self._addresses = Overview(), Packer(), Addresses()
        self._rows: list[Record] = []
        self._others: dict[str, object] = {}

    def put(self, name: str, data: object) -> None:
        """What else the page has, by name: it asks for `part(name)`."""
        self._others[name] = data

    def add(self, record: Record) -> str:
        """Returns the unit's address. InputError when something on the line cannot be read."""
        self._overview.add(record)
        address = self._addresses.of(record)
        chunk = self._packer.add(address, page(record))
        self._rows.append({"address": address, "chunk": chunk, **row(record)})
        return address

    def pieces(self) -> Iterator[bytes]:
        overview = self._overview.data()
        subjects = ", ".join(overview["facts"].get("subject", {})) or "nothing yet"
        return document(self._title or subjects, overview, self._parts())

    def _parts(self) -> Iterator[tuple[str, bytes]]:
        yield "rows", compressed(self._rows)
        for number, chunk in enumerate(self._packer.finished()):
            yield f"units-{number}", chunk
        for name, data in self._others.items():
            yield name, compressed(data)

    def described(self) -> str:
        return f"{len(self._rows):,} units"
