"""Brings a live and a wanted state under the same keys, before they are compared; compares nothing itself.

Names pass from one tenant to another, servers of the list form are known by their urls, and what the inventory leaves
open is as it is live.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from scalelite.core.model import (
    OF_TENANTS,
    SECTION_OF,
    AnySpec,
    Declared,
    Key,
    Kind,
    ServerSpec,
    State,
    TenantSpec,
    WantedState,
    url_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalelite.core.model import Place

# Between a tenant's name and its id, where another takes the name: no name of a tenant has it.
_SET_ASIDE: Final = "~"


def settled(spec: AnySpec, before: AnySpec | None) -> AnySpec:
    """Return the wanted spec with what it leaves open taken from the live one: state of a server, id of a tenant."""
    if isinstance(spec, ServerSpec):
        state = _settled_state(spec.state, before.state if isinstance(before, ServerSpec) else None)
        return spec if state == spec.state else spec.model_copy(update={"state": state})
    if isinstance(spec, TenantSpec) and spec.id is None and isinstance(before, TenantSpec):
        return spec.model_copy(update={"id": before.id})
    return spec


def _settled_state(wanted: WantedState, live: WantedState | None) -> WantedState:
    if wanted != "not enabled":
        return wanted
    new_or_enabled: dict[WantedState | None, State] = {None: "disabled", "enabled": "cordoned"}
    return new_or_enabled.get(live, live or "disabled")


def renamed(live: Declared, wanted: Declared, *, replaces: bool = False) -> Declared:
    """Return the live state under the wanted names: a tenant whose id is wanted under another name was renamed.

    One that loses its name to another tenant is set aside: it gets a key that nobody can want. `replaces`: to one that
    is not live yet, too.
    """
    names = {spec.id: key.name for key, spec in wanted.of_kind(Kind.TENANT) if spec.id is not None}
    moves = {
        key.name: names[spec.id] for key, spec in live.of_kind(Kind.TENANT) if names.get(spec.id, key.name) != key.name
    }
    taken = frozenset(names.values() if replaces else moves.values())
    for key, spec in live.of_kind(Kind.TENANT):
        if key.name in taken and key.name not in moves and spec.id not in names:
            moves[key.name] = f"{key.name}{_SET_ASIDE}{spec.id}"
    if not moves:
        return live
    objects = {
        key._replace(name=moves.get(key.name, key.name)) if key.kind in OF_TENANTS else key: spec
        for key, spec in live.objects.items()
    }
    return replace(live, objects=objects)


def unaltered(key: Key) -> Key:
    """Return the key that an object is live under, of one that was set aside."""
    return key._replace(name=key.name.partition(_SET_ASIDE)[0]) if key.kind in OF_TENANTS else key


def narrowed(wanted: Declared, sections: Iterable[str]) -> Declared:
    """Return what an inventory wants of some sections; no sections mean all."""
    chosen = frozenset(section for section in wanted.sections if section in sections)
    if not sections:
        return wanted
    objects = {key: spec for key, spec in wanted.objects.items() if SECTION_OF[key.kind] in chosen}
    return replace(wanted, objects=objects, sections=chosen)


@runtime_checkable
class _Named(Protocol):
    """Places that can be found under other keys, without being looked up one by one."""

    def under(self, keys: Mapping[Key, Key]) -> Mapping[tuple[Key, str], Place]:
        """Return them under the keys that are given for their own."""


def identified(live: Declared, wanted: Declared, ids_from_urls: frozenset[str]) -> Declared:
    """Return the wanted state with servers of the list form under the id of the live server that has their url."""
    if not ids_from_urls:
        return wanted
    by_url = {url_key(spec.url): key for key, spec in live.of_kind(Kind.SERVER)}
    keys = {
        key: known
        for key, spec in wanted.of_kind(Kind.SERVER)
        if key.name in ids_from_urls and (known := by_url.get(url_key(spec.url), key)) != key
    }
    objects: dict[Key, AnySpec] = {
        keys.get(key, key): spec.model_copy(update={"id": keys[key].name}) if key in keys else spec
        for key, spec in wanted.objects.items()
    }
    places = wanted.places
    if isinstance(places, _Named):
        return replace(wanted, objects=objects, places=places.under(keys))
    named = {(keys.get(key, key), field): place for (key, field), place in places.items()}
    return replace(wanted, objects=objects, places=named)
