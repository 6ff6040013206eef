"""Which revision gave each field of an object its value; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.model import AnySpec
    from scalelite.core.rollback import Version


@dataclass(frozen=True, slots=True)
class Blame:
    """An object's fields (its last ones where it is gone), the revision that set each, and the one that removed it."""

    spec: AnySpec
    fields: Mapping[str, int]
    removed: int | None = None


def blame(live: AnySpec | None, from_rev: int | None, versions: Sequence[Version]) -> Blame | None:
    """Return who set which field, or None for an object that never was; `versions` are all old ones, oldest first."""
    if live is None or from_rev is None:
        if not versions:
            return None
        last = versions[-1]
        found = blame(last.spec, last.from_rev, versions[:-1])
        return Blame(last.spec, found.fields if found else {}, last.to_rev)
    life = lifetime(from_rev, versions)
    born = life[0].from_rev if life else from_rev
    fields = dict.fromkeys(type(live).model_fields, born)
    for version in life:
        fields.update(dict.fromkeys(version.fields, version.to_rev))
    return Blame(live, fields)


def lifetime(until: int, versions: Sequence[Version]) -> list[Version]:
    """Return the versions that led to the one that began with a revision, without those of an object removed before."""
    found: list[Version] = []
    for version in reversed(versions):
        if version.to_rev == until:
            found.append(version)
            until = version.from_rev
    return found[::-1]
