"""Plan and apply: an inventory against the live cluster; facts, then core's diff, then one transaction or nothing.

Rules: spec/plan.md.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from scalelite.core.plan import Plan, diff
from scalelite.errors import ApplyFailed, GuardRefused, StalePlan
from scalelite.flows.drift import note_agreement
from scalelite.store import db, history, specs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from scalelite.core.drift import Past
    from scalelite.core.model import Declared, Key
    from scalelite.core.plan import Mode
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and what it was made against."""

    plan: Plan
    cluster_name: str
    read_s: float
    pasts: Mapping[Key, Past] = field(default_factory=dict)


async def plan(connection: Connection, wanted: Declared, mode: Mode) -> Planned:
    """Compare an inventory with the cluster, in one snapshot and without a lock."""
    started = asyncio.get_running_loop().time()
    async with db.snapshot(connection):
        live = await specs.load_live(connection)
        facts = await specs.load_facts(connection)
        pasts = await history.load_pasts(connection)
    read_s = asyncio.get_running_loop().time() - started
    return Planned(diff(live.declared, wanted, facts, mode, live.revision), live.cluster_name, read_s, pasts)


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply wrote; revision 0 when there was nothing to write."""

    plan: Plan
    revision: int


async def apply(
    connection: Connection,
    wanted: Declared,
    shown: Plan,
    author: Author,
    new_id: Callable[[], UUID],
    *,
    lock_timeout_s: float,
) -> Applied:
    """Do what the shown plan says in one transaction, or nothing.

    Raises GuardRefused, LockTimeout, StalePlan when the cluster has changed since the plan was shown, ApplyFailed.
    """
    refuse_blocked(shown)
    if not shown.changes:
        await note_agreement(connection, wanted, author, lock_timeout_s)
        return Applied(shown, 0)
    try:
        async with db.apply_lock(connection, lock_timeout_s):
            live = await specs.load_live(connection)
            if diff(live.declared, wanted, await specs.load_facts(connection), shown.mode).changes != shown.changes:
                raise StalePlan(
                    f"the cluster changed since the plan was made (revision {shown.revision} → {live.revision})",
                    hint="plan again and look at what is different",
                )
            revision = await specs.write(connection, shown.changes, author, new_id)
            await _prove(connection, wanted, shown.mode)
            await note_agreement(connection, wanted, author)
    except psycopg.Error as error:
        raise ApplyFailed(f"rolled back, nothing was written: {db.first_line(error)}") from None
    return Applied(shown, revision)


async def _prove(connection: Connection, wanted: Declared, mode: Mode) -> None:
    """Plan again inside the transaction: what was written must be what was wanted."""
    left = diff((await specs.load_live(connection)).declared, wanted, await specs.load_facts(connection), mode)
    if left.changes:
        addresses = ", ".join(change.key.address for change in left.changes[:3])
        raise ApplyFailed(
            f"rolled back, nothing was written: {len(left.changes)} changes would be left ({addresses} …)"
        )


def refuse_blocked(plan: Plan) -> None:
    """Raise GuardRefused when a guard stops something in the plan."""
    if plan.blocked:
        first = plan.blocked[0]
        more = f" (and {len(plan.blocked) - 1} more)" if len(plan.blocked) > 1 else ""
        raise GuardRefused(f"{first.key.address} cannot be removed: {first.reason}{more}", hint=first.remedy)


async def prepare_cluster(connection: Connection) -> None:
    """Make the cluster's one row, if there is none, with a key for fingerprints."""
    await specs.ensure_cluster(connection, secrets.token_bytes(32))
