"""Plan and apply: an inventory against the live cluster; facts, then core's diff, then one transaction or nothing.

Rules: spec/plan.md. Mode force, which ends meetings, is flows/force.py; saved plans are flows/saved.py.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors as pg

from scalelite.core import guards as checks
from scalelite.core import patterns, saved
from scalelite.core.align import identified, narrowed, renamed, unaltered
from scalelite.core.drift import drift
from scalelite.core.guards import Bounds, Guard
from scalelite.core.model import OF_TENANTS, Declared, Key, Kind
from scalelite.core.plan import Create, Plan, Remove, Scope, diff, lacked, located
from scalelite.errors import ApplyFailed, GuardRefused, StalePlan, UsageError
from scalelite.flows.acting import Acting
from scalelite.flows.drift import moved, note_agreement
from scalelite.store import db, history, plans, specs
from scalelite.store.db import Connection
from scalelite.store.revisions import mark_files, renames

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from scalelite.core.drift import Drift, Past
    from scalelite.core.guards import Verdict
    from scalelite.core.model import AnySpec
    from scalelite.core.plan import Change, Facts, Mode
    from scalelite.store.plans import Identity
    from scalelite.store.specs import Author

_SIMULATION_WAIT_S: Final = 1.0
_PLAN_AGAIN: Final = "plan again and look at what is different"


def _nothing(_: str) -> Iterable[str]:
    return ()


def _no_policies(_: Plan) -> Iterable[Verdict]:
    return ()


@dataclass(frozen=True, slots=True)
class Request:
    """What an inventory asks for, how far a plan may go, and what may stop it.

    `replaces` is as of a scope; `sets` are names of groups of servers for patterns; `read_names` reads the file of a
    pattern `@file`; `judge` is what the inventory's policies say of a plan.
    """

    wanted: Declared
    mode: Mode = "cordon"
    limit: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    tenant_data: str = ""
    release_holds: bool = False
    allow: Mapping[str, int] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=Bounds)
    sets: Callable[[], Mapping[str, frozenset[str]]] = dict
    ids_from_urls: frozenset[str] = frozenset()
    read_names: Callable[[str], Iterable[str]] = _nothing
    judge: Callable[[Plan], Iterable[Verdict]] = _no_policies
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """What an inventory was read from: the paths that were named, all files with their digests, the commit."""

    sources: tuple[str, ...]
    files: Mapping[str, str]
    git: tuple[str, bool] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Planned:
    """A plan and what it was made against; `pasts` are what was changed outside of the inventory, by object."""

    plan: Plan
    cluster_name: str
    read_s: float
    pasts: Mapping[Key, Past] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    warnings: tuple[str, ...] = ()
    wanted: Declared = field(default_factory=lambda: Declared({}))
    scope: Scope = field(default_factory=Scope)
    live: Declared = field(default_factory=lambda: Declared({}))
    identity: Identity = field(default_factory=lambda: plans.Identity("", b"", 0))
    revisions: Mapping[Key, int] = field(default_factory=dict)
    drift: tuple[Drift, ...] = ()

    @property
    def applyable(self) -> bool:
        """Whether no guard stops it."""
        return not self.plan.blocked and all(guard.status != "blocked" for guard in self.guards)


# --- plan ------------------------------------------------------------------------------------------------------------


async def compare(connection: Connection, request: Request) -> Planned:
    """Compare an inventory with the cluster, in one snapshot and without a lock; raises UsageError for a pattern."""
    started = asyncio.get_running_loop().time()
    async with db.snapshot(connection):
        return await _compare(connection, request, started)


async def _compare(connection: Connection, request: Request, started: float) -> Planned:
    live = await specs.load_live(connection)
    facts = await plans.load_facts(connection)
    pasts = await history.load_pasts(connection)
    identity = await plans.identity(connection)
    read_s = asyncio.get_running_loop().time() - started
    wanted = identified(live.declared, narrowed(request.wanted, request.sections), request.ids_from_urls)
    scope = _scope(request, live.declared, wanted, facts)
    plan = diff(live.declared, wanted, facts, request.mode, live.revision, scope=scope)
    if gone := list(lacked(plan)):
        plan = located(plan, await history.load_files(connection, gone))
    before = renamed(live.declared, wanted, replaces=scope.replaces)
    after = checks.state_after(plan, before)
    return Planned(
        plan,
        live.cluster_name,
        read_s,
        pasts,
        checks.check(plan, before, wanted, request.bounds, allowed=request.allow, denied=request.judge(plan)),
        tuple(checks.warnings(after)),
        wanted,
        scope,
        before,
        identity,
        await _revisions(connection, plan),
        drift(live.declared, pasts, wanted),
    )


async def _revisions(connection: Connection, plan: Plan) -> dict[Key, int]:
    keys = live_keys(plan.changes)
    found = await plans.revisions_of(connection, list(keys.values()))
    return {key: found[live] for key, live in keys.items() if live in found}


def live_keys(changes: Sequence[Change]) -> dict[Key, Key]:
    """Return the keys that changed objects are live under: a renamed tenant and what is its own have its old name."""
    old_names = renames(changes)
    return {
        change.key: change.key._replace(name=old_names.get(change.key.name, change.key.name))
        if change.key.kind in OF_TENANTS
        else change.key
        for change in changes
    }


def _scope(request: Request, live: Declared, wanted: Declared, facts: Facts) -> Scope:
    if request.tenant_data.startswith("move:"):
        _check_target(request.tenant_data, wanted)
    if not request.limit and not request.exclude:
        return Scope(request.mode, None, request.tenant_data, request.release_holds, request.replaces)
    servers = {key.name for key, _ in (*live.of_kind(Kind.SERVER), *wanted.of_kind(Kind.SERVER))}
    sets = {"online": facts.online, "offline": frozenset(servers) - facts.online, **request.sets()}
    among = patterns.population(live.objects, wanted.objects, sets)
    within = patterns.select(request.limit, request.exclude, among, request.read_names)
    return Scope(request.mode, within, request.tenant_data, request.release_holds)


def _check_target(tenant_data: str, wanted: Declared) -> None:
    if Key(Kind.TENANT, tenant_data.removeprefix("move:")) not in wanted.objects:
        raise UsageError(f"--tenant-data {tenant_data}: the inventory has no such tenant")


async def plan(connection: Connection, wanted: Declared, mode: Mode) -> Planned:
    """Compare a declared state with the cluster, without limits."""
    return await compare(connection, Request(wanted, mode))


async def simulate(connection: Connection, planned: Planned, author: Author, new_id: Callable[[], UUID]) -> str:
    """Run the apply's own statements and roll back; returns a warning where that was not possible.

    Raises ApplyFailed where they fail, as the apply would.
    """
    if not planned.plan.does_something or not planned.applyable:
        return ""
    if not await plans.may_write(connection):
        return ""
    try:
        async with connection.transaction(force_rollback=True):
            await plans.wait_at_most(connection, _SIMULATION_WAIT_S)
            await write(connection, planned, author, new_id)
            await plans.check_constraints_now(connection)
    except pg.LockNotAvailable:
        return "not simulated: another apply is running"
    except (pg.ForeignKeyViolation, pg.RestrictViolation):  # Postgres 18 has the second for what is RESTRICT
        if planned.plan.endings:
            return "not simulated: meetings are still running on what is removed"
        raise ApplyFailed("the apply would fail: something still refers to what is removed") from None
    except psycopg.Error as error:
        raise ApplyFailed(f"the apply would fail: {db.first_line(error)}") from None
    return ""


# --- apply -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply wrote; revision 0 when there was nothing to write. `left` names what could not be done."""

    plan: Plan
    revision: int
    left: tuple[str, ...] = ()


Check = Callable[[Connection], Awaitable[None]]


async def carry_out(
    connection: Connection, request: Request, planned: Planned, acting: Acting, *, unchanged: Check | None = None
) -> Applied:
    """Do what was planned in one transaction, or nothing; `unchanged` raises StalePlan, inside of it.

    Raises GuardRefused, LockTimeout, StalePlan when the cluster has changed since it was planned, ApplyFailed.
    """
    refuse_blocked(planned)
    files = await moved(connection, planned.wanted, acting.author)
    if not planned.plan.does_something:
        await note_agreement(connection, planned.wanted, acting.author, acting.lock_timeout_s)
        await mark_files(connection, files)
        return Applied(planned.plan, 0)
    try:
        async with db.apply_lock(connection, acting.lock_timeout_s, acting.tell):
            await plans.lock_rows(connection, list(live_keys(planned.plan.changes).values()))
            await (unchanged or still_holds(request, planned))(connection)
            revision = await write_and_prove(connection, planned, acting)
            await mark_files(connection, files)
    except psycopg.Error as error:
        raise ApplyFailed(f"rolled back, nothing was written: {db.first_line(error)}") from None
    return Applied(planned.plan, revision)


def still_holds(request: Request, planned: Planned) -> Check:
    """Return the check that a plan which was just made would be made again: StalePlan where it would not."""

    async def check(connection: Connection) -> None:
        if await plans.live_revision(connection) != planned.plan.revision:
            await _refuse_other_plan(connection, request, planned)
        await refuse_stale(connection, planned, saved.reliances(planned.plan))

    return check


async def _refuse_other_plan(connection: Connection, request: Request, planned: Planned) -> None:
    """Raise StalePlan where a plan that is made now would be another one: two applies never mix."""
    now = await _compare(connection, request, asyncio.get_running_loop().time())
    if (now.plan.changes, now.plan.releases) == (planned.plan.changes, planned.plan.releases):
        return
    before = set(map(repr, planned.plan.changes))
    other = [change.key for change in now.plan.changes if repr(change) not in before]
    other += [change.key for change in planned.plan.changes if change not in now.plan.changes]
    trace = await plans.last_change(connection, other[0]) if other else None
    what = f"; {other[0].address} was changed {trace}" if trace else ""
    revisions = f"revision {planned.plan.revision:,} → {now.plan.revision:,}"
    raise StalePlan(f"the cluster changed since the plan was made ({revisions}){what}", hint=_PLAN_AGAIN)


async def refuse_stale(connection: Connection, planned: Planned, reliances: Iterable[saved.Reliance]) -> None:
    """Raise StalePlan where a row that is touched, or a fact that was relied on, is no longer as it was."""
    if found := list(saved.broken(reliances, await plans.load_facts(connection))):
        raise StalePlan(f"the plan is stale: {'; '.join(found[:3])}", hint=_PLAN_AGAIN)
    keys = live_keys(planned.plan.changes)
    given_up = set(renames(planned.plan.changes).values())
    expected: dict[Key, AnySpec | None] = {
        key: None for key in keys.values() if key.kind not in OF_TENANTS or key.name not in given_up
    }
    expected |= {keys[each.key]: each.before for each in planned.plan.changes if not isinstance(each, Create)}
    touched = await specs.load_some(connection, expected.keys())
    for key, before in expected.items():
        if touched.get(key) != before:
            raise StalePlan(await who_changed(connection, key), hint=_PLAN_AGAIN)


async def who_changed(connection: Connection, key: Key) -> str:
    """Say of a stale plan which object was changed since, when and by whom."""
    key = unaltered(key)
    trace = await plans.last_change(connection, key)
    return f"the plan is stale: {key.address} was changed {trace}" if trace else f"the plan is stale: {key.address}"


async def write(connection: Connection, planned: Planned, author: Author, new_id: Callable[[], UUID]) -> int:
    """Write what was planned as one revision; call it inside `db.apply_lock`, or to roll it back."""
    plan = planned.plan
    gone = [change.key.name for change in plan.changes if isinstance(change, Remove) and change.key.kind is Kind.TENANT]
    hand_over = partial(plans.hand_over_recordings, connection, gone, planned.scope.tenant_data)
    return await specs.write(
        connection, plan.changes, author, new_id, holds=plan.releases, before_removals=hand_over if gone else None
    )


async def write_and_prove(connection: Connection, planned: Planned, acting: Acting) -> int:
    """Write, and plan again inside the transaction: what was written must be what was wanted."""
    revision = await write(connection, planned, acting.author, acting.new_id)
    keys = {change.key for change in planned.plan.changes}
    live = Declared(await specs.load_some(connection, keys))
    wanted = replace(
        planned.wanted, objects={key: spec for key in keys if (spec := planned.wanted.objects.get(key)) is not None}
    )
    left = diff(live, wanted, planned.plan.facts, scope=replace(planned.scope, within=None)).changes
    if left:
        addresses = ", ".join(change.key.address for change in left[:3])
        raise ApplyFailed(f"rolled back, nothing was written: {len(left)} changes would be left ({addresses} …)")
    await note_agreement(connection, planned.wanted, acting.author)
    return revision


async def apply(
    connection: Connection,
    wanted: Declared,
    shown: Plan,
    author: Author,
    new_id: Callable[[], UUID],
    *,
    lock_timeout_s: float,
) -> Applied:
    """Do what a plan of `plan` says, without looking at its bounds."""
    pasts = await history.load_pasts(connection)
    planned = Planned(shown, "", 0.0, pasts, wanted=wanted, scope=Scope(shown.mode))
    return await carry_out(connection, Request(wanted, shown.mode), planned, Acting(author, new_id, lock_timeout_s))


def refuse_blocked(planned: Planned) -> None:
    """Raise GuardRefused when a guard stops something in the plan."""
    plan = planned.plan
    stopped: Sequence[Guard] = [guard for guard in planned.guards if guard.status == "blocked"]
    if not stopped and plan.blocked:
        stopped = checks.check(plan, Declared({}), Declared({}, frozenset()), Bounds(), allowed={})
    if not stopped:
        return
    first = stopped[0]
    more = f" (and {len(stopped) - 1} more)" if len(stopped) > 1 else ""
    bound = f" ({first.limit}, set by {first.where})" if first.where else ""
    hint = f"{first.override} allows exactly this" if first.override else first.remedy
    raise GuardRefused(f"guard {first.id} stops this: {first.subject}: {first.message}{bound}{more}", hint=hint)


async def prepare_cluster(connection: Connection) -> None:
    """Make the cluster's one row, if there is none, with a key for fingerprints."""
    await specs.ensure_cluster(connection, secrets.token_bytes(32))
