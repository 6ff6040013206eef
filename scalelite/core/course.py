"""Wishes one after the other, each on what those before it make of the cluster: several at once, and checks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from scalelite.core.commands import Known, Wish
from scalelite.core.model import Key, Kind
from scalelite.core.plan import Change, Create, Facts, Held, Hold, Remove, Update

if TYPE_CHECKING:
    from collections.abc import Iterable


class Course:
    """Decides wishes one after the other, each on what the ones before it make of the cluster; writes nothing."""

    def __init__(self, known: Known) -> None:
        facts = known.facts
        self._objects = dict(known.declared.objects)
        self._holds = dict(facts.holds)
        self._meetings = {Kind.SERVER: dict(facts.server_meetings), Kind.TENANT: dict(facts.tenant_meetings)}
        self._recordings = dict(facts.tenant_recordings)
        self._changes: dict[Key, Change] = {}
        self._new_holds: dict[Key, Hold] = {}
        self.known = Known(replace(known.declared, objects=self._objects), self._facts(facts))

    def _facts(self, facts: Facts) -> Facts:
        return replace(
            facts,
            holds=self._holds,
            server_meetings=self._meetings[Kind.SERVER],
            tenant_meetings=self._meetings[Kind.TENANT],
            tenant_recordings=self._recordings,
        )

    def leave_meetings(self, kind: Kind, name: str, most: int) -> None:
        """Take for granted that a server or a tenant has no more meetings than that: it was waited for, or ended."""
        meetings = self._meetings[kind]
        meetings[name] = min(meetings.get(name, 0), most)

    def move_recordings(self, source: str, target: str, count: int) -> None:
        """Take for granted that a tenant's recordings are another's; '' is nobody."""
        self._recordings[source] = self._recordings.get(source, 0) - count
        self._recordings[target] = self._recordings.get(target, 0) + count

    def decide(self, wish: Wish) -> tuple[Change | Hold, ...]:
        """Return what a wish comes to; one that is refused leaves no trace."""
        parts = tuple(wish(self.known))
        for part in parts:
            if isinstance(part, Hold):
                self._hold(part)
            else:
                self._change(part)
        return parts

    def _hold(self, hold: Hold) -> None:
        self._new_holds[hold.key] = hold
        if hold.after is None:
            self._holds.pop(hold.key.name, None)
        else:
            self._holds[hold.key.name] = Held(hold.after, "", hold.why, _NOW)

    def _change(self, change: Change) -> None:
        self._changes[change.key] = _merged(self._changes.get(change.key), change)
        if isinstance(change, Remove):
            self._objects.pop(change.key, None)
        else:
            self._objects[change.key] = change.after

    @property
    def decided(self) -> tuple[Change | Hold, ...]:
        """What all of them come to together."""
        return (*self._changes.values(), *self._new_holds.values())


def in_turn(*wishes: Wish) -> Wish:
    """Wish for several things in one transaction, each decided on what the ones before it make of the cluster."""

    def decide(known: Known) -> Iterable[Change | Hold]:
        course = Course(known)
        for wish in wishes:
            course.decide(wish)
        return course.decided

    return decide


# Of a hold that is not written yet; it begins when it is.
_NOW: Final = datetime.min.replace(tzinfo=UTC)


def _merged(first: Change | None, then: Change) -> Change:
    if isinstance(first, Create | Update) and isinstance(then, Update):
        return replace(first, after=then.after)
    return then
