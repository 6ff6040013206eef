"""The history of declared state: revisions, who set which field, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from scalelite.core.revisions import Blame, Revision, Step, blame, steps
from scalelite.core.rollback import restore
from scalelite.errors import UsageError
from scalelite.flows import reconcile
from scalelite.store import db, history, specs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.model import Declared, Key
    from scalelite.core.plan import Mode
    from scalelite.core.rollback import Lost, Version
    from scalelite.store.db import Connection


# --- revisions -------------------------------------------------------------------------------------------------------


async def revision_steps(connection: Connection, number: int) -> tuple[Revision, list[Step]]:
    """Return a revision and what it did; raises UsageError for a number that there is not."""
    async with db.snapshot(connection):
        live = (await specs.load_live(connection)).declared
        revision = await history.load_revision(connection, number)
        if revision is None:
            last = await history.load_revisions(connection, 1)
            raise _no_revision(number, last[0].number if last else 0)
        ended, begun = await history.load_sides(connection, number)
    return revision, list(steps(revision, ended, begun, live))


def _no_revision(number: int, last: int) -> UsageError:
    return UsageError(
        f"there is no revision {number:,}", hint=f"the last one is {last:,}; scalelite history lists them"
    )


@dataclass(frozen=True, slots=True)
class Blamed:
    """Who set which field of an object."""

    blame: Blame
    revisions: dict[int, Revision]


async def find_blame(connection: Connection, key: Key) -> Blamed | None:
    """Return which revision set each field of an object, or None for one that never was."""
    async with db.snapshot(connection):
        spec = (await specs.load_some(connection, {key})).get(key)
        from_rev = await history.load_from_rev(connection, key)
        removed = None
        if spec is None or from_rev is None:
            versions = await history.load_versions(connection, key)
            if not versions:
                return None
            spec, from_rev, removed = versions[-1].spec, versions[-1].from_rev, versions[-1].to_rev
        found = blame(spec, from_rev, await _life(connection, key, from_rev), removed)
        numbers = {*found.fields.values(), *([removed] if removed else [])}
        revisions = {number: await history.load_revision(connection, number) for number in numbers}
    return Blamed(found, {number: revision for number, revision in revisions.items() if revision})


async def _life(connection: Connection, key: Key, until: int) -> list[Version]:
    """Return the versions that led to the one of a key that began with a revision, oldest first.

    A name may have been another object's before: each version is followed to where it was made, and from there to the
    name that its tenant had before, or no further where it was created.
    """
    eras: dict[Key, _Era] = {}
    found: list[Version] = []
    while True:
        if key not in eras:
            eras[key] = await _Era.load(connection, key, until)
        if until in eras[key].begun:
            old = eras[key].begun[until]
            if old is None:
                break
            key = old
            if key not in eras:
                eras[key] = await _Era.load(connection, key, until)
        if (version := eras[key].ended.get(until)) is None:
            break
        found.append(version)
        until = version.from_rev
    return found[::-1]


@dataclass(frozen=True, slots=True)
class _Era:
    """What stood under one key: the versions by the revision that ended them, and what began there otherwise.

    `begun`: None for what was created, else the key that it had before.
    """

    ended: Mapping[int, Version]
    begun: Mapping[int, Key | None]

    @classmethod
    async def load(cls, connection: Connection, key: Key, until: int) -> _Era:
        ended = {version.to_rev: version for version in await history.load_versions(connection, key)}
        numbers = {until, *(version.from_rev for version in ended.values())}
        return cls(ended, await history.load_beginnings(connection, key, numbers))


# --- the way back ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WayBack:
    """What asks for the state after a revision, the plan that leads there, and the secrets of it that are lost."""

    request: reconcile.Request
    planned: reconcile.Planned
    lost: Sequence[Lost]


async def plan_rollback(
    connection: Connection,
    number: int,
    inventory: Declared | None,
    mode: Mode = "cordon",
    allow: Mapping[str, int] = MappingProxyType({}),
) -> WayBack:
    """Plan the way back to the state after a revision; raises UsageError for a number that there is not."""
    async with db.snapshot(connection):
        live = await specs.load_live(connection)
        if not 0 <= number <= live.revision:
            raise _no_revision(number, live.revision)
        unchanged = await history.load_unchanged(connection, number)
        since = await history.load_since(connection, number)
    restored = restore(live.declared, unchanged, since, number, inventory)
    request = reconcile.Request(restored.wanted, mode, allow=allow, replaces=True)
    return WayBack(request, await reconcile.compare(connection, request), restored.lost)
