"""What history says: revisions, what each did to an object, and which gave a field its value; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalelite.core.model import Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from scalelite.core.model import AnySpec, Declared
    from scalelite.core.rollback import Version


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of declared state: who, when, why, from what; `changes` has one entry an object, without values."""

    number: int
    at: datetime
    actor: str
    message: str
    source: Mapping[str, Any]
    changes: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """What a revision did to one object: `before` and `after` with masked secrets, and the fields that it changed.

    Of a recording it says no more than that.
    """

    address: str
    action: str
    before: AnySpec | None = None
    after: AnySpec | None = None
    fields: tuple[str, ...] = ()
    note: str = ""


def steps(
    revision: Revision, ended: Mapping[Key, Version], begun: Mapping[Key, AnySpec], live: Declared
) -> Iterator[Step]:
    """Yield what a revision did: it ended some versions, and began others or what is live."""
    for entry in revision.changes:
        address, action = entry["address"], entry["action"]
        if action in {"hold", "release"}:
            yield Step(address, action, note=_hold(entry))
            continue
        if (key := Key.of_address(address)) is None:
            yield Step(address, action)
            continue
        was = Key.of_address(entry.get("was", ""))
        old = None if action == "create" else ended.get(was or key)
        after = None if action == "remove" else begun.get(key, live.objects.get(key))
        yield Step(
            address,
            action,
            old.spec if old else None,
            after,
            tuple(entry["fields"]),
            f"was {was.address}" if was else "",
        )


def _hold(entry: Mapping[str, Any]) -> str:
    why = f' ("{entry["why"]}")' if entry.get("why") else ""
    return f"{entry.get('before') or 'not held'} → {entry.get('after') or 'not held'}{why}"


@dataclass(frozen=True, slots=True)
class Blame:
    """An object's fields (its last ones where it is gone), the revision that set each, and the one that removed it."""

    spec: AnySpec
    fields: Mapping[str, int]
    removed: int | None = None


def blame(spec: AnySpec, from_rev: int, life: Sequence[Version], removed: int | None = None) -> Blame:
    """Return who set which field of a spec that began with a revision; `life` are the versions before, oldest first."""
    fields = dict.fromkeys(type(spec).model_fields, life[0].from_rev if life else from_rev)
    for version in life:
        fields.update(dict.fromkeys(version.fields, version.to_rev))
    return Blame(spec, fields, removed)
