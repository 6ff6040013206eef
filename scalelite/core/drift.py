"""Three-way comparison: what an inventory last applied, what is live, what is wanted; does nothing and shows nothing.

A field that differs is your change (the inventory says something new), drift (somebody changed the cluster outside of
it), or both. Rules: spec/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from scalelite.core.align import settled
from scalelite.core.model import SECTION_OF, has_secret
from scalelite.core.plan import Create, Remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from scalelite.core.model import AnySpec, Declared, Key
    from scalelite.core.plan import Change

Origin = Literal["change", "drift", "both"]
Action = Literal["made", "removed", "changed"]


class Touch(NamedTuple):
    """Who changed something outside of the inventory, when, and in which revision."""

    revision: int
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Past:
    """What became of an object since an inventory last applied it.

    `applied` is what was applied, its secrets masked (None: no inventory ever did); `fields` says who last changed
    which field since, `last` who touched the object at all.
    """

    applied: AnySpec | None
    last: Touch
    fields: Mapping[str, Touch] = field(default_factory=dict)


class Cause(NamedTuple):
    """Why a field differs; `touch` says who made the drift."""

    origin: Origin
    touch: Touch | None = None


YOUR_CHANGE = Cause("change")


def causes(change: Change, past: Past | None) -> dict[str, Cause]:
    """Say why each field of a change differs; under '' for an object that is created or removed."""
    match change:
        case Create():
            gone = past is not None and past.applied is not None
            return {"": Cause("drift", past.last) if past and gone else YOUR_CHANGE}
        case Remove():
            made = past is not None and past.applied is None
            return {"": Cause("drift", past.last) if past and made else YOUR_CHANGE}
        case _:
            return {name: _cause(name, change.before, change.after, past) for name in change.fields}


def _cause(name: str, live: AnySpec, wanted: AnySpec, past: Past | None) -> Cause:
    if past is None or not _has_drifted(name, live, past):
        return YOUR_CHANGE
    touch = past.fields.get(name, past.last)
    if past.applied is None or has_secret(getattr(wanted, name)):
        return Cause("drift", touch)
    return Cause("drift" if getattr(past.applied, name) == getattr(wanted, name) else "both", touch)


def _has_drifted(name: str, live: AnySpec, past: Past) -> bool:
    """Of a secret only that it was changed is known, since what was applied is masked."""
    if past.applied is None:
        return True
    if has_secret(getattr(live, name)) or has_secret(getattr(past.applied, name)):
        return name in past.fields
    return bool(getattr(live, name) != getattr(past.applied, name))


def agreed(live: Declared, touched: Iterable[Key], wanted: Declared) -> tuple[list[Key], list[Key]]:
    """Return of the touched objects those of which an inventory says what is live, and those that it lacks as well."""
    managed = [(key, live.objects.get(key)) for key in touched if SECTION_OF[key.kind] in wanted.sections]
    same = [(key, spec) for key, spec in managed if spec == _wanted(key, spec, wanted)]
    return [key for key, spec in same if spec is not None], [key for key, spec in same if spec is None]


# --- drift by itself -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drift:
    """An object that was made, removed or changed outside of the inventory; the fields are those of a change."""

    key: Key
    action: Action
    before: AnySpec | None
    live: AnySpec | None
    last: Touch
    fields: Mapping[str, Touch]


def drift(live: Declared, pasts: Mapping[Key, Past], wanted: Declared | None = None) -> tuple[Drift, ...]:
    """Return what was changed outside of the inventory since it was last applied, sorted by key.

    With `wanted`, the inventory as it is now, what it says by now is no drift any more, nor what it does not manage.
    """
    return tuple(
        found
        for key, past in sorted(pasts.items())
        if wanted is None or SECTION_OF[key.kind] in wanted.sections
        if (found := _drift(key, live.objects.get(key), past, wanted)) is not None
    )


def _drift(key: Key, live: AnySpec | None, past: Past, wanted: Declared | None) -> Drift | None:
    if wanted is not None and live == _wanted(key, live, wanted):
        return None
    if live is None or past.applied is None:
        if live is past.applied:
            return None  # made and removed again
        action: Action = "made" if live is not None else "removed"
        return Drift(key, action, past.applied, live, past.last, {})
    want = None if wanted is None else _wanted(key, live, wanted)
    fields = {
        name: past.fields.get(name, past.last)
        for name in type(live).model_fields
        if _has_drifted(name, live, past) and (want is None or getattr(live, name) != getattr(want, name))
    }
    return Drift(key, "changed", past.applied, live, past.last, fields) if fields else None


def _wanted(key: Key, live: AnySpec | None, wanted: Declared) -> AnySpec | None:
    spec = wanted.objects.get(key)
    return None if spec is None else settled(spec, live)
