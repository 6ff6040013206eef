"""The history of declared state: revisions, who set which field, and the way back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalelite.core.blame import Blame, blame, lifetime
from scalelite.core.model import OF_TENANTS, Key
from scalelite.core.plan import diff
from scalelite.core.rollback import restore
from scalelite.errors import UsageError
from scalelite.flows.reconcile import Planned
from scalelite.store import db, history, specs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.core.model import AnySpec, Declared
    from scalelite.core.plan import Mode
    from scalelite.core.rollback import Lost, Version
    from scalelite.store.db import Connection
    from scalelite.store.history import Revision


# Entries of a revision that are about no declared row.
HOLDS: Final = frozenset({"hold", "release"})

# --- revisions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What a revision did to one object; secrets are masked, and `fields` names them too."""

    key: Key
    action: str
    before: AnySpec | None
    after: AnySpec | None
    fields: tuple[str, ...]


async def revision_steps(connection: Connection, number: int) -> tuple[Revision, list[Step]]:
    """Return a revision and what it did; raises UsageError for a number that there is not."""
    async with db.snapshot(connection):
        live = (await specs.load_live(connection)).declared
        revision = await history.load_revision(connection, number)
        if revision is None:
            last = await history.load_revisions(connection, 1)
            raise _no_revision(number, last[0].number if last else 0)
        ended, begun = await history.load_sides(connection, number)
    steps = []
    for entry in revision.changes:
        key = Key.of_address(entry["address"])
        if key is None or entry["action"] in HOLDS:
            continue
        old = ended.get(Key.of_address(entry.get("was", "")) or key)
        after = begun.get(key, live.objects.get(key)) if entry["action"] != "remove" else None
        steps.append(Step(key, entry["action"], old.spec if old else None, after, tuple(entry["fields"])))
    return revision, steps


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
    """The plan that leads back to the state after a revision, that state, and the secrets of it that are lost."""

    planned: Planned
    wanted: Declared
    lost: Sequence[Lost]


async def plan_rollback(connection: Connection, number: int, mode: Mode, inventory: Declared | None) -> WayBack:
    """Plan the way back to the state after a revision; raises UsageError for a number that there is not."""
    started = asyncio.get_running_loop().time()
    async with db.snapshot(connection):
        live = await specs.load_live(connection)
        if not 0 <= number <= live.revision:
            raise _no_revision(number, live.revision)
        facts = await specs.load_facts(connection)
        unchanged = await history.load_unchanged(connection, number)
        since = await history.load_since(connection, number)
    read_s = asyncio.get_running_loop().time() - started
    restored = restore(live.declared, unchanged, since, number, inventory)
    plan = diff(live.declared, restored.wanted, facts, mode, live.revision)
    return WayBack(Planned(plan, live.cluster_name, read_s), restored.wanted, restored.lost)
