"""Apply in mode force: cordon, end the meetings in parallel, then do the rest; two transactions.

Killed in between, the next plan shows what is left, and nothing is ended twice. Rules: spec/plan.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import psycopg

from scalelite.core.align import unaltered
from scalelite.core.model import Kind, ServerSpec, TenantSpec
from scalelite.core.plan import Update
from scalelite.errors import ApplyFailed, LockTimeout, StalePlan
from scalelite.flows import reconcile
from scalelite.flows.admin import end_each
from scalelite.store import db, plans, runtime, specs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.core.plan import Plan
    from scalelite.flows.acting import Acting
    from scalelite.flows.admin import MeetingEnd
    from scalelite.flows.reconcile import Applied, Check, Planned, Request
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection

_ENDING_S: Final = 60.0
# Services follow a cordon within a second; until then one of them may still place a meeting.
_ROUNDS: Final = 3
_BETWEEN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Forced:
    """What came of an apply in mode force: each meeting's end, what could not be done, and what stopped it half-way."""

    applied: Applied
    ends: tuple[MeetingEnd, ...] = ()
    stopped: str = ""


async def carry_out(
    services: Services,
    connection: Connection,
    request: Request,
    planned: Planned,
    acting: Acting,
    *,
    unchanged: Check | None = None,
) -> Forced:
    """Do what was planned, ending the meetings that are in the way; raises as `reconcile.carry_out` does.

    What fails once the servers are cordoned and their meetings ended is no error any more: it is left for another run.
    """
    if not planned.plan.endings:
        return Forced(await reconcile.carry_out(connection, request, planned, acting, unchanged=unchanged))
    reconcile.refuse_blocked(planned)
    cordons = tuple(_cordons(planned.plan, planned))
    revision = await _cordon(connection, request, planned, cordons, acting, unchanged)
    ends = tuple(await _end_all(services, connection, planned.plan))
    try:
        return Forced(await _rest(connection, request, planned, acting), ends)
    except (StalePlan, LockTimeout, ApplyFailed) as error:
        left = tuple(change.key.address for change in planned.plan.changes)
        done = reconcile.Applied(replace(planned.plan, changes=cordons), revision, left)
        return Forced(done, ends, error.message)


def _cordons(plan: Plan, planned: Planned) -> Iterable[Update]:
    """Yield what keeps new meetings away: servers are cordoned, tenants disabled."""
    for ending in plan.endings:
        before, key = planned.live.objects[ending.key], unaltered(ending.key)
        why = "cordoned to end its meetings"
        if isinstance(before, ServerSpec) and before.state == "enabled":
            yield Update(key, before, before.model_copy(update={"state": "cordoned"}), reason=why)
        elif isinstance(before, TenantSpec) and before.enabled:
            yield Update(key, before, before.model_copy(update={"enabled": False}), reason=why)


async def _cordon(  # noqa: PLR0917 - as the apply itself
    connection: Connection,
    request: Request,
    planned: Planned,
    cordons: tuple[Update, ...],
    acting: Acting,
    unchanged: Check | None,
) -> int:
    check = unchanged or reconcile.still_holds(request, planned)
    try:
        async with db.apply_lock(connection, acting.lock_timeout_s, acting.tell):
            await plans.lock_rows(connection, list(reconcile.live_keys(planned.plan.changes).values()))
            await check(connection)
            if cordons:
                return await specs.write(connection, cordons, acting.author, acting.new_id)
    except psycopg.Error as error:
        raise ApplyFailed(f"rolled back, nothing was written: {db.first_line(error)}") from None
    return planned.plan.revision


async def _end_all(services: Services, connection: Connection, plan: Plan) -> list[MeetingEnd]:
    """End the meetings that are in the way, in a few rounds: services follow the cordon within a second."""
    names = {kind: [unaltered(item.key).name for item in plan.endings if item.key.kind is kind] for kind in Kind}
    ends: list[MeetingEnd] = []
    for turn in range(_ROUNDS):
        refused = {end.meeting.generation for end in ends if end.outcome == "refused"}
        found = await runtime.meetings_to_end(connection, names[Kind.SERVER], names[Kind.TENANT])
        meetings = [meeting for meeting in found if meeting.generation not in refused]
        if turn and not meetings:
            break
        ends += await end_each(services, connection, meetings, _ENDING_S)
        await asyncio.sleep(_BETWEEN_S)
    return ends


async def _rest(connection: Connection, request: Request, planned: Planned, acting: Acting) -> Applied:
    """Do the plan on what is live now, without what still has meetings; its guards were asked already."""
    request = replace(request, mode="cordon")
    now = await reconcile.compare(connection, request)
    mine = {change.key for change in planned.plan.changes}
    changes = tuple(change for change in now.plan.changes if change.key in mine)
    plan = replace(now.plan, changes=changes, blocked=(), releases=planned.plan.releases)
    applied = await reconcile.carry_out(connection, request, replace(now, plan=plan, guards=()), acting)
    return replace(applied, left=_left(planned.plan, now.plan))


def _left(planned: Plan, now: Plan) -> tuple[str, ...]:
    stay = {keep.key for keep in now.keeps} | {stop.key for stop in now.blocked}
    return tuple(ending.key.address for ending in planned.endings if ending.key in stay)
