"""The history of declared state: revisions, who set which field, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from scalelite.core.model import OF_TENANTS, Key
from scalelite.core.revisions import Blame, Revision, Step, blame, lifetime, steps
from scalelite.core.rollback import restore
from scalelite.errors import UsageError
from scalelite.flows import reconcile
from scalelite.store import db, history, specs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.model import Declared
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
        live = (await specs.load_live(connection)).declared.objects.get(key)
        from_rev = await history.load_from_rev(connection, key)
        versions = await _lives(connection, key, from_rev)
        found = blame(live, from_rev, versions)
        if found is None:
            return None
        numbers = {*found.fields.values(), *([found.removed] if found.removed else [])}
        revisions = {number: await history.load_revision(connection, number) for number in numbers}
    return Blamed(found, {number: revision for number, revision in revisions.items() if revision})


async def _lives(connection: Connection, key: Key, from_rev: int | None) -> list[Version]:
    """Return the versions of an object, before those under the names that its tenant had before."""
    versions = await history.load_versions(connection, key)
    life = lifetime(from_rev, versions) if from_rev else versions
    born = life[0].from_rev if life else from_rev
    revision = await history.load_revision(connection, born) if born and key.kind in OF_TENANTS else None
    was = {entry["address"]: entry["was"] for entry in revision.changes if "was" in entry} if revision else {}
    old = Key.of_address(was.get(f"tenant/{key.name}", ""))
    if old is None:
        return versions
    return [*await _lives(connection, key._replace(name=old.name), born), *life]


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
