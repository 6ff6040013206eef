"""What was declared after a revision, made of what is live and of old versions; pure.

Secrets of old versions may not have been kept: they are taken from the live object where nobody changed them since,
else from an inventory, else they are named. Rules: spec/data.md, spec/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from scalelite.core.model import (
    OF_TENANTS,
    ClusterSpec,
    Declared,
    Key,
    Kind,
    LrsSpec,
    Secret,
    Spec,
    TenantSpec,
    secrets_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from scalelite.core.model import AnySpec


@dataclass(frozen=True, slots=True)
class Version:
    """What an object said in revisions from_rev <= n < to_rev; `fields` are those that to_rev changed.

    Its secrets are masked where `is_whole` is false.
    """

    key: Key
    from_rev: int
    to_rev: int
    spec: AnySpec
    fields: frozenset[str]
    is_whole: bool


class Lost(NamedTuple):
    """Secrets that cannot be restored; `is_gone`: their object is no more, and cannot be made without them."""

    key: Key
    fields: tuple[str, ...]
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """The declared state after a revision, and the secrets of it that are lost."""

    wanted: Declared
    lost: tuple[Lost, ...]


def restore(
    live: Declared, unchanged: Iterable[Key], since: Sequence[Version], revision: int, inventory: Declared | None
) -> Restored:
    """Return what was declared after a revision.

    `unchanged` are the live objects that no later revision wrote, `since` the versions that a later one ended.
    A lost secret stays as it is in a live object; an object that is gone and lacks one is left out.
    """
    then = {version.key: version for version in since if version.from_rev <= revision}
    sources = _Sources(live, since, then, inventory)
    objects: dict[Key, AnySpec] = {key: live.objects[key] for key in unchanged if key in live.objects}
    lost = []
    for key, version in then.items():
        spec, missing = (version.spec, ()) if version.is_whole else sources.completed(version)
        if missing:
            lost.append(Lost(key, missing, is_gone=spec is None))
        if spec is not None:
            objects[key] = spec
    if Key(Kind.CLUSTER) in live.objects:
        objects.setdefault(Key(Kind.CLUSTER), ClusterSpec())  # its row cannot be removed
    without = {key.name for key in then if key.kind is Kind.TENANT and key not in objects}
    kept = {key: spec for key, spec in objects.items() if key.kind is Kind.SERVER or key.name not in without}
    return Restored(Declared(kept), tuple(sorted(lost)))


class _Sources:
    """Where the secrets of a masked version can still be had."""

    def __init__(
        self, live: Declared, since: Sequence[Version], then: Mapping[Key, Version], inventory: Declared | None
    ) -> None:
        self._live = live
        self._inventory = inventory.objects if inventory else {}
        self._changed: dict[Key, set[str]] = {}
        self._names: dict[UUID | None, set[str]] = {}
        for version in since:
            self._changed.setdefault(version.key, set()).update(version.fields)
            if isinstance(version.spec, TenantSpec):
                self._names.setdefault(version.spec.id, {version.key.name}).add(version.key.name)
        self._ids = {key.name: version.spec.id for key, version in then.items() if isinstance(version.spec, TenantSpec)}
        self._live_names = {spec.id: key.name for key, spec in live.of_kind(Kind.TENANT)}

    def completed(self, version: Version) -> tuple[AnySpec | None, tuple[str, ...]]:
        """Return the spec with real secrets, or None where one is lost and nothing is live; and the lost fields."""
        now = self._now(version.key)
        told = self._inventory.get(version.key)
        changed = self._changed_since(version.key)
        found, missing = {}, []
        for name, masked in version.spec:
            if not any(secrets_of(masked)):
                continue
            if now is not None and name not in changed:
                found[name] = getattr(now, name)
            elif told is not None and list(_shape(getattr(told, name))) == list(_shape(masked)):
                found[name] = getattr(told, name)
            else:
                missing.append(name)
                found[name] = getattr(now, name, None)
        if missing and (now is None or isinstance(now, LrsSpec)):
            return now, tuple(missing)  # credentials of two times would be no credentials
        return version.spec.model_copy(update=found), tuple(missing)

    def _now(self, key: Key) -> AnySpec | None:
        """Return the live object, under the name that its tenant has now; another tenant of that name is not it."""
        tenant = self._ids.get(key.name) if key.kind in OF_TENANTS else None
        name = key.name if tenant is None else self._live_names.get(tenant)
        return None if name is None else self._live.objects.get(key._replace(name=name))

    def _changed_since(self, key: Key) -> set[str]:
        """Return the fields that were changed since, under whatever names its tenant had."""
        tenant = self._ids.get(key.name) if key.kind in OF_TENANTS else None
        names = {key.name, self._live_names.get(tenant, key.name)} | self._names.get(tenant, set())
        return {changed for name in names for changed in self._changed.get(key._replace(name=name), ())}


def _shape(value: object) -> Iterator[object]:
    """Yield what a value says besides its secrets, so that an inventory's can stand for a masked one."""
    if isinstance(value, tuple):
        for item in value:
            yield from _shape(item)
    elif isinstance(value, Spec):
        for name, item in value:
            yield name
            yield from _shape(item)
    else:
        yield bool(value) if isinstance(value, Secret) else value
