"""What must change: the difference of a live and a wanted state, as values; does nothing and shows nothing.

A plan is `diff(live, wanted)`. Commands, the management API and playbooks end in the same `Change` values.
Rules: spec/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from scalelite.core.model import (
    OF_TENANTS,
    SECTION_OF,
    SENTINEL_TENANT,
    AnySpec,
    Declared,
    Key,
    Kind,
    Place,
    ServerSpec,
    State,
    TenantSpec,
    WantedState,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

Mode = Literal["keep", "cordon"]

# Order of work: creating runs forwards, removing backwards, so that what is referred to exists.
ORDER: Final = (Kind.CLUSTER, Kind.SERVER, Kind.TENANT, Kind.SETTING, Kind.LRS)


@dataclass(frozen=True, slots=True)
class Create:
    """An object that the inventory has and the cluster lacks."""

    key: Key
    after: AnySpec
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """An object that differs; `reason` where it is not the inventory's own lines that say so."""

    key: Key
    before: AnySpec
    after: AnySpec
    place: Place | None = None
    reason: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that differ, in the order of the model."""
        return tuple(
            name for name in type(self.after).model_fields if getattr(self.before, name) != getattr(self.after, name)
        )


@dataclass(frozen=True, slots=True)
class Remove:
    """An object that the inventory lacks."""

    key: Key
    before: AnySpec
    reason: str = "no longer in the inventory"


@dataclass(frozen=True, slots=True)
class Keep:
    """An object that is unwanted but kept, and why; no change."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A change that a guard stops, and what to do instead."""

    key: Key
    reason: str
    remedy: str


Change = Create | Update | Remove


@dataclass(frozen=True, slots=True)
class Hold:
    """What a command does to a server for now: it is held in a state, or let go of (`after` None); no declaration."""

    key: Key
    before: State | None
    after: State | None
    why: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan relies on besides declared state: how many meetings servers (by id) and tenants (by name) have."""

    server_meetings: Mapping[str, int] = field(default_factory=dict)
    tenant_meetings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an apply does, in its order, and what it leaves alone."""

    changes: tuple[Change, ...]
    keeps: tuple[Keep, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    unchanged: Mapping[Kind, int] = field(default_factory=dict)
    mode: Mode = "cordon"
    revision: int = 0
    facts: Facts = Facts()

    def count(self, kind: type[Change]) -> int:
        """Count the changes of one class."""
        return sum(isinstance(change, kind) for change in self.changes)


def diff(live: Declared, wanted: Declared, facts: Facts = Facts(), mode: Mode = "cordon", revision: int = 0) -> Plan:
    """Compare two states; sections that `wanted` does not have are left alone."""
    live = renamed(live, wanted)
    kept: list[Keep] = []
    blocked: list[Blocked] = []
    found: list[Change] = []
    unchanged = dict.fromkeys(ORDER, 0)
    for key, spec in wanted.objects.items():
        before = live.objects.get(key)
        after = settled(spec, before)
        if before is None:
            found.append(Create(key, after, wanted.places.get((key, ""))))
        elif before == after:
            unchanged[key.kind] += 1
        else:
            found.append(Update(key, before, after, wanted.places.get((key, ""))))
    for key, spec in _unwanted(live, wanted):
        match _remove(key, spec, facts, mode):
            case Keep() as keep:
                kept.append(keep)
            case Blocked() as stop:
                blocked.append(stop)
            case change:
                found.append(change)
    return Plan(tuple(in_order(found)), tuple(kept), tuple(blocked), unchanged, mode, revision, facts)


def in_order(changes: Iterable[Change]) -> list[Change]:
    """Sort changes: removals first, backwards through ORDER, then the rest forwards; by name within."""

    def place(change: Change) -> tuple[bool, int, Key]:
        removes = isinstance(change, Remove)
        position = ORDER.index(change.key.kind)
        return not removes, -position if removes else position, change.key

    return sorted(changes, key=place)


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


def renamed(live: Declared, wanted: Declared) -> Declared:
    """Return the live state under the wanted names: a tenant whose id is wanted under another name was renamed."""
    names = {spec.id: key.name for key, spec in wanted.of_kind(Kind.TENANT) if spec.id is not None}
    moves = {
        key.name: names[spec.id] for key, spec in live.of_kind(Kind.TENANT) if names.get(spec.id, key.name) != key.name
    }
    if not moves:
        return live
    objects = {
        key._replace(name=moves.get(key.name, key.name)) if key.kind in OF_TENANTS else key: spec
        for key, spec in live.objects.items()
    }
    return replace(live, objects=objects)


def _unwanted(live: Declared, wanted: Declared) -> Iterator[tuple[Key, AnySpec]]:
    for key, spec in live.objects.items():
        if SECTION_OF[key.kind] in wanted.sections and key not in wanted.objects and key.kind is not Kind.CLUSTER:
            if isinstance(spec, TenantSpec) and spec.id == SENTINEL_TENANT:
                continue
            yield key, spec


def _remove(key: Key, spec: AnySpec, facts: Facts, mode: Mode) -> Change | Keep | Blocked:
    if isinstance(spec, ServerSpec):
        return _remove_server(key, spec, facts.server_meetings.get(spec.id, 0), mode)
    if isinstance(spec, TenantSpec):
        if spec.protect:
            return Blocked(key, "it is protected", "apply it with protect: false first, then remove it")
        if meetings := facts.tenant_meetings.get(spec.name, 0):
            return Blocked(
                key,
                f"{_meetings(meetings)} of it {_run(meetings)}",
                "set enabled: false, and remove it when they have ended",
            )
    return Remove(key, spec)


def _remove_server(key: Key, spec: ServerSpec, meetings: int, mode: Mode) -> Change | Keep | Blocked:
    if mode == "keep":
        return Keep(key, "no longer in the inventory; mode keep removes none")
    if spec.protect:
        return Blocked(key, "it is protected", "apply it with protect: false first, then remove it")
    if not meetings:
        return Remove(key, spec, "no longer in the inventory, empty")
    if spec.state == "enabled":
        why = f"no longer in the inventory; {_meetings(meetings)} on it, removed by a later apply"
        return Update(key, spec, spec.model_copy(update={"state": "cordoned"}), reason=why)
    return Keep(key, f"no longer in the inventory; {spec.state}, {_meetings(meetings)} on it")


def _meetings(count: int) -> str:
    return f"{count:,} meeting{'' if count == 1 else 's'}"


def _run(count: int) -> str:
    return "runs" if count == 1 else "run"
