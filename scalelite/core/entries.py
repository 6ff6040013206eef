"""A plan as entries for people: what changes, from what to what, and where that is written; text and markdown show it.

Identical changes of many objects collapse into one entry. Secrets never get in here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from scalelite.core.align import unaltered
from scalelite.core.model import Key, Kind
from scalelite.core.plan import Create, Remove, Update, owner
from scalelite.core.show import CHANGED_SECRET, counted, difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from scalelite.core.model import Place
    from scalelite.core.plan import Held, Plan

# So many identical changes are still listed one by one.
FEW: Final = 3
# What makes an object this one, so that it does not count when creations are compared.
_IDENTITY: Final = {
    "id", "name", "url", "secret", "previous_secret", "hosts", "secrets", "public_url",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldLine:
    """One field: what changes, where the new value comes from, and who has changed it outside."""

    name: str
    change: str
    detail: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change or keep of a plan, or many identical ones."""

    symbol: str
    subject: str
    action: str
    detail: str = ""
    fields: tuple[FieldLine, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class Known:
    """What entries say beside the plan: places, marks of drift by field ('' for the object), the time, and how much."""

    now: datetime
    places: Mapping[tuple[Key, str], Place] = field(default_factory=dict)
    marks: Mapping[tuple[Key, str], str] = field(default_factory=dict)
    full: bool = False
    looked_up: Callable[[Key, str], str] = lambda _key, _field: ""


def subject(key: Key) -> str:
    """Return `server bbb1`, `tenant acme · setting record`; by its live name also what is about to lose that."""
    key = unaltered(key)
    match key.kind:
        case Kind.CLUSTER:
            return "cluster"
        case Kind.SETTING:
            return f"tenant {key.name} · setting {key.param}"
        case Kind.LRS:
            return f"tenant {key.name} · lrs"
        case _:
            return f"{key.kind} {key.name}"


def entries(plan: Plan, known: Known) -> list[Entry]:
    """Return what is stopped, what is removed, kept, and all other changes, in this order."""
    removed = [change for change in plan.changes if isinstance(change, Remove)]
    others = [change for change in plan.changes if not isinstance(change, Remove)]
    return [
        *(Entry("!", subject(stop.key), "blocked", f"{stop.reason}; {stop.remedy}") for stop in plan.blocked),
        *_removals(removed, plan, known),
        *(Entry("=", subject(keep.key), "keep", reason(keep.reason, keep.held, known.now)) for keep in plan.keeps),
        *_releases(plan, known),
        *_puts(others, plan, known),
    ]


def reason(text: str, held: Held | None, now: datetime) -> str:
    """Return why something is kept; of a hold also since when, and what its maker said."""
    if held is None:
        return text
    why = f' ("{held.why}")' if held.why else ""
    return f"{text} since {clock(held.since, now)}{why}"


def _releases(plan: Plan, known: Known) -> Iterator[Entry]:
    for hold in plan.releases:
        held = plan.facts.holds[hold.key.name]
        was = reason(f"was held {held.state} by {held.by}", held, known.now)
        yield Entry("~", subject(hold.key), "release", was)


def clock(at: datetime, now: datetime) -> str:
    """Return the time of day, with the date where it is not today's."""
    at = at.astimezone(now.tzinfo)
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"


# --- removals --------------------------------------------------------------------------------------------------------


def _removals(changes: Iterable[Remove], plan: Plan, known: Known) -> Iterator[Entry]:
    """Settings and LRS that go with their tenant are counted in its line."""
    changes = list(changes)
    gone = {change.key for change in changes}
    inner = Counter(owner(change.key) for change in changes if owner(change.key) != change.key)
    ends = {item.key: item.meetings for item in plan.endings}
    for change in changes:
        key = change.key
        if owner(key) != key and owner(key) in gone and not known.full:
            continue
        detail = change.reason
        if inner[key] and not known.full:
            detail += f", with {counted(inner[key], 'setting')}"
        if key in ends:
            yield Entry("!", subject(key), "ends", _ends(key, ends[key], plan))
        yield Entry("-", subject(key), "delete", _with_mark(detail, known.marks.get((key, ""), "")))


def _ends(key: Key, meetings: int, plan: Plan) -> str:
    return f"ends {counted(meetings, 'meeting')}{_people(key, plan)}"


def _people(key: Key, plan: Plan) -> str:
    users = plan.facts.server_users.get(key.name, 0) if key.kind is Kind.SERVER else 0
    return f" with {users:,} {'person' if users == 1 else 'people'}" if users else ""


def _with_mark(detail: str, mark: str) -> str:
    return f"{detail}   # drift: {mark}" if mark else detail


def deletes(plan: Plan) -> list[str]:
    """Return what is removed, for the index at the end; settings of a removed tenant are left out."""
    removed = [change.key for change in plan.changes if isinstance(change, Remove)]
    gone = set(removed)
    return [subject(key) for key in removed if owner(key) == key or owner(key) not in gone]


# --- creations and updates -------------------------------------------------------------------------------------------


def _puts(changes: Iterable[Create | Update], plan: Plan, known: Known) -> Iterator[Entry]:
    """Yield changes in their order, identical ones at the place of the first."""
    groups: dict[object, list[Create | Update]] = {}
    for change in changes:
        groups.setdefault(change.key if known.full else _likeness(change), []).append(change)
    ends = {item.key: item.meetings for item in plan.endings}
    for group in groups.values():
        if len(group) > FEW:
            yield _collapsed(group, plan, known)
            continue
        for change in group:
            if change.key in ends:
                yield Entry("!", subject(change.key), "ends", _ends(change.key, ends[change.key], plan))
            yield _single(change, plan, known)


def _likeness(change: Create | Update) -> object:
    """Return what is equal for changes that look the same."""
    kind, param = change.key.kind, change.key.param
    if isinstance(change, Create):
        values = tuple((name, repr(value)) for name, value in change.after if name not in _IDENTITY)
        return Create, kind, param, values
    if change.reason:
        return change.key
    return Update, kind, param, tuple((line.name, line.change) for line in _fields(change))


def _fields(change: Create | Update) -> Iterator[FieldLine]:
    if isinstance(change, Update):
        for name in change.fields:
            yield FieldLine(name, difference(getattr(change.before, name), getattr(change.after, name)))


def _single(change: Create | Update, plan: Plan, known: Known) -> Entry:
    key = change.key
    if isinstance(change, Create):
        detail = _with_mark(str(change.place or ""), known.marks.get((key, ""), ""))
        return Entry("+", subject(key), "create", detail)
    changed = list(_fields(change))
    places = {line.name: str(known.places.get((key, line.name)) or "") for line in changed}
    head = next((place for place in places.values() if place), str(change.place or ""))
    lines = [
        replace(line, detail=_origin(line, places[line.name], head, key, known), mark=_mark(line, key, known))
        for line in changed
    ]
    if change.reason:
        lines = [_state_of_unwanted(line, change, plan) for line in lines]
    return Entry("~", subject(key), "update", change.reason.partition(";")[0] or head, tuple(lines))


def _origin(line: FieldLine, place: str, head: str, key: Key, known: Known) -> str:
    """Say where a new value comes from: its place, where the first line does not say it; of a secret, the lookup."""
    lookup = known.looked_up(key, line.name) if line.change == CHANGED_SECRET else ""
    return ", ".join(filter(None, (lookup, "" if place == head and not lookup else place)))


def _mark(line: FieldLine, key: Key, known: Known) -> str:
    return known.marks.get((key, line.name), "")


def _state_of_unwanted(line: FieldLine, change: Update, plan: Plan) -> FieldLine:
    """Say who is on a server that is cordoned because the inventory lacks it."""
    meetings = plan.facts.meetings_of(change.key)
    verb = "is" if meetings == 1 else "are"
    detail = f"{counted(meetings, 'meeting')}{_people(change.key, plan)} {verb} on it; removed by a later apply"
    return replace(line, detail=detail)


def _collapsed(group: list[Create | Update], plan: Plan, known: Known) -> Entry:
    first = group[0]
    single = _single(first, plan, known)
    places = Counter(_place(change, known) for change in group)
    place = _place(first, known)
    detail = place if len(places) == 1 else f"{place} and {counted(len(places) - 1, 'more place')}"
    marked = sum(any((change.key, line.name) in known.marks for line in _fields(change)) for change in group)
    mark = f"in {marked:,} of them" if marked else ""
    lines = tuple(FieldLine(line.name, line.change, "", mark if n == 0 else "") for n, line in enumerate(single.fields))
    return Entry(single.symbol, _subjects(group), single.action, f"{detail}     (--full lists them)", lines, len(group))


def _place(change: Create | Update, known: Known) -> str:
    if isinstance(change, Create):
        return change.place.file if change.place else ""
    places = (known.places.get((change.key, name)) for name in change.fields)
    return str(next((place for place in places if place), change.place) or "")


def _subjects(group: list[Create | Update]) -> str:
    key, count = group[0].key, len(group)
    match key.kind:
        case Kind.SETTING:
            return f"{counted(count, 'tenant')} · setting {key.param}"
        case Kind.LRS:
            return f"{counted(count, 'tenant')} · lrs"
        case _:
            return counted(count, str(key.kind))
