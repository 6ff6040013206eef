"""What must change: the difference of a live and a wanted state, as values; does nothing and shows nothing.

A plan is `diff(live, wanted)`. Commands, the management API and playbooks end in the same `Change` values.
Rules: spec/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from scalelite.core.align import renamed, settled, unaltered
from scalelite.core.model import (
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

Mode = Literal["keep", "cordon", "force"]

_GONE: Final = "no longer in the inventory"
_UNPROTECT: Final = "apply it with protect: false first, then remove it"
_STRICTNESS: Final[Mapping[WantedState, int]] = {"enabled": 0, "not enabled": 1, "cordoned": 1, "disabled": 2}

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
        before = self.before.__dict__
        return tuple(name for name, value in self.after.__dict__.items() if before.get(name) != value)


@dataclass(frozen=True, slots=True)
class Remove:
    """An object that the inventory lacks."""

    key: Key
    before: AnySpec
    reason: str = _GONE


@dataclass(frozen=True, slots=True)
class Held:
    """What an operator or a playbook did with a server for now (spec/data.md)."""

    state: State
    by: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Keep:
    """An object that is unwanted but kept, or held, and why; no change."""

    key: Key
    reason: str
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A change that a guard stops, and what to do instead; `actual` is what the guard counted."""

    key: Key
    reason: str
    remedy: str
    guard: str = "protect"
    actual: int = 1


@dataclass(frozen=True, slots=True)
class Ending:
    """Meetings of a server or a tenant that mode force ends before it changes that object."""

    key: Key
    meetings: int


Change = Create | Update | Remove
Item = Change | Keep | Blocked | Ending
Lacked = TypeVar("Lacked", bound=Update | Remove | Keep)


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
    """What the plan relies on besides declared state; servers by id, tenants by name."""

    server_meetings: Mapping[str, int] = field(default_factory=dict)
    tenant_meetings: Mapping[str, int] = field(default_factory=dict)
    server_users: Mapping[str, int] = field(default_factory=dict)
    tenant_recordings: Mapping[str, int] = field(default_factory=dict)
    holds: Mapping[str, Held] = field(default_factory=dict)
    online: frozenset[str] = frozenset()

    def meetings_of(self, key: Key) -> int:
        """Return how many meetings a server or a tenant has."""
        by_kind = {Kind.SERVER: self.server_meetings, Kind.TENANT: self.tenant_meetings}
        return by_kind.get(key.kind, {}).get(unaltered(key).name, 0)

    def recordings_of(self, key: Key) -> int:
        """Return how many recordings a tenant owns."""
        return self.tenant_recordings.get(unaltered(key).name, 0) if key.kind is Kind.TENANT else 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a plan is about and how far it may go.

    `within` names the servers and tenants (and the cluster) that --limit and --exclude leave, None all of them.
    `tenant_data` says what becomes of the recordings of removed tenants: keep, delete or move:TENANT. `replaces` lets
    a tenant be removed and another of its name be made in one apply.
    """

    mode: Mode = "cordon"
    within: frozenset[Key] | None = None
    tenant_data: str = ""
    release_holds: bool = False
    replaces: bool = False

    def has(self, key: Key) -> bool:
        """Say whether an object is within the limit; settings and LRS go with their tenant."""
        return self.within is None or owner(unaltered(key)) in self.within


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
    endings: tuple[Ending, ...] = ()
    releases: tuple[Hold, ...] = ()
    unmanaged: tuple[Key, ...] = ()

    def count(self, kind: type[Change]) -> int:
        """Count the changes of one class."""
        return sum(isinstance(change, kind) for change in self.changes)

    @property
    def does_something(self) -> bool:
        """Whether an apply would write."""
        return bool(self.changes or self.releases)


def owner(key: Key) -> Key:
    """Return the server, the tenant or the cluster that an object belongs to."""
    return key if key.kind in {Kind.SERVER, Kind.CLUSTER} else Key(Kind.TENANT, key.name)


def diff(
    live: Declared,
    wanted: Declared,
    facts: Facts = Facts(),
    mode: Mode = "cordon",
    revision: int = 0,
    *,
    scope: Scope | None = None,
) -> Plan:
    """Compare two states; sections that `wanted` does not have, and what is not in the scope, are left alone."""
    scope = scope or Scope(mode)
    live = renamed(live, wanted, replaces=scope.replaces)
    found: list[Item] = []
    unchanged = dict.fromkeys(ORDER, 0)
    for key, spec in wanted.objects.items():
        before = live.objects.get(key)
        after = settled(spec, before)
        if before == after:
            unchanged[key.kind] += 1
        elif scope.has(key):
            found += _put(key, before, after, wanted.places.get((key, "")), facts, scope)
    for key, spec in _unwanted(live, wanted):
        found += _remove(key, spec, facts, scope)
    found = _with_owners(found)
    changes = in_order(item for item in found if isinstance(item, Create | Update | Remove))
    holds = list(_holds(live, wanted, changes, facts, scope))
    return Plan(
        tuple(changes),
        tuple(item for item in [*found, *holds] if isinstance(item, Keep)),
        tuple(item for item in found if isinstance(item, Blocked)),
        unchanged,
        scope.mode,
        revision,
        facts,
        tuple(item for item in found if isinstance(item, Ending)),
        tuple(item for item in holds if isinstance(item, Hold)),
        tuple(key for key in live.objects if SECTION_OF[key.kind] not in wanted.sections and not _is_sentinel(key)),
    )


def located(plan: Plan, files: Mapping[Key, str]) -> Plan:
    """Return the plan saying of what the inventory lacks in which file it was."""
    changes = (change if isinstance(change, Create) else _located(change, files) for change in plan.changes)
    return replace(plan, changes=tuple(changes), keeps=tuple(_located(keep, files) for keep in plan.keeps))


def _located(item: Lacked, files: Mapping[Key, str]) -> Lacked:
    file = files.get(unaltered(item.key))
    if not file or not item.reason.startswith(_GONE):
        return item
    return replace(item, reason=f"{_GONE} (was {file}){item.reason.removeprefix(_GONE)}")


def reworded(plan: Plan, why: str) -> Plan:
    """Return the plan giving another reason than the inventory for what is not wanted: a revision, of a rollback."""
    changes = (change if isinstance(change, Create) else _reworded(change, why) for change in plan.changes)
    return replace(plan, changes=tuple(changes), keeps=tuple(_reworded(keep, why) for keep in plan.keeps))


def _reworded(item: Lacked, why: str) -> Lacked:
    return replace(item, reason=item.reason.replace(_GONE, why)) if item.reason.startswith(_GONE) else item


def lacked(plan: Plan) -> Iterator[Key]:
    """Yield what is live and the inventory lacks."""
    for item in (*plan.changes, *plan.keeps):
        if not isinstance(item, Create) and item.reason.startswith(_GONE):
            yield unaltered(item.key)


def in_order(changes: Iterable[Change]) -> list[Change]:
    """Sort changes: removals first, backwards through ORDER, then the rest forwards; by name within."""

    def place(change: Change) -> tuple[bool, int, Key]:
        removes = isinstance(change, Remove)
        position = ORDER.index(change.key.kind)
        return not removes, -position if removes else position, change.key

    return sorted(changes, key=place)


# --- what is wanted --------------------------------------------------------------------------------------------------


def _put(  # noqa: PLR0917 - the facts of one object
    key: Key, before: AnySpec | None, after: AnySpec, place: Place | None, facts: Facts, scope: Scope
) -> list[Item]:
    if before is None:
        return [Create(key, after, place)]
    if isinstance(before, TenantSpec) and isinstance(after, TenantSpec) and before.id != after.id:
        why = f"it is live under the id {before.id}, the inventory says {after.id}"
        return [Blocked(key, why, "correct the id, or give the new tenant another name", "identity")]
    change = Update(key, before, after, place)
    if isinstance(before, ServerSpec) and isinstance(after, ServerSpec) and after.state == "disabled" != before.state:
        meetings = facts.meetings_of(key)
        if meetings and scope.mode != "force":
            why = f"{_meetings(meetings)} on it would end"
            return [
                Blocked(key, why, "set state: cordoned until it is empty, or give --mode force", "meetings", meetings)
            ]
        return [change, Ending(key, meetings)] if meetings else [change]
    return [change]


# --- what is not -----------------------------------------------------------------------------------------------------


def _is_sentinel(key: Key) -> bool:
    return key.kind is Kind.TENANT and not key.name


def _unwanted(live: Declared, wanted: Declared) -> Iterator[tuple[Key, AnySpec]]:
    for key, spec in live.objects.items():
        if SECTION_OF[key.kind] in wanted.sections and key not in wanted.objects and key.kind is not Kind.CLUSTER:
            if isinstance(spec, TenantSpec) and spec.id == SENTINEL_TENANT:
                continue
            yield key, spec


def _remove(key: Key, spec: AnySpec, facts: Facts, scope: Scope) -> list[Item]:
    if not scope.has(key):
        return [Keep(key, f"{_GONE}; out of --limit")] if owner(key) == key else []
    if isinstance(spec, ServerSpec):
        return _remove_server(key, spec, facts.meetings_of(key), scope.mode)
    if isinstance(spec, TenantSpec):
        return _remove_tenant(key, spec, facts, scope)
    return [Remove(key, spec)]


def _remove_server(key: Key, spec: ServerSpec, meetings: int, mode: Mode) -> list[Item]:
    if mode == "keep":
        return [Keep(key, f"{_GONE}; mode keep removes none")]
    if spec.protect:
        return [Blocked(key, "it is protected", _UNPROTECT)]
    if not meetings:
        return [Remove(key, spec, f"{_GONE}, empty")]
    if mode == "force":
        return [Remove(key, spec, f"{_GONE}; ends {_meetings(meetings)}"), Ending(key, meetings)]
    if spec.state == "enabled":
        why = f"{_GONE}; {_meetings(meetings)} on it, removed by a later apply"
        return [Update(key, spec, spec.model_copy(update={"state": "cordoned"}), reason=why)]
    return [Keep(key, f"{_GONE}; {spec.state}, {_meetings(meetings)} on it")]


def _remove_tenant(key: Key, spec: TenantSpec, facts: Facts, scope: Scope) -> list[Item]:
    if spec.protect:
        return [Blocked(key, "it is protected", _UNPROTECT)]
    meetings, recordings = facts.meetings_of(key), facts.recordings_of(key)
    loses_name = key.name != spec.name
    if meetings and scope.mode != "force":
        why = f"{_meetings(meetings)} of it {_run(meetings)}"
        return [Blocked(key, why, "set enabled: false, and remove it when they have ended", "meetings", meetings)]
    if recordings and not scope.tenant_data:
        why = f"it owns {recordings:,} recording{'' if recordings == 1 else 's'}"
        remedy = "set enabled: false, or say what becomes of them: --tenant-data keep, delete or move:TENANT"
        return [Blocked(key, why, remedy, "recordings", recordings)]
    reason = f"{_GONE}{'; another tenant takes its name' if loses_name else ''}"
    if recordings:
        reason += f"; its {recordings:,} recordings: {scope.tenant_data}"
    return [Remove(key, spec, reason), *([Ending(key, meetings)] if meetings else [])]


def _with_owners(found: list[Item]) -> list[Item]:
    """Leave out the removals of settings and LRS whose tenant stays because a guard stops its removal."""
    stay = {item.key for item in found if isinstance(item, Blocked)}
    return [item for item in found if not (isinstance(item, Remove) and owner(item.key) in stay)]


def _holds(
    live: Declared, wanted: Declared, changes: list[Change], facts: Facts, scope: Scope
) -> Iterator[Keep | Hold]:
    """Yield the holds on servers that stay and that are stricter than what is declared, or their releases."""
    after = {change.key: change for change in changes if change.key.kind is Kind.SERVER}
    for server, held in sorted(facts.holds.items()):
        key = Key(Kind.SERVER, server)
        if key not in live.objects or "servers" not in wanted.sections or not scope.has(key):
            continue
        change = after.get(key)
        spec = live.objects[key] if change is None else change.after if isinstance(change, Update) else None
        if isinstance(spec, ServerSpec) and _STRICTNESS[held.state] > _STRICTNESS[spec.state]:
            yield (
                Hold(key, held.state, None)
                if scope.release_holds
                else Keep(key, f"held {held.state} by {held.by}", held)
            )


def _meetings(count: int) -> str:
    return f"{count:,} meeting{'' if count == 1 else 's'}"


def _run(count: int) -> str:
    return "runs" if count == 1 else "run"
