"""What an inventory says otherwise than what is live, and of which fields and entries; edits nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from scalelite.core.align import settled
from scalelite.core.model import SECTION_OF, SENTINEL_TENANT, Declared, Key, Kind, TenantSpec
from scalelite.core.plan import owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scalelite.core.model import AnySpec


class Difference(NamedTuple):
    """An object as the inventory says it and as it is live; None where it is not there."""

    key: Key
    before: AnySpec | None
    after: AnySpec | None


def differences(wanted: Declared, live: Declared) -> list[Difference]:
    """Return what an inventory says otherwise, by key; settings and LRS of a whole tenant go with it."""
    found = [
        Difference(key, before, live.objects.get(key))
        for key, before in wanted.objects.items()
        if settled(before, after := live.objects.get(key)) != after
    ]
    found += [Difference(key, None, spec) for key, spec in live.objects.items() if key not in wanted.objects]
    return sorted(each for each in found if _counts(each, wanted, live))


def _counts(difference: Difference, wanted: Declared, live: Declared) -> bool:
    key, _, after = difference
    if SECTION_OF[key.kind] not in wanted.sections or (isinstance(after, TenantSpec) and after.id == SENTINEL_TENANT):
        return False
    tenant = Key(Kind.TENANT, key.name)
    is_part = key.kind in {Kind.SETTING, Kind.LRS}
    return not is_part or (tenant in wanted.objects and tenant in live.objects)


def concerned(found: Sequence[Difference]) -> frozenset[Key] | None:
    """Return the servers and tenants that differ; None where one comes or goes, which concerns its section."""
    owners = frozenset(owner(each.key) for each in found)
    comes_or_goes = any(each.key in owners and (each.before is None or each.after is None) for each in found)
    return None if comes_or_goes or not found else owners


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return the fields of a spec by their paths."""
    if isinstance(value, BaseModel):
        items: Iterable[tuple[str, Any]] = value
    elif isinstance(value, dict):
        items = value.items()
    else:
        return {} if value is None else {path: value}
    return {leaf: v for part, item in items for leaf, v in leaves(item, (*path, part)).items()}
