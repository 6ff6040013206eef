"""Where each object of an inventory and each of its fields stands; holds no values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from scalelite.core.model import Key, Kind, Place
from scalelite.inventory.tree import Map, Seq

if TYPE_CHECKING:
    from scalelite.core.model import Declared
    from scalelite.inventory.source import Mark


_LOOKUP: Final = re.compile(r"""lookup\(\s*['"](env|file)['"]\s*,\s*['"]([\w./-]+)['"]""")


class Places(Mapping[tuple[Key, str], Place]):
    """The place of each object (field '') and of each of its fields, found when asked for."""

    def __init__(self) -> None:
        self._marks: dict[Key, tuple[Mark, Mapping[str, Mark]]] = {}

    def put(self, key: Key, mark: Mark, fields: Mapping[str, Mark]) -> None:
        """Take the marks of an object."""
        self._marks[key] = mark, fields

    def marks_of(self, key: Key) -> tuple[Mark, Mapping[str, Mark]]:
        """Return the mark of an object and those of its fields."""
        return self._marks[key]

    def under(self, keys: Mapping[Key, Key]) -> Places:
        """Return the places under the keys that are given for their objects' own."""
        places = Places()
        for key, (mark, fields) in self._marks.items():
            places.put(keys.get(key, key), mark, fields)
        return places

    def owners(self) -> Iterator[tuple[Key, Mark]]:
        """Yield the servers and tenants with their marks."""
        return ((key, mark) for key, (mark, _) in self._marks.items() if key.kind in {Kind.SERVER, Kind.TENANT})

    def files(self) -> dict[Key, str]:
        """Return the file in which each object stands."""
        return {key: mark.source.path for key, (mark, _) in self._marks.items()}

    def __getitem__(self, name: tuple[Key, str]) -> Place:
        key, field = name
        mark, fields = self._marks[key]
        if not field:
            return mark.key_place
        if field == "state" and "enabled" in fields:
            return fields["enabled"].place
        return fields[field].place

    def looked_up(self, key: Key, field: str) -> str:
        """Return `lookup env NAME` for a value that is written so."""
        mark = self._marks[key][1].get(field) if key in self._marks else None
        found = _LOOKUP.search(mark.written) if mark is not None else None
        return f"lookup {found[1]} {found[2]}" if found else ""

    def in_clear(self) -> Iterator[Mark]:
        """Yield the marks of secrets that are written as they are."""
        for key, (_, fields) in self._marks.items():
            names = [name for name in fields if name.startswith("secrets")] if key.kind is Kind.TENANT else ()
            for field in names or _SECRET_FIELDS.get(key.kind, ()):
                mark = fields.get(field)
                if mark is not None and _is_in_clear(mark.written):
                    yield mark

    def __iter__(self) -> Iterator[tuple[Key, str]]:
        for key, (_, fields) in self._marks.items():
            yield key, ""
            for field in fields:
                yield key, "state" if key.kind is Kind.SERVER and field == "enabled" else field

    def __len__(self) -> int:
        return sum(1 + len(fields) for _, fields in self._marks.values())

    def __repr__(self) -> str:
        return f"<places of {len(self._marks)} objects>"


def flat(tree: Map) -> dict[str, Mark]:
    """Return the marks of a mapping, and of what is in it: `limits.max_users`, `secrets[0]`."""
    marks = dict(tree.marks)
    for key, value in tree.items():
        if isinstance(value, Map):
            marks |= {f"{key}.{inner}": mark for inner, mark in flat(value).items()}
        elif isinstance(value, Seq):
            marks |= {f"{key}[{at}]": mark for at, mark in enumerate(value.marks)}
    return marks


_SECRET_FIELDS: Final = {
    Kind.SERVER: ("secret", "previous_secret"),
    Kind.LRS: ("basic.password", "oidc.client_secret", "oidc.password"),
}


def _is_in_clear(written: str) -> bool:
    return bool(written.strip("'\"[] ")) and not any(sign in written for sign in ("{{", "!vault", "$ANSIBLE_VAULT"))


def secrets_in_clear(wanted: Declared) -> Iterator[str]:
    """Yield a warning for each file in which secrets stand as they are, not looked up and not in a vault."""
    if not isinstance(wanted.places, Places):
        return
    found: dict[str, list[Mark]] = {}
    for mark in wanted.places.in_clear():
        found.setdefault(mark.source.path, []).append(mark)
    for marks in found.values():
        count = f"{len(marks):,} secrets stand" if len(marks) > 1 else "a secret stands"
        yield f"{count} in clear, first at {marks[0].place}. Use lookup('env', 'NAME') or !vault."
